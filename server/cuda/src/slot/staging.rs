//! Staging memory of a slot: a fixed place for each tensor, had from the pool when it is first needed, and kept.

use crate::error::CudaError;
use crate::pinned::{PinnedPool, Staging};

/// Tensors start at this in staging memory, so that the copy kernel can move whole vectors.
const ALIGNMENT: usize = 64;

#[derive(Debug)]
pub(super) struct StagingArea {
    starts: Vec<usize>,
    byte_size: usize,
    memory: Option<Staging>,
}

impl StagingArea {
    pub(super) fn new(byte_sizes: impl Iterator<Item = usize>) -> Self {
        let mut byte_size = 0_usize;
        let starts = byte_sizes.map(|tensor| {
            let start = byte_size;
            byte_size = start.saturating_add(tensor).next_multiple_of(ALIGNMENT);
            start
        });
        Self {
            starts: starts.collect(),
            byte_size,
            memory: None,
        }
    }

    /// The memory, and where the tensor's bytes start in it.
    ///
    /// # Errors
    /// If the pool has none left.
    pub(super) fn get(
        &mut self,
        tensor: usize,
        pool: &PinnedPool,
    ) -> Result<(&mut Staging, usize), CudaError> {
        let start = self.starts.get(tensor).copied().unwrap_or(0);
        let memory = match self.memory.take() {
            Some(memory) => memory,
            None => pool.take(self.byte_size)?,
        };
        Ok((self.memory.insert(memory), start))
    }

    /// The memory, if it was needed before.
    pub(super) fn memory(&self) -> Option<&Staging> {
        self.memory.as_ref()
    }
}
