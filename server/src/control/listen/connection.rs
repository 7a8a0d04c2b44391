//! A connection that is ready for a server, and who is at its other end.

use crate::oip::regions::Owner;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// Numbers of connections begin here, far above those of sessions, so that one number is never both.
const FIRST_CONNECTION_ID: u64 = 1 << 63;

static NEXT_CONNECTION_ID: AtomicU64 = AtomicU64::new(FIRST_CONNECTION_ID);

/// Where a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// `control.sock`.
    Control,
    /// `admin.sock`.
    Admin,
    /// `--grpc-addr`.
    Grpc,
    /// `--http-addr`.
    Http,
    /// `--metrics-addr`.
    Metrics,
}

impl fmt::Display for ListenerKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Control => "control socket",
            Self::Admin => "admin socket",
            Self::Grpc => "gRPC listener",
            Self::Http => "HTTP listener",
            Self::Metrics => "metrics listener",
        })
    }
}

/// What a client's certificate says, once it was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its alternative names that are DNS names or URIs.
    pub names: Vec<String>,
}

/// The other end of a connection, by what the kernel and TLS say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process of this node.
    Unix {
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// Somebody who reaches an address.
    Tcp {
        /// From where.
        address: SocketAddr,
        /// Its certificate, where mutual TLS asks for one.
        certificate: Option<Arc<Certificate>>,
    },
}

/// Who calls: among the extensions of each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The connection, never used twice while the server runs.
    pub connection_id: u64,
    /// Who is at its other end.
    pub peer: Peer,
    /// Where it came in.
    pub listener: ListenerKind,
    /// Which token of the token file the call showed, from 0, if it showed one.
    pub token: Option<usize>,
}

impl Caller {
    /// Who calls, as the protocol's calls have it.
    pub(in crate::control) fn of_protocol(&self) -> crate::oip::Caller {
        let owner = match (&self.peer, self.token) {
            (Peer::Unix { uid, .. }, _) => Owner::Uid(*uid),
            (Peer::Tcp { .. }, Some(token)) => Owner::Tcp(format!("token {token}").into()),
            (
                Peer::Tcp {
                    certificate: Some(certificate),
                    ..
                },
                None,
            ) => Owner::Tcp(format!("certificate {}", certificate.names.join(" ")).into()),
            (Peer::Tcp { .. }, None) => Owner::Tcp("".into()),
        };
        crate::oip::Caller {
            flow: self.connection_id,
            owner,
        }
    }

    /// The caller of a new connection.
    pub(in crate::control) fn new(peer: Peer, listener: ListenerKind) -> Self {
        Self {
            connection_id: NEXT_CONNECTION_ID.fetch_add(1, Ordering::Relaxed),
            peer,
            listener,
            token: None,
        }
    }
}

/// The bytes of a connection.
#[derive(Debug)]
pub(super) enum Io {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection, and its place among those of its listener.
#[derive(Debug)]
pub struct Connection {
    io: Io,
    caller: Caller,
    ended: UnboundedSender<u64>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // At the end of the server nobody listens any more.
        let _ = self.ended.send(self.caller.connection_id);
    }
}

impl Connection {
    pub(super) fn new(
        io: Io,
        caller: Caller,
        place: OwnedSemaphorePermit,
        ended: UnboundedSender<u64>,
    ) -> Self {
        Self {
            io,
            caller,
            ended,
            _place: place,
        }
    }

    /// Who is at its other end.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

/// The same call on whatever carries the bytes.
macro_rules! on_io {
    ($self:ident, $method:ident $(, $argument:expr)*) => {
        match &mut $self.get_mut().io {
            Io::Unix(io) => Pin::new(io).$method($($argument),*),
            Io::Tcp(io) => Pin::new(io).$method($($argument),*),
            Io::Tls(io) => Pin::new(io.as_mut()).$method($($argument),*),
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_io!(self, poll_read, context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_io!(self, poll_write, context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_io!(self, poll_write_vectored, context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Unix(io) => io.is_write_vectored(),
            Io::Tcp(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_io!(self, poll_flush, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_io!(self, poll_shutdown, context)
    }
}
