//! Memory of an NVIDIA GPU that is made to be shared: with the feature `cuda`, where the driver is found at run time.

use adjoin_cuda::{CudaError, Driver, SharedBuffer};
use adjoin_shm::{Payload, PayloadMut};

use crate::ExportedMemory;

pub use adjoin_cuda::CudaError as DeviceMemoryError;

/// Memory on a GPU of this machine, for [`Client::attach_device`](crate::Client::attach_device). It may be dropped while a
/// region of it is attached; the server keeps it until the region goes.
///
/// Work of this process on the memory has to be over before a request that reads it is submitted (synchronise its
/// stream), and outputs are there when the request is answered.
#[derive(Debug)]
pub struct DeviceMemory {
    buffer: SharedBuffer,
}

impl DeviceMemory {
    /// `byte_size` bytes on device `device`, in the driver's order, rounded up to what it gives at least, which is some
    /// megabytes: few large ones are better than many small ones. In the device's primary context, which libraries such as
    /// PyTorch use too. The content is undefined.
    ///
    /// # Errors
    /// If there is no driver, no such device, or no room on it.
    pub fn allocate(device: u32, byte_size: usize) -> Result<Self, CudaError> {
        let device = Driver::find()?.device(device)?;
        Ok(Self {
            buffer: SharedBuffer::allocate(&device, byte_size)?,
        })
    }

    /// Address of the first byte in the device's memory, for kernels and libraries. It means nothing to the processor.
    #[must_use]
    pub fn device_address(&self) -> u64 {
        self.buffer.buffer().device_address()
    }

    /// Bytes of the memory.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.buffer.byte_size()
    }

    /// What the server needs to map it.
    ///
    /// # Errors
    /// If the driver gives no descriptor.
    pub fn export(&self) -> Result<ExportedMemory, CudaError> {
        Ok(ExportedMemory {
            descriptor: self.buffer.export()?,
            byte_size: self.byte_size() as u64,
            device_uuid: self.buffer.device().facts().uuid,
        })
    }

    /// Copies bytes of the host to the memory, from `at` on, and waits.
    ///
    /// # Errors
    /// If that reaches past the end, or the driver refuses.
    pub fn write(&self, at: usize, bytes: &[u8]) -> Result<(), CudaError> {
        self.buffer.write(at, &Payload::from_slice(bytes))
    }

    /// Copies bytes from `at` on to the host, and waits.
    ///
    /// # Errors
    /// As [`DeviceMemory::write`].
    pub fn read(&self, at: usize, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.buffer.read(at, &mut PayloadMut::from_slice(bytes))
    }
}
