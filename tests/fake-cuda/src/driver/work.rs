//! Operations of a stream: what is enqueued, what it touches, and what is done when the stream comes to it.
//!
//! Addresses are looked up when an operation is done, not when it is enqueued: what was freed or unregistered
//! meanwhile is found out.

use std::sync::Arc;

use super::device_memory::DeviceRange;
use super::host_memory::{HostKind, Kind, Pinned, PinnedUse, read_host, use_pinned, write_host};
use super::kernels::Launch;
use super::state::Driver;
use super::status::{ILLEGAL_ADDRESS, INVALID_VALUE, Status};

/// One end of a copy.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Device(usize),
    Host(usize, Arc<Pinned>),
    /// Memory that a real driver would copy to staging memory of its own.
    Pageable(usize),
}

/// What a stream does.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Copy {
        to: Place,
        from: Place,
        byte_size: usize,
    },
    Fill {
        to: usize,
        value: u8,
        byte_size: usize,
    },
    Kernel(Launch),
    /// A function of the host, with the address that it takes.
    HostCall {
        function: extern "C" fn(usize),
        data: usize,
    },
}

/// Which way, for counting.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    ToDevice,
    ToHost,
}

impl Driver {
    /// What an address of the device is for a copy.
    pub(crate) fn device_place(&self, address: u64, byte_size: usize) -> Result<Place, Status> {
        let address = usize::try_from(address).map_err(|_| INVALID_VALUE)?;
        if self.memory.lock().range(address, byte_size).is_none() {
            self.violation(format!(
                "a copy of {byte_size} bytes at {address:#x} of the device, which are not all in one allocation"
            ));
            return Err(INVALID_VALUE);
        }
        Ok(Place::Device(address))
    }

    /// What an address of the host is for a copy.
    pub(crate) fn host_place(&self, address: usize, byte_size: usize) -> Result<Place, Status> {
        if self.memory.lock().owns(address) {
            self.violation(format!(
                "{address:#x} is taken for an address of the host and is one of the device"
            ));
            return Err(INVALID_VALUE);
        }
        match self.host.lock().classify(address, byte_size) {
            HostKind::Pinned(pinned) => Ok(Place::Host(address, pinned)),
            HostKind::Pageable => Ok(Place::Pageable(address)),
            HostKind::Partial => {
                self.violation(format!(
                    "a copy of {byte_size} bytes at {address:#x} reaches over the edge of what is pinned"
                ));
                Err(INVALID_VALUE)
            }
        }
    }

    /// An address that may be either, as a batched copy takes them.
    pub(crate) fn any_place(&self, address: u64, byte_size: usize) -> Result<Place, Status> {
        let host = usize::try_from(address).map_err(|_| INVALID_VALUE)?;
        if self.memory.lock().owns(host) {
            self.device_place(address, byte_size)
        } else {
            self.host_place(host, byte_size)
        }
    }

    pub(crate) fn count(&self, way: Way, kind: Option<Kind>, byte_size: usize) {
        let mut report = self.report.lock();
        let count = match (way, kind) {
            (Way::ToDevice, Some(Kind::Registered)) => &mut report.to_device_registered,
            (Way::ToDevice, Some(Kind::Allocated)) => &mut report.to_device_pinned,
            (Way::ToDevice, None) => &mut report.to_device_pageable,
            (Way::ToHost, Some(Kind::Registered)) => &mut report.to_host_registered,
            (Way::ToHost, Some(Kind::Allocated)) => &mut report.to_host_pinned,
            (Way::ToHost, None) => &mut report.to_host_pageable,
        };
        *count += byte_size as u64;
    }

    fn device_range(&self, address: usize, byte_size: usize) -> Result<DeviceRange, Status> {
        self.memory.lock().range(address, byte_size).ok_or_else(|| {
            self.violation(format!(
                "{byte_size} bytes at {address:#x} of the device were freed before they were used"
            ));
            ILLEGAL_ADDRESS
        })
    }

    /// That a pinned range is there still, and may be written if it is to be.
    pub(crate) fn check_pinned(
        &self,
        pinned: &Arc<Pinned>,
        is_written: bool,
    ) -> Result<(), Status> {
        if !self.host.lock().has(pinned) {
            self.violation(format!(
                "memory at {:#x} was unregistered before it was used",
                pinned.start
            ));
            return Err(ILLEGAL_ADDRESS);
        }
        if is_written && pinned.is_read_only {
            self.violation(format!(
                "memory at {:#x} is registered to be read only, and written",
                pinned.start
            ));
            return Err(ILLEGAL_ADDRESS);
        }
        Ok(())
    }

