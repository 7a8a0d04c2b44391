//! No devices.

use std::convert::Infallible;

use adjoin_shm::SessionMemory;

use super::{DeviceError, DeviceNumbers, DeviceSettings};

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

    /// Has the devices that are open register a session's memory.
    #[must_use]
    pub fn register(&self, _memory: &SessionMemory) -> Option<Registered> {
        None
    }

    /// Numbers of the device, if one is open.
    #[must_use]
    pub fn numbers(&self) -> Option<DeviceNumbers> {
        None
    }
}

impl Registered {
    /// Has the device let go of the regions; `owner` is kept until it has.
    pub fn retire(&self, _owner: impl Clone + Send + 'static) {
        match self.0 {}
    }
}
