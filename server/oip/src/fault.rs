//! What went wrong with a call, in the protocol's kinds.

use thiserror::Error;

/// Most bytes of a text as the caller gets it: over gRPC it travels in a header.
const TEXT_BYTES_MAX: usize = 1024;

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

    /// The same, with the word and the name of what it is about in front.
    #[must_use]
    pub fn about(self, what: &str, name: &str) -> Self {
        Self::new(self.kind, format!("{what} '{name}': {}", self.text))
    }

    /// The text as the caller gets it: cut where its own names and values make it long.
    #[must_use]
    pub fn into_text(self) -> String {
        let mut text = self.text;
        if text.len() > TEXT_BYTES_MAX {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
            text.push('…');
        }
        text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        let short = Fault::invalid("x".repeat(TEXT_BYTES_MAX));
        assert_eq!(short.clone().into_text(), short.text);
        let long = Fault::invalid(format!("x{}", "ü".repeat(1 << 20))).into_text();
        assert_eq!(long.len(), TEXT_BYTES_MAX - 1 + '…'.len_utf8());
        assert!(long.starts_with("xü") && long.ends_with("ü…"));
    }

    #[test]
    fn what_it_is_about_stands_in_front() {
        let fault = Fault::new(Kind::Internal, "too small").about("output", "y");
        assert_eq!(fault, Fault::new(Kind::Internal, "output 'y': too small"));
    }
}
