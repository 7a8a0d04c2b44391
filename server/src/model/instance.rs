//! An instance with the buffers that its batches are gathered into and scattered from.

use adjoin_backend::{Instance, ModelMetadata};
use adjoin_shm::AlignedBuffer;

/// A runnable copy of a model version and its reused memory.
#[derive(Debug)]
pub struct InstanceSlot {
    /// The engine's part.
    pub engine: Box<dyn Instance>,
    /// One buffer for each input: batches, and private copies of inputs that must not change.
    pub inputs: Vec<AlignedBuffer>,
    /// One buffer for each output of a batch.
    pub outputs: Vec<AlignedBuffer>,
}

impl InstanceSlot {
    /// An instance with empty buffers; they grow with the first batches, at the latest in warm-up.
    pub fn new(engine: Box<dyn Instance>, metadata: &ModelMetadata) -> Self {
        let empty = |count: usize| (0..count).map(|_| AlignedBuffer::default()).collect();
        Self {
            engine,
            inputs: empty(metadata.inputs.len()),
            outputs: empty(metadata.outputs.len()),
        }
    }
}
