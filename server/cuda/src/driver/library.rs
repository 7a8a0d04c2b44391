//! Starting the driver, and what it says about this machine's devices.

use std::ffi::{CStr, c_char, c_int};
use std::sync::Arc;

use cudarc::driver::sys::{CUdevice, CUdevice_attribute as Attribute, CUuuid};

use super::context::Context;
use super::table::{Table, table};
use crate::error::CudaError;

/// The driver's "no device".
const NO_DEVICE: u32 = 100;
/// A device's name, with the zero at its end.
const NAME_BYTES: usize = 256;

/// The CUDA driver of this machine, started.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    table: &'static Table,
    version: u32,
    devices: u32,
}

/// What a device is, for `adjoin doctor` and for the choices that depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Number of the device, counted from 0.
    pub index: u32,
    /// As the driver calls it.
    pub name: String,
    /// By which the driver names it in every process alike.
    pub uuid: [u8; 16],
    /// Bytes of memory on it.
    pub memory_bytes: u64,
    /// Major and minor compute capability.
    pub compute_capability: (u32, u32),
    /// Whether memory of the host can be registered, which zero-copy transfers need.
    pub registration: bool,
    /// Whether mappings that this process may only read can be registered.
    pub read_only_registration: bool,
    /// Copies that run beside kernels and each other.
    pub copy_engines: u32,
}

impl Driver {
    /// Finds and starts the driver.
    ///
    /// # Errors
    /// [`CudaError::NoDriver`], [`CudaError::DriverTooOld`] and [`CudaError::NoDevice`] say what this machine lacks.
    pub fn find() -> Result<Self, CudaError> {
        let table = table()?;
        // SAFETY: may be called at any time and any number of times; takes 0.
        let status = unsafe { (table.cuInit)(0) };
        if status == NO_DEVICE {
            return Err(CudaError::NoDevice);
        }
        table.check("cuInit", status)?;
        let mut count: c_int = 0;
        // SAFETY: writes a number to where it is told.
        let status = unsafe { (table.cuDeviceGetCount)(&raw mut count) };
        table.check("cuDeviceGetCount", status)?;
        let devices = u32::try_from(count).unwrap_or(0);
        if devices == 0 {
            return Err(CudaError::NoDevice);
        }
        let mut version: c_int = 0;
        // SAFETY: as above.
        let status = unsafe { (table.cuDriverGetVersion)(&raw mut version) };
        table.check("cuDriverGetVersion", status)?;
        Ok(Self {
            table,
            version: u32::try_from(version).unwrap_or(0),
            devices,
        })
    }

    /// The newest CUDA release that the driver supports, major and minor.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        (self.version / 1000, self.version % 1000 / 10)
    }

    /// Devices that the driver sees.
    #[must_use]
    pub fn device_count(&self) -> u32 {
        self.devices
    }

    /// Whether many copies can be given to the driver in one call.
    #[must_use]
    pub fn has_batched_copy(&self) -> bool {
        self.table.cuMemcpyBatchAsync.is_some()
    }

    /// What device `index` is.
    ///
    /// # Errors
    /// [`CudaError::WrongDevice`] if there is none of that number.
    pub fn facts(&self, index: u32) -> Result<DeviceFacts, CudaError> {
        let device = self.handle(index)?;
        let number = |attribute| self.attribute(device, attribute);
        Ok(DeviceFacts {
            index,
            name: self.name(device)?,
            uuid: self.uuid(device)?,
            memory_bytes: self.memory_bytes(device)?,
            compute_capability: (
                number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            registration: number(Attribute::CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED)? != 0,
            read_only_registration: number(
                Attribute::CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED,
            )? != 0,
            copy_engines: number(Attribute::CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT)?,
        })
    }

    pub(crate) fn context(&self, index: u32, generation: u64) -> Result<Arc<Context>, CudaError> {
        let device = self.handle(index)?;
        Context::new(self.table, device, index, generation)
    }

    fn handle(&self, index: u32) -> Result<CUdevice, CudaError> {
        let count = self.devices;
        let wrong = CudaError::WrongDevice { index, count };
        let Some(ordinal) = c_int::try_from(index).ok().filter(|_| index < count) else {
            return Err(wrong);
        };
        let mut device: CUdevice = 0;
        // SAFETY: takes any number, and writes a handle to where it is told.
        let status = unsafe { (self.table.cuDeviceGet)(&raw mut device, ordinal) };
        self.table.check("cuDeviceGet", status)?;
        Ok(device)
    }

    fn attribute(&self, device: CUdevice, attribute: Attribute) -> Result<u32, CudaError> {
        let mut value: c_int = 0;
        // SAFETY: the device is one of the driver's; writes a number to where it is told.
        let status =
            unsafe { (self.table.cuDeviceGetAttribute)(&raw mut value, attribute, device) };
        self.table.check("cuDeviceGetAttribute", status)?;
        Ok(u32::try_from(value).unwrap_or(0))
    }

    fn name(&self, device: CUdevice) -> Result<String, CudaError> {
        let mut bytes = [0_u8; NAME_BYTES];
        let room = c_int::try_from(NAME_BYTES).unwrap_or(0);
        let start = bytes.as_mut_ptr().cast::<c_char>();
        // SAFETY: writes no more than `room` bytes to the array.
        let status = unsafe { (self.table.cuDeviceGetName)(start, room, device) };
        self.table.check("cuDeviceGetName", status)?;
        let name = CStr::from_bytes_until_nul(&bytes).unwrap_or_default();
        Ok(name.to_string_lossy().into_owned())
    }

    fn uuid(&self, device: CUdevice) -> Result<[u8; 16], CudaError> {
        let mut uuid = CUuuid { bytes: [0; 16] };
        // SAFETY: writes 16 bytes to where it is told.
        let status = unsafe { (self.table.cuDeviceGetUuid_v2)(&raw mut uuid, device) };
        self.table.check("cuDeviceGetUuid_v2", status)?;
        Ok(uuid.bytes.map(i8::cast_unsigned))
    }

    fn memory_bytes(&self, device: CUdevice) -> Result<u64, CudaError> {
        let mut byte_size = 0;
        // SAFETY: writes a number to where it is told.
        let status = unsafe { (self.table.cuDeviceTotalMem_v2)(&raw mut byte_size, device) };
        self.table.check("cuDeviceTotalMem_v2", status)?;
        Ok(byte_size as u64)
    }
}
