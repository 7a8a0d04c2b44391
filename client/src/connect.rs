//! The handshake: from a path to a session, or to an error that says what stands in the way.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adjoin_schema::PROTOCOL_VERSION;
use adjoin_schema::attach::{AttachMessage, Hello, Welcome};
use adjoin_schema::layout::{MAGIC, SessionLayout};
use adjoin_schema::limits::{ATTACH_MESSAGE_BYTES_MAX, CLIENT_NAME_BYTES_MAX};
use adjoin_schema::status::Status;
use adjoin_shm::doorbell::EventNotifier;
use adjoin_shm::socket::{AttachSocket, Packet};
use adjoin_shm::{ClientMemory, ForkGuard};
use rustix::io::Errno;

use crate::inbox::{message_name, rejection};
use crate::limit::Limit;
use crate::session::{Facts, Session};
use crate::{ClientOptions, ConnectError, Explanation};

/// Name of the attach socket in the socket directory.
const ATTACH_SOCKET: &str = "attach.sock";
/// Pause before another attempt at a server whose queue of connections is full.
const BACKLOG_PAUSE: Duration = Duration::from_millis(2);

/// Path of the attach socket in a socket directory.
pub(crate) fn attach_path(socket_dir: &Path) -> PathBuf {
    socket_dir.join(ATTACH_SOCKET)
}

/// Opens a session, within the limits of the operation that wants it.
pub(crate) fn open(
    socket_dir: &Path,
    options: &ClientOptions,
    limit: &Limit<'_>,
    fork: Arc<ForkGuard>,
) -> Result<Session, ConnectError> {
    let handshake = Handshake {
        path: attach_path(socket_dir),
        options,
        limit,
        began: Instant::now(),
    };
    let wanted = SessionLayout::new(
        options.request_bytes,
        options.response_bytes,
        options.ring_entries,
    )
    .map_err(|rejection| ConnectError::Refused(Explanation::new(rejection, None, None)))?;
    let socket = handshake.connect()?;
    let packet = handshake.exchange(&socket)?;
    let welcome = handshake.welcome(&packet)?;
    let layout = handshake.layout(&welcome, wanted)?;
    let Ok([request, response, event]) = <[OwnedFd; 3]>::try_from(packet.fds) else {
        return Err(handshake.not_a_server("it sent another number of descriptors than three"));
    };
    let memory = ClientMemory::map(layout, &request, &response).map_err(|error| {
        let source = std::io::Error::from(error.errno());
        ConnectError::System {
            what: "mapping the session's memory",
            source,
        }
    })?;
    for region in [memory.request(), memory.response()] {
        let header = region.header();
        if header.magic != MAGIC || header.protocol != welcome.protocol {
            return Err(handshake.not_a_server("its memory has no header of this protocol"));
        }
    }
    let facts = Facts {
        session_id: welcome.session_id,
        server_version: welcome.server_version,
        layout,
        features: welcome.features,
    };
    tracing::debug!(
        session = facts.session_id,
        server_version = %facts.server_version,
        "opened session"
    );
    let event = EventNotifier::from_fd(event);
    Ok(Session::new(
        facts,
        memory,
        socket,
        event,
        fork,
        options.spin,
    ))
}

struct Handshake<'o> {
    path: PathBuf,
    options: &'o ClientOptions,
    limit: &'o Limit<'o>,
    began: Instant,
}

