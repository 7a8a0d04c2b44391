//! The seam between the server and the engines that run models.
//!
//! A [`Backend`] loads a model version, a [`Model`] makes instances, an [`Instance`] runs batches.
//! An engine sees tensors as (data type, shape, payload) and knows nothing of sessions, rings or
//! gRPC. Every backend passes the same suite (feature `conformance`).
//!
//! # What an engine may rely on, and what not
//!
//! * A [`Payload`](adjoin_shm::Payload) stays mapped while `run` runs, starts at a multiple of 64, and
//!   holds exactly the bytes that data type and shape make.
//! * The values in it may change while the engine reads them: a client that breaks the rules can write
//!   its own request. So an engine must not read a value twice and rely on both being equal where that
//!   could move a memory access. Inputs for which it cannot promise this are marked
//!   [`InputAccess::CopyFirst`] in the model's description; the server then hands it a private copy.

#![warn(missing_docs)]

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod execution;
mod library;
mod metadata;
mod pixels;
mod placement;
mod rooms;
pub mod strings;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

pub use error::{BackendError, ExecuteError, LoadError};
pub use execution::{BindingKey, Copied, Execution, Input, Output, OutputSink, SinkError};
pub use library::LibrarySearch;
pub use metadata::{Dimension, InputAccess, ModelMetadata, TensorMetadata};
pub use pixels::PixelInput;
pub use placement::{Accelerator, DevicePlacement, Placement, RowsMax};
pub use rooms::{Pieces, Rooms};

/// What to load, and how.
#[derive(Clone, Debug)]
pub struct ModelSource {
    /// Name of the model, for messages.
    pub name: String,
    /// Version, for messages.
    pub version: u64,
    /// The model's file; the version's directory for a model that is made by parameters alone.
    pub path: PathBuf,
    /// Threads that one instance may use for one operator, 1 or more.
    pub intra_op_threads: usize,
    /// Parameters of the model's configuration that are meant for the engine.
    pub parameters: BTreeMap<String, String>,
    /// Where its instances run.
    pub placement: Placement,
    /// Most rows of its batches.
    pub rows_max: RowsMax,
}

/// An engine.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Name of the engine, such as `onnxruntime`; used in configuration, logs and metrics.
    fn name(&self) -> &'static str;

    /// Release of the engine, for people.
    fn version(&self) -> String;

    /// Whether this engine may be able to run that file, judged by its name alone.
    fn accepts(&self, path: &Path) -> bool;

    /// Loads a model version.
    ///
    /// # Errors
    /// See [`LoadError`].
    fn load(&self, source: &ModelSource) -> Result<Box<dyn Model>, LoadError>;
}

/// A loaded model version, from which instances are made.
pub trait Model: fmt::Debug + Send + Sync {
    /// Inputs and outputs, as the model's file says.
    fn metadata(&self) -> &ModelMetadata;

    /// Whether it runs on inputs of zeros (strings: of no length), as warm-up does. One that refuses values cannot.
    fn runs_on_zeros(&self) -> bool {
        true
    }

    /// The sizes that each dimension of each input may have, where the model limits what it leaves open: a list for each
    /// input, in its order. Empty if it does not. Requests beyond are refused before they wait, and batches stay within the
    /// limit of the rows.
    fn sizes(&self) -> &[Vec<RangeInclusive<i64>>] {
        &[]
    }

    /// Whether it runs on the server's device, so that it is lost with the device's context
    /// ([`ExecuteError::DeviceLost`]).
    fn is_on_device(&self) -> bool {
        false
    }

    /// Whether that input may lie on the server's device: the model has the device bring all its pieces together, and looks
    /// at none of its bytes. What it makes of them then is a copy that no client can change.
    fn takes_on_device(&self, _input: &str) -> bool {
        false
    }

    /// Whether that output may go to memory on the server's device, where its size is known before the run.
    fn gives_on_device(&self, _output: &str) -> bool {
        false
    }

    /// How many batches one configured instance works on at once, 1 or more: one may be copied while another is
    /// computed. So many of [`Model::instance`] make one instance of the configuration.
    fn batches_at_once(&self) -> usize {
        1
    }

    /// Sizes of batches, in rows and ascending, that the engine prepares for when they come first, which takes many times as
    /// long as a run: warm-up runs each of them, so that no request waits for that. Empty if there are none.
    fn prepared_sizes(&self) -> &[u32] {
        &[]
    }

    /// Asks whether the model takes pixels as its input number `index`, and makes its own input of them where it runs. If
    /// it does, its metadata and sizes are those of the pixels from then on. If not, nothing has changed, and the server
    /// makes the input itself, on the processor. There is no instance yet when it is asked.
    fn take_pixels(&mut self, index: usize, pixels: &PixelInput) -> bool {
        let _ = (index, pixels);
        false
    }

    /// An instance, which runs one batch at a time.
    ///
    /// # Errors
    /// See [`LoadError`].
    fn instance(&self) -> Result<Box<dyn Instance>, LoadError>;
}

/// A runnable copy of a model version.
pub trait Instance: fmt::Debug + Send {
    /// Runs one batch.
    ///
    /// Outputs that are [`Output::Bound`] are written where they lie. For every [`Output::Unbound`] one,
    /// `sink` gets the result while the engine still holds it.
    ///
    /// # Errors
    /// See [`ExecuteError`]; the instance can run the next batch all the same, unless it says otherwise.
    fn run(
        &mut self,
        execution: Execution<'_, '_>,
        sink: &mut dyn OutputSink,
    ) -> Result<Copied, ExecuteError>;
}
