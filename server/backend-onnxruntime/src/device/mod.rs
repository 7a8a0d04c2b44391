//! Models on the server's GPU: ONNX Runtime's providers of CUDA and TensorRT over buffers of the device that batches are
//! gathered into and scattered from by the copy engine.
//!
//! | module | what it is for |
//! |---|---|
//! | `options`, `profile`, `engine_cache` | what a configuration says, as the providers are told |
//! | `model`, `trial` | a model version, its sessions, and whether their runs can be captured |
//! | `session`, `launcher` | a session with the stream that its work goes to, and the thread that runs it |
//! | `slot` | buffers for a batch, which grow to what comes |
//! | `instance`, `batch`, `filling` | run one batch at a time, of one of few sizes |
//!
//! **Two batches at once.** An instance of the configuration is one session and two slots: while one batch is computed, the
//! next is copied to the device, and the last one back. Runs of a session are enqueued one after another in one stream,
//! by turns; whoever waits does so outside of his turn, for the event behind the copies of his own batch.

mod batch;
mod engine_cache;
mod filling;
mod instance;
mod launcher;
mod model;
mod options;
mod profile;
mod session;
mod slot;
mod trial;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use adjoin_cuda::Transfers;

pub(crate) use self::model::DeviceModel;

/// The server's device, for models that are configured for it.
#[derive(Clone)]
pub struct DeviceAccess {
    /// Opens the device, or gives it as it is now; called each time a model is loaded. An error says what is missing.
    pub open: Arc<dyn Fn() -> Result<Transfers, String> + Send + Sync>,
    /// Where engines of the provider of TensorRT are kept; `None`: nowhere, which is an error for a model that wants them
    /// kept.
    pub engine_cache: Option<PathBuf>,
}

impl fmt::Debug for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceAccess")
            .field("engine_cache", &self.engine_cache)
            .finish_non_exhaustive()
    }
}