    pub(crate) fn unmapped(&self, address: usize, byte_size: usize) -> Status {
        self.violation(format!(
            "{byte_size} bytes at {address:#x} of the host were unmapped before they were used"
        ));
        ILLEGAL_ADDRESS
    }
}

impl Operation {
    /// What the operation uses, from being enqueued to being done.
    pub(crate) fn uses(&self) -> Vec<PinnedUse> {
        let Self::Copy { to, from, .. } = self else {
            return Vec::new();
        };
        let pinned = |place: &Place| match place {
            Place::Host(_, pinned) => Some(use_pinned(pinned)),
            Place::Device(_) | Place::Pageable(_) => None,
        };
        pinned(to).into_iter().chain(pinned(from)).collect()
    }

    /// Whether a real driver returns only when it is done.
    pub(crate) fn is_synchronous(&self) -> bool {
        let Self::Copy { to, from, .. } = self else {
            return false;
        };
        matches!(to, Place::Pageable(_)) || matches!(from, Place::Pageable(_))
    }

    /// The name under which it can be made to fail.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Copy { .. } | Self::Fill { .. } => "exec.copy",
            Self::Kernel(_) => "exec.kernel",
            Self::HostCall { .. } => "exec.host_call",
        }
    }

    pub(crate) fn run(&self, driver: &Driver) -> Result<(), Status> {
        match self {
            Self::Copy {
                to,
                from,
                byte_size,
            } => copy(driver, to, from, *byte_size),
            Self::Fill {
                to,
                value,
                byte_size,
            } => {
                let range = driver.device_range(*to, *byte_size)?;
                // SAFETY: the range has that many bytes, and is held; the device's threads alone reach it.
                unsafe { std::ptr::write_bytes(range.start(), *value, range.byte_size()) };
                Ok(())
            }
            Self::Kernel(launch) => launch.run(driver),
            Self::HostCall { function, data } => {
                function(*data);
                Ok(())
            }
        }
    }
}

fn copy(driver: &Driver, to: &Place, from: &Place, byte_size: usize) -> Result<(), Status> {
    match (to, from) {
        (Place::Device(to), Place::Device(from)) => {
            let (to, from) = (
                driver.device_range(*to, byte_size)?,
                driver.device_range(*from, byte_size)?,
            );
            // SAFETY: both ranges have that many bytes, and are held; they may overlap.
            unsafe { std::ptr::copy(from.start(), to.start(), byte_size) };
            driver.report.lock().on_device += byte_size as u64;
            Ok(())
        }
        (Place::Device(to), Place::Host(from, pinned)) => {
            driver.check_pinned(pinned, false)?;
            driver.count(Way::ToDevice, Some(pinned.kind), byte_size);
            to_device(driver, *to, *from, byte_size)
        }
        (Place::Device(to), Place::Pageable(from)) => {
            driver.count(Way::ToDevice, None, byte_size);
            to_device(driver, *to, *from, byte_size)
        }
        (Place::Host(to, pinned), Place::Device(from)) => {
            driver.check_pinned(pinned, true)?;
            driver.count(Way::ToHost, Some(pinned.kind), byte_size);
            to_host(driver, *to, *from, byte_size)
        }
        (Place::Pageable(to), Place::Device(from)) => {
            driver.count(Way::ToHost, None, byte_size);
            to_host(driver, *to, *from, byte_size)
        }
        (Place::Host(..) | Place::Pageable(_), Place::Host(..) | Place::Pageable(_)) => {
            driver.violation("a copy from the host to the host".to_owned());
            Err(INVALID_VALUE)
        }
    }
}

fn to_device(driver: &Driver, to: usize, from: usize, byte_size: usize) -> Result<(), Status> {
    let range = driver.device_range(to, byte_size)?;
    if read_host(from, range.start(), byte_size) {
        return Ok(());
    }
    Err(driver.unmapped(from, byte_size))
}

fn to_host(driver: &Driver, to: usize, from: usize, byte_size: usize) -> Result<(), Status> {
    let range = driver.device_range(from, byte_size)?;
    if write_host(to, range.start(), byte_size) {
        return Ok(());
    }
    Err(driver.unmapped(to, byte_size))
}
