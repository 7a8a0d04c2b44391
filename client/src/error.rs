//! What can go wrong, one type for each group of operations.
//!
//! Where the server refused something, the error holds the status and its values, and a sentence made
//! here from the request and the model's description.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use adjoin_schema::attach::ModelInfo;
use adjoin_schema::descriptor::{Rejection, RequestDescriptor};
use adjoin_schema::status::Status;
use adjoin_schema::{DataType, text};
use thiserror::Error;

/// A refusal of the server: its status and values, and what they mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    rejection: Rejection,
    text: Box<str>,
}

impl Explanation {
    pub(crate) fn new(
        rejection: Rejection,
        request: Option<&RequestDescriptor<'_>>,
        model: Option<&ModelInfo>,
    ) -> Self {
        let text = text::explain(rejection, request, model).into();
        Self { rejection, text }
    }

    /// The refusal as it came.
    #[must_use]
    pub fn rejection(&self) -> Rejection {
        self.rejection
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> Status {
        self.rejection.status
    }
}

impl From<Status> for Explanation {
    fn from(status: Status) -> Self {
        Self::new(status.into(), None, None)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

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

/// Why a question about a model, a submission or a request had no good outcome.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InferError {
    /// No model of that name is loaded.
    #[error("{0}")]
    ModelNotFound(Explanation),
    /// The model has no ready version of that number or label.
    #[error("{0}")]
    VersionNotFound(Explanation),
    /// The request is not one that the model takes.
    #[error("{0}")]
    Invalid(Explanation),
    /// The model's queue is full. Not executed.
    #[error("{0}")]
    QueueFull(Explanation),
    /// The deadline passed, or could not be met.
    #[error("{0}")]
    DeadlineExceeded(Explanation),
    /// The outputs do not fit what is free of the response region. Not executed.
    #[error("{0}")]
    ResponseRegionFull(Explanation),
    /// The outputs turned out larger than what was free of the response region.
    #[error("{0}")]
    OutputTooLarge(Explanation),
    /// The model is loading, or failed to load.
    #[error("{0}")]
    ModelNotReady(Explanation),
    /// The request was cancelled before it ran.
    #[error("{0}")]
    Cancelled(Explanation),
    /// The server is draining and did not execute the request: it can be sent again, and goes to the
    /// next server as soon as there is one.
    #[error("{0}; send it again, the next server takes it")]
    NotExecuted(Explanation),
    /// The engine failed.
    #[error("{0}")]
    ExecutionFailed(Explanation),
    /// The server failed.
    #[error("{0}")]
    Internal(Explanation),
    /// The server ended the session.
    #[error("the server ended the session: {0}")]
    SessionEnded(Explanation),
    /// The server is gone. The next operation opens a session with the next one.
    #[error("the server is gone; the request {}", if *may_have_run { "may have run" } else { "did not run" })]
    ServerGone {
        /// Whether the request may have run: false if it certainly did not.
        may_have_run: bool,
    },
    /// The session is over and no other one could be opened. Not executed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server broke the protocol.
    #[error("the server broke the protocol: {what}")]
    Protocol {
        /// What it did.
        what: Box<str>,
    },
    /// The request moved to another session, and its input was lost with the old one. Write it again.
    #[error(
        "input {name:?} was lost with the session of a server that shut down; write it again before the next submission"
    )]
    InputLost {
        /// Name of the first lost input.
        name: Box<str>,
    },
    /// The request moved to another session, which has no room for its inputs.
    #[error(transparent)]
    RegionFull(#[from] RegionFull),
    /// As many requests are out as the completion ring has places. Not submitted.
    #[error(
        "{limit} requests are in flight, as many as the session has places; wait for one of them, or open the client with more ring_entries"
    )]
    TooManyInFlight {
        /// Requests that may be in flight at once.
        limit: usize,
    },
    /// The server has not taken earlier entries from the submission ring. Not submitted.
    #[error(
        "the server has left {entries} entries in the submission ring; it seems to have stopped"
    )]
    SubmissionRingFull {
        /// Entries of the ring.
        entries: u32,
    },
    /// The caller's time was up. A request was cancelled; it may have run.
    #[error("no answer within {waited:?}")]
    Timeout {
        /// The caller's limit.
        waited: Duration,
    },
    /// The session belongs to the parent of this process.
    #[error(
        "this process was forked after the session was opened; connect in the child, with a client of its own"
    )]
    Forked,
}

impl InferError {
    pub(crate) fn from_explanation(explanation: Explanation) -> Self {
        match explanation.status() {
            Status::ModelNotFound => Self::ModelNotFound(explanation),
            Status::VersionNotFound => Self::VersionNotFound(explanation),
            Status::QueueFull => Self::QueueFull(explanation),
            Status::DeadlineExceeded => Self::DeadlineExceeded(explanation),
            Status::ResponseRegionFull => Self::ResponseRegionFull(explanation),
            Status::OutputTooLarge => Self::OutputTooLarge(explanation),
            Status::ModelNotReady => Self::ModelNotReady(explanation),
            Status::Cancelled => Self::Cancelled(explanation),
            Status::NotExecuted => Self::NotExecuted(explanation),
            Status::ExecutionFailed => Self::ExecutionFailed(explanation),
            Status::Internal => Self::Internal(explanation),
            status if (status as u16) < 200 => Self::Invalid(explanation),
            _ => Self::SessionEnded(explanation),
        }
    }

