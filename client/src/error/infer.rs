//! Why a question or a run had no good outcome.

use std::time::Duration;

use adjoin_schema::status::Status;
use thiserror::Error;

use super::{ConnectError, Explanation, RegionFull};

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
    /// Memory of a device is not taken: the server uses no device or another one, or the session or its user has as much
    /// attached as it may.
    #[error("{0}")]
    Device(Explanation),
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
    /// The server shut down and took the session's memory with it before the request had left the
    /// session: this input is lost. It has to be written again; until then nothing is submitted.
    #[error(
        "input {name:?} was lost with the session of a server that shut down; write it again and submit the request again"
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
            Status::DeadlineExceeded | Status::DeadlineUnreachable => {
                Self::DeadlineExceeded(explanation)
            }
            Status::ResponseRegionFull => Self::ResponseRegionFull(explanation),
            Status::OutputTooLarge => Self::OutputTooLarge(explanation),
            Status::ModelNotReady => Self::ModelNotReady(explanation),
            Status::Cancelled => Self::Cancelled(explanation),
            Status::NotExecuted => Self::NotExecuted(explanation),
            Status::ExecutionFailed => Self::ExecutionFailed(explanation),
            Status::DeviceUnavailable
            | Status::DeviceMismatch
            | Status::TooManyDeviceRegions
            | Status::DeviceQuotaExceeded => Self::Device(explanation),
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
            | Self::Device(explanation)
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
