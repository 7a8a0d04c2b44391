//! A failed call on its way to C: status, full text, and what a caller may do next.

use adjoin_client::{ConnectError, InferError, RequestError, TensorError};

use crate::status::AdjoinStatus;

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: AdjoinStatus,
    pub(crate) message: String,
    pub(crate) is_retryable: bool,
    pub(crate) may_have_run: bool,
}

impl Failure {
    /// A failure that a caller has to change something about.
    pub(crate) fn new(status: AdjoinStatus, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            is_retryable: false,
            may_have_run: false,
        }
    }

    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self::new(AdjoinStatus::InvalidArgument, message)
    }

    pub(crate) fn null(what: &str) -> Self {
        Self::argument(format!("{what} is NULL"))
    }

    pub(crate) fn state(message: impl Into<String>) -> Self {
        Self::new(AdjoinStatus::WrongState, message)
    }
}

impl From<InferError> for Failure {
    fn from(error: InferError) -> Self {
        Self {
            status: (&error).into(),
            message: error.to_string(),
            is_retryable: error.is_retryable(),
            may_have_run: error.may_have_run(),
        }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        InferError::from(error).into()
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Session(error) => (*error).into(),
            other => Self::new((&other).into(), other.to_string()),
        }
    }
}

impl From<TensorError> for Failure {
    fn from(error: TensorError) -> Self {
        Self::new((&error).into(), error.to_string())
    }
}
