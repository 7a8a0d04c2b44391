//! Memory on the device.

use std::sync::Arc;

use cudarc::driver::sys::CUdeviceptr;

use super::context::Context;
use super::hold::Hold;
use super::sharing;
use super::table::Physical;
use crate::device::Device;
use crate::error::CudaError;

/// One allocation on the device.
#[derive(Debug)]
pub(crate) struct DeviceMemory {
    context: Arc<Context>,
    address: CUdeviceptr,
    byte_size: usize,
    origin: Origin,
}

/// How memory came to be there, and so how it goes.
#[derive(Debug)]
pub(super) enum Origin {
    Allocated,
    /// Opened by another process's handle.
    Opened,
    /// Mapped at addresses of its own; has a handle that can be exported.
    Mapped(Physical),
}

impl DeviceMemory {
    pub(super) fn new(
        context: Arc<Context>,
        address: CUdeviceptr,
        byte_size: usize,
        origin: Origin,
    ) -> Self {
        Self {
            context,
            address,
            byte_size,
            origin,
        }
    }

    /// The handle of mapped memory.
    pub(super) fn physical(&self) -> Option<Physical> {
        match self.origin {
            Origin::Mapped(physical) => Some(physical),
            Origin::Allocated | Origin::Opened => None,
        }
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // A context that is lost or gone takes its memory with it; what becomes of memory that was imported is NVIDIA's to
        // know (docs/threat-model.md, gap 9).
        let Ok(entered) = self.context.enter() else {
            return;
        };
        match self.origin {
            Origin::Allocated => {
                // SAFETY: the allocation is this value's own. The driver waits for work that uses it first.
                let _ = unsafe { (entered.table().cuMemFree_v2)(self.address) };
            }
            Origin::Opened => {
                // SAFETY: opened by this value; each transfer that uses it holds it until its event.
                let _ = unsafe { (entered.table().cuIpcCloseMemHandle)(self.address) };
            }
            Origin::Mapped(physical) => {
                sharing::unmap(&entered, self.address, self.byte_size);
                sharing::release(&entered, physical);
            }
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
        let memory = DeviceMemory::new(context, address, byte_size, Origin::Allocated);
        Ok(Self::from_memory(memory))
    }

    pub(super) fn from_memory(memory: DeviceMemory) -> Self {
        Self {
            memory: Arc::new(memory),
        }
    }

    pub(super) fn memory(&self) -> &DeviceMemory {
        &self.memory
    }

    pub(super) fn context(&self) -> &Context {
        &self.memory.context
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

    /// That the context that this belongs to can be used.
    pub(crate) fn check_usable(&self) -> Result<(), CudaError> {
        self.memory.context.check_usable()
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
