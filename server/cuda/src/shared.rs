//! Memory of the device that two processes share, and whose bytes come and go as copies of one of them.

use std::os::fd::OwnedFd;

use adjoin_shm::{Payload, PayloadMut};
use parking_lot::Mutex;

use crate::counters::Path;
use crate::device::Device;
use crate::driver::{DeviceBuffer, IPC_HANDLE_BYTES, IpcHandle, Lane};
use crate::error::CudaError;

/// An allocation of another process, opened by its handle, or one for another process. It stays for as long as this
/// lives, whatever the other process does. One copy runs at a time.
#[derive(Debug)]
pub struct SharedBuffer {
    // The lane comes first: it waits when it is dropped, before the memory is closed.
    lane: Mutex<Lane>,
    buffer: DeviceBuffer,
    device: Device,
}

impl SharedBuffer {
    /// Memory on `device` for others, by [`SharedBuffer::export`]: `byte_size` bytes, rounded up to what the device gives
    /// at least, which is some megabytes.
    ///
    /// # Errors
    /// If the device has no room, or the driver refuses.
    pub fn allocate(device: &Device, byte_size: usize) -> Result<Self, CudaError> {
        Ok(Self {
            lane: Mutex::new(Lane::new(device, 1)?),
            buffer: DeviceBuffer::shareable(device, byte_size)?,
            device: device.clone(),
        })
    }

    /// A descriptor of memory that was made by [`SharedBuffer::allocate`].
    ///
    /// # Errors
    /// [`CudaError::NotShareable`] for other memory.
    pub fn export(&self) -> Result<OwnedFd, CudaError> {
        self.buffer.export()
    }

    /// The memory itself, for work that the caller enqueues.
    #[must_use]
    pub fn buffer(&self) -> &DeviceBuffer {
        &self.buffer
    }

    /// The device that it is on.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Opens memory of `device` of which its owner says that it has `byte_size` bytes.
    ///
    /// # Errors
    /// If the handle is none, is of this process, or its memory is smaller than that.
    pub fn open(
        device: &Device,
        handle: [u8; IPC_HANDLE_BYTES],
        byte_size: usize,
    ) -> Result<Self, CudaError> {
        Ok(Self {
            lane: Mutex::new(Lane::new(device, 1)?),
            buffer: DeviceBuffer::open_ipc(device, &IpcHandle(handle), byte_size)?,
            device: device.clone(),
        })
    }

    /// Bytes of the memory.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.buffer.byte_size()
    }

    /// Copies what begins `at` so many bytes; waits until it is there.
    ///
    /// # Errors
    /// If that reaches past the end, or the driver refuses.
    pub fn read(&self, at: usize, to: &mut PayloadMut<'_>) -> Result<(), CudaError> {
        self.lane.lock().copy_pageable_out(&self.buffer, at, to)?;
        let counters = self.device.counters();
        counters.to_host.add(Path::Pageable, to.byte_size());
        Ok(())
    }

    /// Copies `from` to what begins `at` so many bytes; waits until it is there.
    ///
    /// # Errors
    /// If that reaches past the end, or the driver refuses.
    pub fn write(&self, at: usize, from: &Payload<'_>) -> Result<(), CudaError> {
        self.lane.lock().copy_pageable_in(&self.buffer, at, from)?;
        let counters = self.device.counters();
        counters.to_device.add(Path::Pageable, from.byte_size());
        Ok(())
    }
}
