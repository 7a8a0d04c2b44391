//! Models in ONNX Runtime, whose library is found and loaded at run time.
//!
//! Nothing is copied on the way in or out: an input is a value laid over the client's memory, an output
//! with a known shape is one laid over the client's response memory. `ort` makes the environment and the
//! sessions; a batch goes to the C API directly, because that is where values over foreign memory can be
//! kept from one run to the next.
//!
//! Two kinds of input cannot be used as they lie, and are copied here, once, and counted: strings, which
//! the engine keeps in objects of its own, and truth values, whose bytes must be 0 or 1 for the engine's
//! C++ to be defined.

#![warn(missing_docs)]

mod cache;
mod environment;
mod instance;
mod model;
mod raw;

use std::path::{Path, PathBuf};

use adjoin_backend::{Backend, BackendError, LibrarySearch, LoadError, Model, ModelSource};

use crate::environment::Runtime;
use crate::model::OnnxRuntimeModel;

/// The engine's name in configuration, logs, metrics and errors.
const NAME: &str = "onnxruntime";

/// Its library; that of shared execution providers has another name.
const SEARCH: LibrarySearch<'static> = LibrarySearch {
    engine: NAME,
    file_names: &["libonnxruntime.so"],
    last_place: "/opt/onnxruntime/lib",
};

/// ONNX Runtime.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjoin_backend::Backend;
/// use adjoin_backend_onnxruntime::OnnxRuntimeBackend;
///
/// let library = OnnxRuntimeBackend::find(None)?;
/// let backend = OnnxRuntimeBackend::open(&library)?;
/// println!("ONNX Runtime {}", backend.version());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct OnnxRuntimeBackend {
    runtime: Runtime,
}

impl OnnxRuntimeBackend {
    /// Where the library is: at `explicit` (a file, or a directory that has it) if that is given, and
    /// otherwise beside the running program, in a `lib` beside that, or where Linux keeps libraries.
    ///
    /// The first directory that has one decides. If it has several, the newest release is taken.
    ///
    /// # Errors
    /// [`BackendError::LibraryMissing`] with the places that were looked at.
    pub fn find(explicit: Option<&Path>) -> Result<PathBuf, BackendError> {
        SEARCH.find(explicit)
    }

    /// Loads the library and makes this process's environment with it; telemetry and the engine's own
    /// log are off. A process has one environment, so a second call gets the first one's, and must name
    /// the same library.
    ///
    /// # Errors
    /// [`BackendError::LibraryMissing`] if there is no such file, and [`BackendError::LibraryUnusable`]
    /// if it is not ONNX Runtime, too old, or another one than before.
    pub fn open(path: &Path) -> Result<Self, BackendError> {
        environment::open(path).map(|runtime| Self { runtime })
    }

    /// The process's environment, for programs that compare with `ort`'s own sessions.
    #[doc(hidden)]
    #[must_use]
    pub fn environment(&self) -> ort::environment::Environment {
        self.runtime.environment.clone()
    }
}

impl Backend for OnnxRuntimeBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        self.runtime.version.to_string()
    }

    fn accepts(&self, path: &Path) -> bool {
        path.extension()
            .is_some_and(|extension| extension == "onnx")
    }

    fn load(&self, source: &ModelSource) -> Result<Box<dyn Model>, LoadError> {
        let model = OnnxRuntimeModel::load(self.runtime.clone(), source)?;
        Ok(Box::new(model))
    }
}
