//! No devices.

use std::convert::Infallible;
use std::os::fd::OwnedFd;

use adjoin_schema::attach::DeviceUuid;
use adjoin_shm::{AlignedBytes, Payload, PayloadMut, SessionMemory};

use super::{DeviceError, DeviceNumbers, DeviceProbe, DeviceSettings, Sharer};

/// The devices of a server that uses none.
#[derive(Clone, Debug, Default)]
pub struct Devices(());

/// The regions of a session, as a device knows them.
#[derive(Debug)]
pub struct Registered(Infallible);

impl Devices {
    /// As configured.
    ///
    /// # Errors
    /// If a device is configured.
    pub fn new(settings: Option<DeviceSettings>) -> Result<Self, DeviceError> {
        match settings {
            Some(_) => Err(DeviceError::NotBuilt),
            None => Ok(Self(())),
        }
    }

    /// Opens memory of a device that another process has made.
    ///
    /// # Errors
    /// Always: there is no device.
    pub fn open_shared(
        &self,
        _device: i64,
        _handle: &[u8],
        _byte_size: u64,
    ) -> Result<SharedMemory, DeviceError> {
        Err(DeviceError::NotBuilt)
    }

    /// Maps memory of a device that a client shares.
    ///
    /// # Errors
    /// Always: there is no device.
    pub fn import(
        &self,
        _sharer: Sharer,
        _device: &DeviceUuid,
        _descriptor: &OwnedFd,
        _byte_size: u64,
    ) -> Result<DeviceRegion, DeviceError> {
        Err(DeviceError::NotBuilt)
    }

    /// Tries the device.
    ///
    /// # Errors
    /// Always: there is none.
    pub fn probe(&self) -> Result<DeviceProbe, DeviceError> {
        Err(DeviceError::NotBuilt)
    }

    /// Has the devices that are open register a session's memory.
    #[must_use]
    pub fn register(&self, _memory: &SessionMemory) -> Option<Registered> {
        None
    }

    /// As configured.
    #[must_use]
    pub fn settings(&self) -> DeviceSettings {
        DeviceSettings::default()
    }

    /// Whether an error has spoiled the context of the device.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        false
    }

    /// Ends the context of the device, and makes a new one.
    ///
    /// # Errors
    /// Always: there is none.
    pub fn rebuild(&self) -> Result<(), DeviceError> {
        Err(DeviceError::NotBuilt)
    }

    /// Numbers of the device, if one is open.
    #[must_use]
    pub fn numbers(&self) -> Option<DeviceNumbers> {
        None
    }
}

/// Memory of a device that a client shares.
#[derive(Debug)]
pub struct DeviceRegion(Infallible);

impl DeviceRegion {
    /// Bytes of the region.
    #[must_use]
    pub fn byte_size(&self) -> u64 {
        match self.0 {}
    }

    /// Whether it went with a context of the device that was lost.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        match self.0 {}
    }

    /// What stands for a range of it in a batch.
    #[must_use]
    pub fn payload(&self, _offset: u64, _byte_size: u64) -> Option<Payload<'_>> {
        match self.0 {}
    }

    /// The same for an output.
    #[must_use]
    pub fn payload_mut(&self, _offset: u64, _byte_size: u64) -> Option<PayloadMut<'_>> {
        match self.0 {}
    }
}

/// Memory of a device that another process has made.
#[derive(Debug)]
pub struct SharedMemory(Infallible);

impl SharedMemory {
    /// A copy of `byte_size` bytes from `at`.
    ///
    /// # Errors
    /// Never.
    pub fn read(&self, _at: u64, _byte_size: u64) -> Result<AlignedBytes, DeviceError> {
        match self.0 {}
    }

    /// Copies `bytes` to the memory, from `at` on.
    ///
    /// # Errors
    /// Never.
    pub fn write(&self, _at: u64, _bytes: &[u8]) -> Result<(), DeviceError> {
        match self.0 {}
    }
}

impl Registered {
    /// Has the device let go of the regions; `owner` is kept until it has.
    pub fn retire(&self, _owner: impl Clone + Send + 'static) {
        match self.0 {}
    }
}
