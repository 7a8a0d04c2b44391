//! Addresses that stand for memory which no processor reaches, such as that of a device.
//!
//! What takes a [`Payload`] may hand it to a device, which looks its address up, or copy it. A region on a device therefore
//! gets addresses of this process that nothing else has. A device finds its memory by them; a processor that touches
//! them, which is a mistake, finds zeros and writes to pages that nobody reads: it never faults, and never sees
//! another's bytes.

use crate::mapping::Mapping;
use crate::memfd::MemfdError;
use crate::payload::{Payload, PayloadMut};
use crate::region::Region;

/// A range of addresses that stands for memory elsewhere. Takes address space, and no memory while no processor touches
/// it. Clones are the same range.
#[derive(Clone, Debug)]
pub struct StandIn {
    region: Region,
}

impl StandIn {
    /// Addresses for `byte_size` bytes.
    ///
    /// # Errors
    /// If there is no such range of addresses left.
    pub fn new(byte_size: usize) -> Result<Self, MemfdError> {
        Ok(Self {
            region: Region::new(Mapping::address_space(byte_size)?),
        })
    }

    /// Bytes that it stands for.
    #[must_use]
    pub fn byte_size(&self) -> u64 {
        self.region.byte_size()
    }

    /// The first address.
    #[must_use]
    pub fn start(&self) -> usize {
        self.region
            .payload(0, 0)
            .map_or(0, |payload| payload.as_ptr().addr())
    }

    /// What stands for a range; `None` if it is not all within.
    #[must_use]
    pub fn payload(&self, offset: u64, byte_size: u64) -> Option<Payload<'_>> {
        self.region.payload(offset, byte_size).ok()
    }

    /// As [`StandIn::payload`], for what is to be written.
    #[must_use]
    pub fn payload_mut(&self, offset: u64, byte_size: u64) -> Option<PayloadMut<'_>> {
        let start = self.region.address(offset, byte_size).ok()?;
        let byte_size = usize::try_from(byte_size).ok()?;
        // SAFETY: the range is mapped for writes for as long as `self` is borrowed. Two requests may name one range of
        // their device; what is written by a processor, by mistake, is read by nobody.
        Some(unsafe { PayloadMut::from_raw(start, byte_size) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_is_zeros_to_a_processor_and_takes_no_memory() {
        // More than any machine has.
        let large = StandIn::new(1 << 42).unwrap();
        assert_eq!(large.byte_size(), 1 << 42);
        let payload = large.payload(1 << 41, 4096).unwrap();
        assert_eq!(payload.to_vec(), vec![0; 4096]);
        assert_eq!(payload.as_ptr().addr(), large.start() + (1 << 41));
        let mut room = large.payload_mut(64, 3).unwrap();
        Payload::from_slice(&[1, 2, 3]).copy_to(&mut room);
    }

    #[test]
    fn ranges_outside_are_refused() {
        let stand_in = StandIn::new(4096).unwrap();
        for (offset, byte_size) in [(4096, 1), (0, 4097), (u64::MAX, 1), (1, u64::MAX)] {
            assert!(stand_in.payload(offset, byte_size).is_none());
            assert!(stand_in.payload_mut(offset, byte_size).is_none());
        }
        assert!(StandIn::new(usize::MAX).is_err());
    }
}
