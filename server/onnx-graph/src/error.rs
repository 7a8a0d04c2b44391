//! What can be wrong with an ONNX file.

use adjoin_backend::{LoadError, ModelSource};
use thiserror::Error;

/// Why a file does not describe a model that adjoin can serve.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GraphError {
    /// It is damaged, or no ONNX model at all.
    #[error("this is no ONNX model: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// An input or output is of a kind that adjoin does not serve.
    #[error("{kind} {name:?} {what}")]
    Unsupported {
        /// `input` or `output`.
        kind: &'static str,
        /// Name of the tensor.
        name: String,
        /// What is not supported.
        what: String,
    },
}

impl GraphError {
    /// As a failure to load `source` with `engine`.
    #[must_use]
    pub fn into_load_error(self, engine: &'static str, source: &ModelSource) -> LoadError {
        match self {
            Self::Malformed { .. } => LoadError::Refused {
                engine,
                path: source.path.clone(),
                reason: self.to_string(),
            },
            Self::Unsupported { kind, name, what } => LoadError::Unsupported {
                model: source.name.clone(),
                kind,
                name,
                what,
            },
        }
    }
}
