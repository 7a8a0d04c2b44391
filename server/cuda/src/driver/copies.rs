//! A list of copies between host and device, joined where neighbours touch.

use super::hold::Hold;
use super::host::HostRange;

/// Copies between ranges of host memory and ranges of the device, and what keeps both alive. Reused: clearing keeps the
/// room.
#[derive(Debug, Default)]
pub(crate) struct CopyList {
    pub(super) host: Vec<u64>,
    /// The host ranges, where the device sees them.
    pub(super) mapped: Vec<u64>,
    pub(super) device: Vec<u64>,
    pub(super) byte_sizes: Vec<usize>,
    pub(super) holds: Vec<Hold>,
}

impl CopyList {
    /// A list with room for `pieces`, which then needs no allocation.
    pub(crate) fn with_capacity(pieces: usize) -> Self {
        Self {
            host: Vec::with_capacity(pieces),
            mapped: Vec::with_capacity(pieces),
            device: Vec::with_capacity(pieces),
            byte_sizes: Vec::with_capacity(pieces),
            holds: Vec::with_capacity(2 * pieces + 2),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.host.clear();
        self.mapped.clear();
        self.device.clear();
        self.byte_sizes.clear();
        self.holds.clear();
    }

    /// Adds a copy between `host` and `device`. `hold` keeps the host's range alive; the list takes it over.
    ///
    /// One that goes on where the last one ends, on both sides and within one registration, is joined to it: a copy
    /// that reaches from one registration into another is refused by the driver.
    pub(crate) fn push(&mut self, host: HostRange, hold: Hold, device: u64) {
        if host.byte_size == 0 {
            return;
        }
        if self.touches_last(&host, &hold, device) {
            if let Some(byte_size) = self.byte_sizes.last_mut() {
                *byte_size += host.byte_size;
            }
            return;
        }
        self.host.push(host.address as u64);
        self.mapped.push(host.device_address);
        self.device.push(device);
        self.byte_sizes.push(host.byte_size);
        self.holds.push(hold);
    }

    fn touches_last(&self, host: &HostRange, hold: &Hold, device: u64) -> bool {
        let (Some(&last_host), Some(&last_device), Some(&byte_size), Some(last_hold)) = (
            self.host.last(),
            self.device.last(),
            self.byte_sizes.last(),
            self.holds.last(),
        ) else {
            return false;
        };
        last_host + byte_size as u64 == host.address as u64
            && last_device + byte_size as u64 == device
            && last_hold.is_same(hold)
    }

    /// Copies after joining.
    pub(crate) fn len(&self) -> usize {
        self.host.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.host.is_empty()
    }

    /// Bytes of all copies.
    pub(crate) fn byte_size(&self) -> usize {
        self.byte_sizes.iter().sum()
    }

    /// Bytes of the largest copy.
    pub(super) fn largest(&self) -> usize {
        self.byte_sizes.iter().copied().max().unwrap_or(0)
    }
}
