//! What can go wrong in an engine.

use std::path::PathBuf;

use thiserror::Error;

/// Why an engine is not usable at all.
#[derive(Debug, Error)]
pub enum BackendError {
    /// Its library was not found.
    #[error("no {engine} library found; looked at {}", searched.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    LibraryMissing {
        /// The engine.
        engine: &'static str,
        /// Where it was looked for.
        searched: Vec<PathBuf>,
    },
    /// Its library is there and cannot be used.
    #[error("{engine} library {} cannot be used: {reason}", path.display())]
    LibraryUnusable {
        /// The engine.
        engine: &'static str,
        /// The library.
        path: PathBuf,
        /// What the engine said.
        reason: String,
    },
}

/// Why a model version cannot be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is no model, or one that the engine cannot run.
    #[error("{engine} cannot load {}: {reason}", path.display())]
    Refused {
        /// The engine.
        engine: &'static str,
        /// The file.
        path: PathBuf,
        /// What the engine said.
        reason: String,
    },
    /// It cannot be made of the parameters in its configuration.
    #[error("model {model:?}: {reason}")]
    Parameters {
        /// The model.
        model: String,
        /// What is wrong with them.
        reason: String,
    },
    /// An input or output of a kind that adjoin does not serve.
    #[error("model {model:?}: {kind} {name:?} {what}")]
    Unsupported {
        /// The model.
        model: String,
        /// `input` or `output`.
        kind: &'static str,
        /// Name of the tensor.
        name: String,
        /// What is not supported.
        what: String,
    },
}

/// Why a batch did not run.
#[derive(Debug, Error)]
pub enum ExecuteError {
    /// The engine reported an error; the next batch may run.
    #[error("{engine} failed: {reason}")]
    Failed {
        /// The engine.
        engine: &'static str,
        /// What it said.
        reason: String,
    },
    /// The device that the engine runs on has lost its context, with everything that was made in it: no instance on it
    /// runs again before the server has brought the device back and loaded its models anew.
    #[error("{engine} has lost its device: {reason}")]
    DeviceLost {
        /// The engine.
        engine: &'static str,
        /// What the driver said.
        reason: String,
    },
    /// The values of a request are none that the model takes. The reason is for the client, who alone can do
    /// something about it.
    #[error("{reason}")]
    Refused {
        /// What is wrong with them.
        reason: String,
    },
    /// The batch does not fit the model; the server should have refused it.
    #[error("the batch does not fit the model: {reason}")]
    Mismatch {
        /// What does not fit.
        reason: String,
    },
    /// A result found no room.
    #[error(transparent)]
    NoRoom(#[from] crate::SinkError),
}
