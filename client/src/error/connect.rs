//! Why no session could be opened.

use std::path::PathBuf;
use std::time::Duration;

use adjoin_schema::status::Status;
use thiserror::Error;

use super::Explanation;

/// Why no session could be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody listens there.
    #[error(
        "no server at {}: {reason}; start one with `adjoin serve`, or name the socket directory of one that runs",
        .path.display()
    )]
    NoServer {
        /// Path of the attach socket.
        path: PathBuf,
        /// What is there instead.
        reason: &'static str,
    },
    /// The file system does not let this user reach the socket.
    #[error(
        "user {uid} may not connect to {}: its directory needs to be searchable and the socket writable for this user",
        .path.display()
    )]
    PermissionDenied {
        /// Path of the attach socket.
        path: PathBuf,
        /// The user of this process.
        uid: u32,
    },
    /// Something answers there, but it is no adjoin server.
    #[error("what listens at {} is no adjoin server: {reason}", .path.display())]
    NotAServer {
        /// Path of the attach socket.
        path: PathBuf,
        /// What it did.
        reason: String,
    },
    /// The connection was closed without an answer.
    #[error(
        "what listens at {} closed the connection without an answer: the server is ending or has more new connections than it takes at once, or it is no adjoin server",
        .path.display()
    )]
    Closed {
        /// Path of the attach socket.
        path: PathBuf,
    },
    /// The server speaks another protocol.
    #[error(
        "the server speaks protocol {server} and this client {client}; use a client of the server's release"
    )]
    ProtocolMismatch {
        /// This build's protocol.
        client: u32,
        /// The server's.
        server: u32,
    },
    /// The server does not want the session, or the sizes are impossible.
    #[error("the session was refused: {0}")]
    Refused(Explanation),
    /// The server did not answer in time.
    #[error("the server at {} did not answer within {waited:?}", .path.display())]
    Timeout {
        /// Path of the attach socket.
        path: PathBuf,
        /// How long it had.
        waited: Duration,
    },
    /// This system refused something that a session needs.
    #[error("{what} failed: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The caller did not want to wait any longer; see
    /// [`ClientOptions::interrupt`](crate::ClientOptions::interrupt).
    #[error("the wait for the server was interrupted")]
    Interrupted,
    /// The client belongs to the parent of this process.
    #[error(
        "this process was forked after the client connected; connect again in the child, with a client of its own"
    )]
    Forked,
}

impl ConnectError {
    /// The server's status, where it answered with one.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::ProtocolMismatch { .. } => Some(Status::ProtocolMismatch),
            Self::Refused(explanation) => Some(explanation.status()),
            _ => None,
        }
    }

    /// Whether a later attempt may meet another answer without anybody changing the configuration.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::NoServer { .. } | Self::Timeout { .. } | Self::Closed { .. } => true,
            Self::Refused(explanation) => !matches!(
                explanation.status(),
                Status::RegionSizeInvalid
                    | Status::RingSizeInvalid
                    | Status::PeerNotAllowed
                    | Status::TokenInvalid
            ),
            _ => false,
        }
    }
}
