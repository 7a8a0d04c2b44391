//! Host memory that the device may read and write by itself: registered regions, and pinned buffers of our own.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use adjoin_shm::{Payload, PayloadMut, Region};
use cudarc::driver::sys::{
    CU_MEMHOSTALLOC_DEVICEMAP, CU_MEMHOSTALLOC_PORTABLE, CU_MEMHOSTREGISTER_DEVICEMAP,
    CU_MEMHOSTREGISTER_PORTABLE, CU_MEMHOSTREGISTER_READ_ONLY, CUdeviceptr,
};
use parking_lot::Mutex;

use super::context::{Context, Entered};
use super::hold::{Hold, Owner};
use crate::device::Device;
use crate::error::CudaError;

/// A range of host memory that the device can reach: its address in this process and on the device. Whoever makes one
/// hands the [`Hold`] that keeps it valid to the lane together with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostRange {
    pub(crate) address: usize,
    pub(crate) device_address: CUdeviceptr,
    pub(crate) byte_size: usize,
}

/// A region whose pages are pinned and mapped for the device. Keeps the mapping alive; unregisters on drop.
#[derive(Debug)]
pub(crate) struct Registration {
    context: Arc<Context>,
    /// Where the device sees the first byte.
    device_address: CUdeviceptr,
    /// First byte in this process, as a number to compare and to add to.
    start: usize,
    byte_size: usize,
    is_writable: bool,
    /// Behind an option only so that drop can hand it to the quarantine.
    region: Option<Region>,
    /// What is to be dropped after the region has been unregistered.
    owner: Mutex<Option<Owner>>,
}

impl Registration {
    /// Registers the whole of `region`. Takes tens of microseconds for each MiB.
    pub(crate) fn new(device: &Device, region: &Region) -> Result<Self, CudaError> {
        let context = device.context();
        let payload = whole(region);
        let start = payload.as_ptr().cast_mut().cast::<c_void>();
        let mut flags = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP;
        if !region.is_writable() && device.facts().read_only_registration {
            flags |= CU_MEMHOSTREGISTER_READ_ONLY;
        }
        let entered = context.enter()?;
        // SAFETY: the range is mapped, and stays so until it is unregistered: the registration keeps the region.
        let status =
            unsafe { (entered.table().cuMemHostRegister_v2)(start, payload.byte_size(), flags) };
        entered.check("cuMemHostRegister_v2", status)?;
        let device_address = match device_address(&entered, start) {
            Ok(address) => address,
            Err(error) => {
                // SAFETY: the range was registered just now, and nothing uses it.
                let _ = unsafe { (entered.table().cuMemHostUnregister)(start) };
                return Err(error);
            }
        };
        drop(entered);
        Ok(Self {
            context,
            device_address,
            start: payload.as_ptr().expose_provenance(),
            byte_size: payload.byte_size(),
            is_writable: region.is_writable(),
            region: Some(region.clone()),
            owner: Mutex::new(None),
        })
    }

    /// Drops `owner` after the region has been unregistered.
    pub(crate) fn own(&self, owner: Owner) {
        *self.owner.lock() = Some(owner);
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn byte_size(&self) -> usize {
        self.byte_size
    }

    /// The range of `byte_size` bytes at `address` of this process, if they all lie in this region.
    pub(crate) fn range(&self, address: usize, byte_size: usize) -> Option<HostRange> {
        let at = address.checked_sub(self.start)?;
        at.checked_add(byte_size)
            .filter(|&end| end <= self.byte_size)?;
        Some(HostRange {
            address,
            device_address: self.device_address + at as u64,
            byte_size,
        })
    }

    /// First byte in this process, as a number to compare.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.is_writable
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(region) = self.region.take() else {
            return;
        };
        let start = whole(&region).as_ptr().cast_mut().cast::<c_void>();
        let unregistered = self.context.enter().and_then(|entered| {
            // SAFETY: registered by `new`. No transfer uses it: each one that does holds this value until its event.
            let status = unsafe { (entered.table().cuMemHostUnregister)(start) };
            entered.check("cuMemHostUnregister", status)
        });
        if unregistered.is_err() {
            // The context is lost, so whether a transfer is under way cannot be known: keep the mapping until the
            // context is gone. If it is gone already, this drops it.
            let owner = self.owner.get_mut().take();
            self.context.quarantine([Hold::Mapping(region, owner)]);
        }
    }
}

fn whole(region: &Region) -> Payload<'_> {
    match region.payload(0, region.byte_size()) {
        Ok(payload) => payload,
        // A region has its own size.
        Err(_) => Payload::from_slice(&[]),
    }
}