impl Handshake<'_> {
    fn not_a_server(&self, reason: impl Into<String>) -> ConnectError {
        ConnectError::NotAServer {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }

    fn no_server(&self, reason: &'static str) -> ConnectError {
        ConnectError::NoServer {
            path: self.path.clone(),
            reason,
        }
    }

    /// How long a wait may go on, of what is left of the time for the handshake.
    fn step(&self, at_most: Duration) -> Result<Duration, ConnectError> {
        let waited = self.began.elapsed();
        let rest = self.options.answer_timeout.saturating_sub(waited);
        let step = self.limit.step(at_most.min(rest))?;
        if step.is_zero() {
            let path = self.path.clone();
            return Err(ConnectError::Timeout { path, waited });
        }
        Ok(step)
    }

    fn connect(&self) -> Result<AttachSocket, ConnectError> {
        loop {
            match AttachSocket::connect(&self.path) {
                Ok(socket) => return Ok(socket),
                // The server's queue of connections is full.
                Err(Errno::AGAIN) => std::thread::sleep(self.step(BACKLOG_PAUSE)?),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.connect_error(errno)),
            }
        }
    }

    fn connect_error(&self, errno: Errno) -> ConnectError {
        match errno {
            Errno::NOENT => self.no_server("there is no such socket"),
            Errno::NOTDIR => self.no_server("its directory is no directory"),
            Errno::CONNREFUSED => {
                self.no_server("nobody listens on it, the server has ended or is starting")
            }
            Errno::NAMETOOLONG => {
                self.no_server("the path is longer than the 107 bytes of a socket's")
            }
            Errno::ACCESS | Errno::PERM => ConnectError::PermissionDenied {
                path: self.path.clone(),
                uid: rustix::process::geteuid().as_raw(),
            },
            Errno::PROTOTYPE => self.not_a_server("it is a socket of another type"),
            other => ConnectError::System {
                what: "connecting to the attach socket",
                source: other.into(),
            },
        }
    }

    fn exchange(&self, socket: &AttachSocket) -> Result<Packet, ConnectError> {
        let mut client_name = self.options.name.clone();
        while client_name.len() > CLIENT_NAME_BYTES_MAX {
            client_name.pop();
        }
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            request_bytes: self.options.request_bytes,
            response_bytes: self.options.response_bytes,
            ring_entries: self.options.ring_entries,
            token: self.options.token,
            client_name,
        };
        // A server that refuses everybody may be gone before the hello, and its answer is there all the same.
        let _ = socket.send(&AttachMessage::Hello(hello).encode(), &[]);
        loop {
            match socket.receive(ATTACH_MESSAGE_BYTES_MAX) {
                Ok(packet) if packet.bytes.is_empty() => {
                    let path = self.path.clone();
                    return Err(ConnectError::Closed { path });
                }
                Ok(packet) => return Ok(packet),
                // A reset is told once, and an answer that was sent before can still be read.
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNRESET) => {}
                Err(Errno::MSGSIZE) => {
                    return Err(self.not_a_server("its answer is longer than the protocol allows"));
                }
                Err(errno) => {
                    return Err(ConnectError::System {
                        what: "the handshake",
                        source: errno.into(),
                    });
                }
            }
            // Whatever the outcome, the next round looks.
            let _ = socket.wait_readable(self.step(Duration::MAX)?);
        }
    }

    fn welcome(&self, packet: &Packet) -> Result<Welcome, ConnectError> {
        match AttachMessage::parse(&packet.bytes) {
            Ok(AttachMessage::Welcome(welcome)) if welcome.protocol == PROTOCOL_VERSION => {
                Ok(welcome)
            }
            Ok(AttachMessage::Welcome(welcome)) => Err(ConnectError::ProtocolMismatch {
                client: PROTOCOL_VERSION,
                server: welcome.protocol,
            }),
            Ok(AttachMessage::Refusal(refusal)) => {
                let rejection = rejection(&refusal);
                Err(
                    match (rejection.status, u32::try_from(rejection.detail[1])) {
                        (Status::ProtocolMismatch, Ok(server)) => ConnectError::ProtocolMismatch {
                            client: PROTOCOL_VERSION,
                            server,
                        },
                        _ => ConnectError::Refused(Explanation::new(rejection, None, None)),
                    },
                )
            }
            Ok(other) => {
                Err(self.not_a_server(format!("it answered with a {}", message_name(&other))))
            }
            Err(error) => Err(self.not_a_server(error.to_string())),
        }
    }

    /// The sizes of the session: those that were wanted, or less. Where a token was shown they were
    /// settled before, and this side does not know them.
    fn layout(
        &self,
        welcome: &Welcome,
        wanted: SessionLayout,
    ) -> Result<SessionLayout, ConnectError> {
        use adjoin_schema::layout::RegionKind::{Request, Response};
        let layout = SessionLayout::new(
            welcome.request_bytes,
            welcome.response_bytes,
            welcome.ring_entries,
        )
        .map_err(|rejection| self.not_a_server(rejection.to_string()))?;
        let is_within = [Request, Response].into_iter().all(|kind| {
            layout.region_bytes(kind) <= wanted.region_bytes(kind)
                && layout.ring_entries(kind) <= wanted.ring_entries(kind)
        });
        if is_within || self.options.token.is_some() {
            Ok(layout)
        } else {
            Err(self.not_a_server("it made the session larger than was wanted"))
        }
    }
}
