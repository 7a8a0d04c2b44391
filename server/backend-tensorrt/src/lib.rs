//! Native TensorRT engines: plans that were built ahead, run by a library that is found at run time.
//!
//! A plan (`model.plan`) is what `trtexec` or TensorRT's builder writes for one kind of device. This crate loads it
//! through a thin C++ shim of virtual calls (`shim/`), gives its inputs and outputs to the server as every engine does, and
//! runs batches on a device of `adjoin_cuda`: the copy engine brings each request's piece to its row of the device batch,
//! the plan runs, and results go straight to where the clients read them. Up to the rows that a graph pays for, all
//! of that is one CUDA graph, captured once for each size of batch and replayed.
//!
//! Neither TensorRT nor a CUDA toolkit is needed to build it, but TensorRT's headers are (README.md).
//!
//! # Order of things
//! `nvinfer` is not touched before a device of `adjoin_cuda` is there: the lean runtime, asked on a machine without a
//! driver, returns an object that is none and ends the process at the next call. `TensorRtBackend::open` asks for the
//! device's `Transfers` first, so it cannot be done in the wrong order.
//!
//! # The crate `tensorrt-rs`
//! Whoever looks for it: it supports TensorRT 5 and 7, whose libraries its build wants by their exact names, and parses
//! UFF, which TensorRT dropped. It does not build against TensorRT 8 or later, so nothing here is made on it.

#![cfg(feature = "engine")]
#![warn(missing_docs)]

mod graphs;
mod instance;
mod metadata;
mod model;
mod raw;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adjoin_backend::{Backend, BackendError, LibrarySearch, LoadError, Model, ModelSource};
use adjoin_cuda::Transfers;

use crate::metadata::refused;
use crate::model::TensorRtModel;
use crate::raw::Library;

/// The engine's name in configuration, logs, metrics and errors.
pub const NAME: &str = "tensorrt";

/// TensorRT on one device.
#[derive(Clone)]
pub struct TensorRtBackend {
    library: Arc<Library>,
    device: Arc<OpenDevice>,
}

/// Gives what batches on the device share, as it is now; a device that was lost and brought back has it anew.
type OpenDevice = dyn Fn() -> Result<Transfers, String> + Send + Sync;

impl fmt::Debug for TensorRtBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorRtBackend")
            .field("library", &self.library)
            .finish_non_exhaustive()
    }
}

impl TensorRtBackend {
    /// Where the library is: at `explicit` (a file, or a directory that has it) if that is given, and otherwise beside the
    /// running program, in a `lib` beside that, or where Linux keeps libraries. The full library is preferred to the lean
    /// runtime, which runs plans alone that were built to be version-compatible.
    ///
    /// # Errors
    /// [`BackendError::LibraryMissing`] with the places that were looked at.
    pub fn find(explicit: Option<&Path>) -> Result<PathBuf, BackendError> {
        let [full, lean] = raw::library_names();
        let search = LibrarySearch {
            engine: NAME,
            file_names: &[&full, &lean],
            last_place: "/usr/local/tensorrt/lib",
        };
        search.find(explicit)
    }

    /// Loads the library. Batches run on the device that `device` gives: it is asked now, and each time a plan is loaded.
    ///
    /// # Errors
    /// [`BackendError::LibraryUnusable`] if there is no device, or the library is no TensorRT, or of another major release
    /// than the headers that this program was built with.
    pub fn open(
        path: &Path,
        device: impl Fn() -> Result<Transfers, String> + Send + Sync + 'static,
    ) -> Result<Self, BackendError> {
        // Before TensorRT is touched: without a driver its lean runtime ends the process.
        let transfers = device().map_err(|reason| BackendError::LibraryUnusable {
            engine: NAME,
            path: path.to_owned(),
            reason,
        })?;
        let library = Library::open(path, transfers.device())?;
        Ok(Self {
            library: Arc::new(library),
            device: Arc::new(device),
        })
    }
}

impl Backend for TensorRtBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        self.library.version().to_string()
    }

    fn accepts(&self, path: &Path) -> bool {
        let extension = path.extension();
        extension.is_some_and(|extension| extension == "plan" || extension == "engine")
    }

    fn load(&self, source: &ModelSource) -> Result<Box<dyn Model>, LoadError> {
        let transfers = (self.device)().map_err(|reason| refused(source, reason))?;
        let model = TensorRtModel::load(&self.library, &transfers, source)?;
        Ok(Box::new(model))
    }
}
