//! How callers arrive: one place that accepts connections, for gRPC and HTTP, on unix sockets and TCP, plain or under
//! TLS. What comes out is a [`Connection`], which knows its [`Caller`].
//!
//! A connection has to show that it is there, by its handshake or its first byte, within a limit of time, and in a task
//! of its own: one that says nothing keeps nobody else waiting. Each listener has so many places; when they are
//! taken, further connections are closed at once.

mod connection;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{RecvFlags, recv, sockopt};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;

use crate::log_limit::LogLimit;
use connection::Io;
pub use connection::{Caller, Certificate, Connection, ListenerKind, Peer};
pub use tls::{Tls, TlsError};

/// How long a connection may take until it is one.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that are ready for a server that has not taken them yet.
const READY_MAX: usize = 16;
/// Silence on a TCP connection after which the system asks whether the other end is still there.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(60);

/// How long what was sent may stay unread, before a TCP connection is given up: its answers are the server's memory.
pub(super) const UNREAD_TIMEOUT: Duration = Duration::from_secs(120);

static FULL_LINES: LogLimit = LogLimit::per_second(1);
static FAILED_LINES: LogLimit = LogLimit::per_second(1);

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// A socket that was accepted.
enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream, SocketAddr),
}

impl Socket {
    /// A unix socket of a listener that was bound before the runtime ran.
    pub(super) fn unix(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener).map(Self::Unix)
    }

    /// The same over TCP.
    pub(super) fn tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Self::Tcp)
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(Accepted::Unix(stream))
            }
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok(Accepted::Tcp(stream, address))
            }
        }
    }
}

/// Connections of one listener, as they are ready.
#[derive(Debug)]
pub(super) struct Incoming {
    ready: mpsc::Receiver<Connection>,
}

/// What a listener allows its connections, and who is told of their end.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// How long each may take until it is one.
    pub handshake: Duration,
    /// How long what was sent over TCP may stay unread, in whole milliseconds.
    pub unread: Duration,
    /// Gets the number of each connection that is over.
    pub ended: mpsc::UnboundedSender<u64>,
}

/// Accepts until what it returns is dropped.
pub(super) fn incoming(
    socket: Socket,
    kind: ListenerKind,
    tls: Option<&Tls>,
    limits: Limits,
) -> Incoming {
    let (sender, ready) = mpsc::channel(READY_MAX);
    let acceptor = tls.map(|tls| tls.acceptor(kind));
    tokio::spawn(accept(socket, kind, acceptor, limits, sender));
    Incoming { ready }
}

async fn accept(
    socket: Socket,
    kind: ListenerKind,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    ready: mpsc::Sender<Connection>,
) {
    let free = Arc::new(Semaphore::new(limits.connections));
    loop {
        let accepted = tokio::select! {
            () = ready.closed() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => {
                let Ok(place) = Arc::clone(&free).try_acquire_owned() else {
                    if FULL_LINES.admits() {
                        tracing::warn!(%kind, connections = limits.connections, "refused a connection: the listener is full");
                    }
                    continue;
                };
                let (tls, ready) = (tls.clone(), ready.clone());
                let (limits, handshake) = (limits.clone(), limits.handshake);
                tokio::spawn(async move {
                    let arriving = arrive(accepted, kind, tls, place, limits);
                    match tokio::time::timeout(handshake, arriving).await {
                        Ok(Ok(connection)) => drop(ready.send(connection).await),
                        Ok(Err(error)) => {
                            tracing::debug!(%kind, %error, "a connection failed in its handshake");
                        }
                        Err(_) => tracing::debug!(%kind, "a connection said nothing in time"),
                    }
                });
            }
            Err(error) => {
                if FAILED_LINES.admits() {
                    tracing::warn!(%kind, %error, "cannot take a connection");
                }
                // Mostly "no descriptors left": without a pause this would spin until some are.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Makes a connection of a socket: its handshake, or its first byte.
async fn arrive(
    accepted: Accepted,
    kind: ListenerKind,
    tls: Option<TlsAcceptor>,
    place: OwnedSemaphorePermit,
    limits: Limits,
) -> io::Result<Connection> {
    let (io, peer) = match accepted {
        Accepted::Unix(stream) => {
            let credentials = stream.peer_cred()?;
            let (uid, gid) = (credentials.uid(), credentials.gid());
            let peek = || recv(&stream, &mut [0; 1], RecvFlags::PEEK).map_err(io::Error::from);
            stream.async_io(Interest::READABLE, peek).await?;
            (Io::Unix(stream), Peer::Unix { uid, gid })
        }
        Accepted::Tcp(stream, address) => {
            // Without it an answer waits for the acknowledgement of what came before: 44 ms instead of 0.2.
            stream.set_nodelay(true)?;
            // A peer that vanished without a word would keep its place for ever.
            sockopt::set_socket_keepalive(&stream, true)?;
            sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE_AFTER)?;
            let unread_ms = u32::try_from(limits.unread.as_millis()).unwrap_or(u32::MAX);
            sockopt::set_tcp_user_timeout(&stream, unread_ms)?;
            let (io, certificate) = match tls {
                None => {
                    stream.peek(&mut [0]).await?;
                    (Io::Tcp(stream), None)
                }
                Some(acceptor) => {
                    let stream = acceptor.accept(stream).await?;
                    let certificate = tls::certificate(&stream);
                    (Io::Tls(Box::new(stream)), certificate)
                }
            };
            let peer = Peer::Tcp {
                address,
                certificate,
            };
            (io, peer)
        }
    };
    Ok(Connection::new(
        io,
        Caller::new(peer, kind),
        place,
        limits.ended,
    ))
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(context).map(|next| next.map(Ok))
    }
}

#[cfg(test)]
mod tests;
