//! One run of an instance: what goes in, where results go.

use adjoin_schema::DataType;
use adjoin_shm::{Payload, PayloadMut};
use thiserror::Error;

/// Names a set of pointers and shapes that comes back run after run, so that an engine may keep the
/// values that it made for them. A key is never used for another set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BindingKey(pub u64);

/// An input of one run.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Type of the elements.
    pub dtype: DataType,
    /// All dimensions, none below zero.
    pub shape: &'a [i64],
    /// The bytes.
    pub payload: Payload<'a>,
}

/// An output of one run.
#[derive(Debug)]
pub enum Output<'a> {
    /// Its shape is known; it is to be written here.
    Bound {
        /// Type of the elements.
        dtype: DataType,
        /// All dimensions.
        shape: &'a [i64],
        /// Room of exactly the bytes that type and shape make.
        payload: PayloadMut<'a>,
    },
    /// Its shape is known after the run only: goes to the sink.
    Unbound,
    /// Not wanted.
    Skipped,
}

/// One run.
#[derive(Debug)]
pub struct Execution<'a> {
    /// Set where exactly these inputs and bound outputs come again.
    pub key: Option<BindingKey>,
    /// One for each input of the model, in its order.
    pub inputs: &'a [Input<'a>],
    /// One for each output of the model, in its order.
    pub outputs: &'a mut [Output<'a>],
}

/// Bytes that an engine copied itself, beyond what its operators do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// From inputs into memory of its own.
    pub input_bytes: u64,
    /// From results to where they were wanted.
    pub output_bytes: u64,
}

/// Where results go whose shape was not known before.
pub trait OutputSink {
    /// Takes a result; called once for each unbound output.
    ///
    /// # Errors
    /// If there is no room for it. The run goes on with the other outputs.
    fn accept(
        &mut self,
        index: usize,
        dtype: DataType,
        shape: &[i64],
        payload: Payload<'_>,
    ) -> Result<(), SinkError>;
}

/// A result that found no room.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("an output of {byte_size} bytes found no room")]
pub struct SinkError {
    /// Bytes of the result.
    pub byte_size: u64,
}