    pub(crate) fn protocol(what: impl Into<Box<str>>) -> Self {
        Self::Protocol { what: what.into() }
    }

    /// The server's refusal, where it is what went wrong.
    #[must_use]
    pub fn explanation(&self) -> Option<&Explanation> {
        match self {
            Self::ModelNotFound(explanation)
            | Self::VersionNotFound(explanation)
            | Self::Invalid(explanation)
            | Self::QueueFull(explanation)
            | Self::DeadlineExceeded(explanation)
            | Self::ResponseRegionFull(explanation)
            | Self::OutputTooLarge(explanation)
            | Self::ModelNotReady(explanation)
            | Self::Cancelled(explanation)
            | Self::NotExecuted(explanation)
            | Self::ExecutionFailed(explanation)
            | Self::Internal(explanation)
            | Self::SessionEnded(explanation)
            | Self::Connect(ConnectError::Refused(explanation)) => Some(explanation),
            _ => None,
        }
    }

    /// The server's status, where it answered with one.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::Connect(error) => error.status(),
            other => other.explanation().map(Explanation::status),
        }
    }

    /// Whether nothing but time or load stands in the way of the same request: it was not executed,
    /// and may succeed when it is submitted again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::ServerGone { may_have_run } => !may_have_run,
            Self::TooManyInFlight { .. } | Self::SubmissionRingFull { .. } => true,
            Self::Connect(error) => error.may_pass(),
            other => other.status().is_some_and(Status::is_retryable),
        }
    }

    /// Whether the request may have run although there is no answer.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        match self {
            Self::ServerGone { may_have_run } => *may_have_run,
            Self::SessionEnded(_) | Self::Protocol { .. } | Self::Timeout { .. } => true,
            Self::ExecutionFailed(_) | Self::OutputTooLarge(_) | Self::Internal(_) => true,
            _ => false,
        }
    }
}

/// Too little is free of a session's request region.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the request needs {needed} bytes and {free} of the session's {capacity} are free; drop requests that are not used any more, or open the client with more request_bytes"
)]
pub struct RegionFull {
    /// Bytes that the request's inputs take.
    pub needed: u64,
    /// Bytes that no request uses, in however many pieces.
    pub free: u64,
    /// Bytes for inputs in the session.
    pub capacity: u64,
}

/// Why a request could not be built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The model has no such input.
    #[error("model {model:?} has no input {name:?}; it takes {known}")]
    InputUnknown {
        /// Name of the model.
        model: String,
        /// The name that was given.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// An input is named twice.
    #[error("input {name:?} is named twice")]
    InputRepeated {
        /// Its name.
        name: String,
    },
    /// An input of the model is missing.
    #[error("input {name:?} of model {model:?} is missing; it takes {known}")]
    InputMissing {
        /// Name of the model.
        model: String,
        /// The name that is missing.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// The model has no such output.
    #[error("model {model:?} has no output {name:?}; it gives {known}")]
    OutputUnknown {
        /// Name of the model.
        model: String,
        /// The name that was given.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// The model does not take that shape.
    #[error("input {name:?} has shape {got}; the model takes {expected}")]
    ShapeMismatch {
        /// Name of the input.
        name: String,
        /// The shape that was given.
        got: String,
        /// The model's shape, with names of its open dimensions.
        expected: String,
    },
    /// More than one dimension is open, so a number of rows does not settle the shape.
    #[error(
        "a number of rows does not settle the shape {expected} of input {name:?}; name it with `input`"
    )]
    ShapeOpen {
        /// Name of the input.
        name: String,
        /// The model's shape, with names of its open dimensions.
        expected: String,
    },
    /// The size does not follow from the shape, or is another one than was given.
    #[error("input {name:?} of type {dtype}: {reason}")]
    ByteSize {
        /// Name of the input.
        name: String,
        /// Its data type.
        dtype: DataType,
        /// What is wrong, and what to do.
        reason: &'static str,
    },
    /// The names and shapes make a descriptor that the protocol does not allow.
    #[error("{0}")]
    Descriptor(Explanation),
    /// The request region has no room for it.
    #[error(transparent)]
    RegionFull(#[from] RegionFull),
    /// There is no session.
    #[error(transparent)]
    Session(Box<InferError>),
}

impl From<InferError> for RequestError {
    fn from(error: InferError) -> Self {
        Self::Session(Box::new(error))
    }
}

/// Why a tensor of a request or a response cannot be looked at.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TensorError {
    /// There is no tensor of that name.
    #[error("there is no tensor {name:?}, only {known}")]
    NameUnknown {
        /// The name that was given.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// There is no tensor at that place.
    #[error("there is no tensor at index {index}, there are {count}")]
    IndexOutOfRange {
        /// The index that was given.
        index: usize,
        /// How many tensors there are.
        count: usize,
    },
    /// Its elements are of another type.
    #[error("tensor {name:?} has data type {actual}, which is not a {wanted}")]
    DataTypeMismatch {
        /// Name of the tensor.
        name: String,
        /// Its data type.
        actual: DataType,
        /// The Rust type that was asked for.
        wanted: &'static str,
    },
    /// The server took the memory back when it shut down.
    #[error("the output was lost with the session of a server that shut down")]
    Lost,
    /// The extent is not where tensors lie.
    #[error(transparent)]
    Element(#[from] adjoin_shm::ElementError),
    /// The session belongs to the parent of this process.
    #[error("this process was forked after the session was opened; its memory is not here")]
    Forked,
}