fn device_address(entered: &Entered<'_>, start: *mut c_void) -> Result<CUdeviceptr, CudaError> {
    let mut address: CUdeviceptr = 0;
    // SAFETY: the memory is pinned and mapped, and the address goes where it is told.
    let status =
        unsafe { (entered.table().cuMemHostGetDevicePointer_v2)(&raw mut address, start, 0) };
    entered.check("cuMemHostGetDevicePointer_v2", status)?;
    Ok(address)
}

/// Pinned memory of our own, for staging and for tables that kernels read. Transfers share the memory; its bytes are
/// reached through this one owner only.
#[derive(Debug)]
pub(crate) struct PinnedBuffer {
    memory: Arc<PinnedMemory>,
}

/// One pinned allocation.
#[derive(Debug)]
pub(crate) struct PinnedMemory {
    context: Arc<Context>,
    start: NonNull<u8>,
    device_address: CUdeviceptr,
    byte_size: usize,
}

// SAFETY: plain memory that belongs to this value and to no thread.
unsafe impl Send for PinnedMemory {}
// SAFETY: nothing reads or writes bytes through a shared one; their owner does, and the device.
unsafe impl Sync for PinnedMemory {}

impl PinnedBuffer {
    /// `byte_size` zeroed bytes. Not write-combined: a processor reads outputs from them, which would be very slow.
    pub(crate) fn new(device: &Device, byte_size: usize) -> Result<Self, CudaError> {
        let context = device.context();
        let mut start: *mut c_void = ptr::null_mut();
        let flags = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP;
        let entered = context.enter()?;
        // SAFETY: the context is current, and the address goes where it is told.
        let status =
            unsafe { (entered.table().cuMemHostAlloc)(&raw mut start, byte_size.max(1), flags) };
        entered.check("cuMemHostAlloc", status)?;
        let mapped = device_address(&entered, start);
        drop(entered);
        let mut memory = PinnedMemory {
            context,
            start: NonNull::new(start.cast::<u8>()).ok_or_else(|| CudaError::System {
                what: "cuMemHostAlloc",
                reason: "no address".to_owned(),
            })?,
            device_address: 0,
            byte_size,
        };
        // The allocation is owned by now, and freed if this fails.
        memory.device_address = mapped?;
        // SAFETY: `byte_size` bytes were allocated, and nobody else has them yet.
        unsafe { ptr::write_bytes(memory.start.as_ptr(), 0, byte_size) };
        Ok(Self {
            memory: Arc::new(memory),
        })
    }

    pub(crate) fn byte_size(&self) -> usize {
        self.memory.byte_size
    }

    pub(crate) fn generation(&self) -> u64 {
        self.memory.context.generation()
    }

    pub(super) fn context(&self) -> &Context {
        &self.memory.context
    }

    pub(crate) fn hold(&self) -> Hold {
        Hold::Pinned(self.memory.clone())
    }

    /// A range of the buffer: its address here and on the device.
    pub(crate) fn range(&self, at: usize, byte_size: usize) -> Result<HostRange, CudaError> {
        Ok(HostRange {
            address: self.address(at, byte_size)?.expose_provenance(),
            device_address: self.memory.device_address + at as u64,
            byte_size,
        })
    }

    fn address(&self, at: usize, byte_size: usize) -> Result<*mut u8, CudaError> {
        let capacity = self.memory.byte_size;
        match at.checked_add(byte_size) {
            // SAFETY: `at` is within the allocation.
            Some(end) if end <= capacity => Ok(unsafe { self.memory.start.as_ptr().add(at) }),
            _ => Err(CudaError::OutOfRange {
                at,
                byte_size,
                capacity,
            }),
        }
    }

    /// Copies `bytes` to `at`. What the device reads at the same time is some mix of old and new.
    pub(crate) fn write(&mut self, at: usize, bytes: &Payload<'_>) -> Result<(), CudaError> {
        let to = self.address(at, bytes.byte_size())?;
        // SAFETY: both are valid for that many bytes; no reference is ever made of pinned bytes, and `copy` allows that
        // the ranges overlap.
        unsafe { ptr::copy(bytes.as_ptr(), to, bytes.byte_size()) };
        Ok(())
    }

    /// Fills `room` with the bytes from `at` on.
    pub(crate) fn read(&self, at: usize, room: &mut PayloadMut<'_>) -> Result<(), CudaError> {
        let from = self.address(at, room.byte_size())?;
        // SAFETY: as in `write`.
        unsafe { ptr::copy(from, room.as_mut_ptr(), room.byte_size()) };
        Ok(())
    }
}

impl Drop for PinnedMemory {
    fn drop(&mut self) {
        if let Ok(entered) = self.context.enter() {
            // SAFETY: the allocation is this value's own; each transfer that uses it holds it until its event.
            let _ = unsafe { (entered.table().cuMemFreeHost)(self.start.as_ptr().cast()) };
        }
    }
}
