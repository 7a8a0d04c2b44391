//! What went wrong with a call, in the protocol's kinds.

use thiserror::Error;

/// The protocol's kinds of errors; each transport has a code for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The call is wrong, whatever the server's state.
    InvalidArgument,
    /// What it names is not there.
    NotFound,
    /// What it wants to make is there already.
    AlreadyExists,
    /// Not now: full, draining, timed out in a queue, or loading.
    Unavailable,
    /// Not in this build or configuration.
    Unsupported,
    /// The caller has not shown who it is.
    Unauthenticated,
    /// The caller may not do this.
    PermissionDenied,
    /// It needs more than a limit allows.
    ResourceExhausted,
    /// It was called off.
    Cancelled,
    /// Its time ran out.
    DeadlineExceeded,
    /// The server or its engine failed.
    Internal,
}

/// An error that a caller is told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct Fault {
    /// Of what kind.
    pub kind: Kind,
    /// What was expected, and what came.
    pub text: String,
}

impl Fault {
    /// A fault with a text.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { kind, text }
    }

    /// The call is wrong.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, text)
    }
}

impl Kind {
    /// The HTTP status.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::InvalidArgument | Self::AlreadyExists => 400,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::ResourceExhausted => 413,
            Self::Cancelled => 499,
            Self::Internal => 500,
            Self::Unsupported => 501,
            Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
        }
    }
}
