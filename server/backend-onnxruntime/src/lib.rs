//! Models in ONNX Runtime, whose library is found and loaded at run time.
//!
//! Nothing is copied on the way in or out: an input is a value laid over the client's memory, an output
//! with a known shape is one laid over the client's response memory. `ort` makes the environment and the
//! sessions; a batch goes to the C API directly, because that is where values over foreign memory can be
//! kept from one run to the next.
//!
//! With the feature `cuda`, models that are configured for the server's GPU run there, by the providers of CUDA and
//! TensorRT that a library built for them has (`device`). The provider of CUDA has run on a GPU, that of TensorRT has
//! not (docs/onnxruntime-gpu.md).
//!
//! Two kinds of input cannot be used as they lie, and are copied here, once, and counted: strings, which
//! the engine keeps in objects of its own, and truth values, whose bytes must be 0 or 1 for the engine's
//! C++ to be defined.

#![warn(missing_docs)]

mod cache;
#[cfg(feature = "cuda")]
mod device;
mod environment;
mod instance;
mod model;
mod raw;

use std::path::{Path, PathBuf};

use adjoin_backend::{
    Backend, BackendError, DevicePlacement, LibrarySearch, LoadError, Model, ModelSource, Placement,
};

#[cfg(feature = "cuda")]
pub use crate::device::DeviceAccess;
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
    #[cfg(feature = "cuda")]
    device: Option<DeviceAccess>,
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
        let runtime = environment::open(path)?;
        Ok(Self {
            runtime,
            #[cfg(feature = "cuda")]
            device: None,
        })
    }

    /// The same, running models on a device that are configured for it ([`Placement::Device`]).
    #[cfg(feature = "cuda")]
    #[must_use]
    pub fn with_device(self, device: DeviceAccess) -> Self {
        Self {
            device: Some(device),
            ..self
        }
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
        let runtime = self.runtime.clone();
        match &source.placement {
            Placement::Host => Ok(Box::new(OnnxRuntimeModel::load(runtime, source)?)),
            Placement::Device(placement) => self.load_on_device(source, placement),
        }
    }
}

impl OnnxRuntimeBackend {
    fn load_on_device(
        &self,
        source: &ModelSource,
        placement: &DevicePlacement,
    ) -> Result<Box<dyn Model>, LoadError> {
        #[cfg(feature = "cuda")]
        if let Some(access) = &self.device {
            let runtime = self.runtime.clone();
            let model = device::DeviceModel::load(runtime, source, placement, access)?;
            return Ok(Box::new(model));
        }
        let _ = placement;
        Err(model::refused(
            source,
            "it is configured for a GPU (KIND_GPU), and this build of the server uses none; build it with the feature \
             \"cuda\", or run the model on the processor (KIND_CPU)",
        ))
    }
}
