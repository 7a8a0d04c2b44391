//! Memory on the device.

use std::sync::Arc;

use cudarc::driver::sys::CUdeviceptr;

use super::context::Context;
use super::hold::Hold;
use crate::device::Device;
use crate::error::CudaError;

/// One allocation on the device.
#[derive(Debug)]
pub(crate) struct DeviceMemory {
    context: Arc<Context>,
    address: CUdeviceptr,
    byte_size: usize,
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        if let Ok(entered) = self.context.enter() {
            // SAFETY: the allocation is this value's own. The driver waits for work that uses it before it gives it
            // back.
            let _ = unsafe { (entered.table().cuMemFree_v2)(self.address) };
        }
    }
}

/// Memory on the device. Clones share it; it is given back with the last of them, when no transfer needs it any more.
#[derive(Clone, Debug)]
pub struct DeviceBuffer {
    memory: Arc<DeviceMemory>,
}

impl DeviceBuffer {
    /// `byte_size` bytes on `device`, with undefined content. 0 bytes count as 1: an engine wants an address.
    ///
    /// # Errors
    /// If the device has no room ([`CudaError::is_out_of_memory`]).
    pub fn new(device: &Device, byte_size: usize) -> Result<Self, CudaError> {
        let context = device.context();
        let mut address: CUdeviceptr = 0;
        let entered = context.enter()?;
        // SAFETY: the context is current, and the address goes where it is told.
        let status = unsafe { (entered.table().cuMemAlloc_v2)(&raw mut address, byte_size.max(1)) };
        entered.check("cuMemAlloc_v2", status)?;
        drop(entered);
        Ok(Self {
            memory: Arc::new(DeviceMemory {
                context,
                address,
                byte_size,
            }),
        })
    }

    /// Address on the device, for an engine or a kernel. It means nothing to a processor.
    #[must_use]
    pub fn device_address(&self) -> u64 {
        self.memory.address
    }

    /// Bytes of the buffer.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.memory.byte_size
    }

    /// Generation of the device's context that this belongs to.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.memory.context.generation()
    }

    /// Address of a range, after the one bounds check.
    pub(crate) fn range(&self, at: usize, byte_size: usize) -> Result<u64, CudaError> {
        let capacity = self.byte_size();
        match at.checked_add(byte_size) {
            Some(end) if end <= capacity => Ok(self.memory.address + at as u64),
            _ => Err(CudaError::OutOfRange {
                at,
                byte_size,
                capacity,
            }),
        }
    }

    pub(crate) fn hold(&self) -> Hold {
        Hold::Device(self.memory.clone())
    }
}
