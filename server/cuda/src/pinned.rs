//! Pinned staging memory, within a limit, reused.
//!
//! Pinning is slow, and what is pinned is lost to everybody else on the node. So buffers that come back are kept, and
//! the limit holds for all slots together.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::device::Device;
use crate::driver::PinnedBuffer;
use crate::error::CudaError;

/// No buffer is smaller than this: small ones would multiply.
const BYTES_MIN: usize = 64 * 1024;

/// Pinned buffers of one device. Clones share them.
#[derive(Clone, Debug)]
pub struct PinnedPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    device: Device,
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of all buffers, those in use among them.
    pinned: usize,
    free: Vec<PinnedBuffer>,
    allocations: u64,
}

/// A buffer of the pool, which gets it back when this is dropped.
#[derive(Debug)]
pub(crate) struct Staging {
    shared: Arc<Shared>,
    buffer: Option<PinnedBuffer>,
}

/// Numbers of a pool, for metrics and `adjoin doctor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinnedStats {
    /// Bytes that may be pinned.
    pub limit_bytes: usize,
    /// Bytes that are.
    pub pinned_bytes: usize,
    /// Allocations so far. Constant once every slot has what it needs.
    pub allocations: u64,
}

impl PinnedPool {
    /// An empty pool on `device`, which will pin no more than `limit` bytes.
    #[must_use]
    pub fn new(device: &Device, limit: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                device: device.clone(),
                limit,
                state: Mutex::default(),
            }),
        }
    }

    /// Numbers as of now.
    #[must_use]
    pub fn stats(&self) -> PinnedStats {
        let state = self.shared.state.lock();
        PinnedStats {
            limit_bytes: self.shared.limit,
            pinned_bytes: state.pinned,
            allocations: state.allocations,
        }
    }

    /// A buffer of at least `byte_size` bytes.
    pub(crate) fn take(&self, byte_size: usize) -> Result<Staging, CudaError> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        let generation = shared.device.generation();
        state.forget_old(generation);
        let fitting = state.free.iter().enumerate();
        let fitting = fitting.filter(|(_, buffer)| buffer.byte_size() >= byte_size);
        let smallest = fitting.min_by_key(|(_, buffer)| buffer.byte_size());
        if let Some((at, _)) = smallest {
            let buffer = state.free.swap_remove(at);
            return Ok(self.lend(buffer));
        }
        let wanted = byte_size.max(BYTES_MIN);
        while state.pinned + wanted > shared.limit {
            // Free buffers that are too small stand in the way of one that is not.
            let Some(buffer) = state.free.pop() else {
                return Err(CudaError::PinnedBudget {
                    wanted,
                    left: shared.limit.saturating_sub(state.pinned),
                    limit: shared.limit,
                });
            };
            state.pinned -= buffer.byte_size();
        }
        let buffer = PinnedBuffer::new(&shared.device, wanted)?;
        state.pinned += wanted;
        state.allocations += 1;
        Ok(self.lend(buffer))
    }

    fn lend(&self, buffer: PinnedBuffer) -> Staging {
        Staging {
            shared: self.shared.clone(),
            buffer: Some(buffer),
        }
    }
}

impl State {
    /// Drops free buffers of contexts that are gone.
    fn forget_old(&mut self, generation: u64) {
        let before: usize = self.free.iter().map(PinnedBuffer::byte_size).sum();
        self.free.retain(|buffer| buffer.generation() == generation);
        let after: usize = self.free.iter().map(PinnedBuffer::byte_size).sum();
        self.pinned -= before - after;
    }
}

impl Staging {
    pub(crate) fn buffer(&self) -> Option<&PinnedBuffer> {
        self.buffer.as_ref()
    }

    pub(crate) fn buffer_mut(&mut self) -> Option<&mut PinnedBuffer> {
        self.buffer.as_mut()
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.shared.state.lock().free.push(buffer);
        }
    }
}
