//! A region: mapped memory with bounds-checked access. The only place where mapped bytes become
//! atomics, payload or private copies.

use std::ptr::NonNull;
use std::sync::Arc;

use adjoin_schema::layout::{ENTRY_BYTES, RegionHeader};
use thiserror::Error;

use crate::mapping::Mapping;
use crate::payload::Payload;
use crate::ring::Entry;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// A range that is not part of a region.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{byte_size} bytes at offset {offset} do not lie in a region of {region_bytes} bytes")]
pub struct RegionError {
    /// First byte that was asked for.
    pub offset: u64,
    /// Bytes that were asked for.
    pub byte_size: u64,
    /// Bytes of the region.
    pub region_bytes: u64,
}

/// A handle on mapped memory; clones share the mapping, which lives as long as the last of them.
#[derive(Clone, Debug)]
pub struct Region {
    mapping: Arc<Mapping>,
}

impl Region {
    pub(crate) fn new(mapping: Mapping) -> Self {
        Self {
            mapping: Arc::new(mapping),
        }
    }

    /// Bytes of the region.
    #[inline]
    #[must_use]
    pub fn byte_size(&self) -> u64 {
        self.mapping.byte_size() as u64
    }

    /// Whether this process may write it.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.mapping.is_writable()
    }

    /// Address of a range, after the one bounds check that all access goes through.
    #[inline]
    pub(crate) fn address(&self, offset: u64, byte_size: u64) -> Result<NonNull<u8>, RegionError> {
        let error = RegionError {
            offset,
            byte_size,
            region_bytes: self.byte_size(),
        };
        match offset.checked_add(byte_size) {
            Some(end) if end <= error.region_bytes => {}
            _ => return Err(error),
        }
        let at = usize::try_from(offset).map_err(|_| error)?;
        // SAFETY: `at + byte_size` is within the mapping, checked above, so `at` is too.
        Ok(unsafe { self.mapping.start().add(at) })
    }

    /// Payload in this region.
    ///
    /// # Errors
    /// If the range is not within the region.
    #[inline]
    pub fn payload(&self, offset: u64, byte_size: u64) -> Result<Payload<'_>, RegionError> {
        let start = self.address(offset, byte_size)?;
        // The cast cannot truncate: the range lies in a mapping of this process.
        let byte_size = usize::try_from(byte_size).unwrap_or(0);
        // SAFETY: the range is mapped readable for as long as `self` is borrowed.
        Ok(unsafe { Payload::from_raw(start, byte_size) })
    }

    /// Replaces the content of `copy` by a private copy of a range. What a peer writes meanwhile may
    /// or may not be in it; afterwards the copy does not change.
    ///
    /// # Errors
    /// If the range is not within the region.
    pub fn copy_out(
        &self,
        offset: u64,
        byte_size: u64,
        copy: &mut Vec<u8>,
    ) -> Result<(), RegionError> {
        let payload = self.payload(offset, byte_size)?;
        copy.clear();
        copy.resize(payload.byte_size(), 0);
        payload.copy_to(&mut crate::payload::PayloadMut::from_slice(copy));
        Ok(())
    }

    /// A control word.
    ///
    /// # Panics
    /// If `offset` is outside the control page or not aligned: offsets are constants of the layout.
    #[inline]
    pub(crate) fn word(&self, offset: u64) -> &AtomicU32 {
        let start = self
            .address(offset, 4)
            .expect("control words lie in the first page of every region");
        assert_eq!(offset % 4, 0, "control words are aligned");
        // SAFETY: the word is mapped, aligned, and lives as long as `self`; on both sides of the
        // session it is accessed by atomic operations only. A read-only mapping is only loaded from.
        unsafe { start.cast::<AtomicU32>().as_ref() }
    }

    /// The entries of a ring.
    ///
    /// # Panics
    /// If they do not lie in the region: their place comes from a checked layout.
    #[inline]
    pub(crate) fn entries(&self, offset: u64, count: u32) -> &[Entry] {
        let byte_size = u64::from(count) * ENTRY_BYTES;
        let start = self
            .address(offset, byte_size)
            .expect("a checked layout has room for its ring");
        assert_eq!(offset % ENTRY_BYTES, 0, "rings start on a cache line");
        // SAFETY: the entries are mapped, aligned, and live as long as `self`; they consist of atomics,
        // and both sides access them as such.
        unsafe { std::slice::from_raw_parts(start.cast::<Entry>().as_ptr(), count as usize) }
    }

    /// Writes the header of a region that no peer has seen yet.
    pub(crate) fn write_header(&self, header: RegionHeader) {
        let words: [u64; 8] = bytemuck::cast(header);
        for (index, word) in words.into_iter().enumerate() {
            let start = self
                .address(index as u64 * 8, 8)
                .expect("every region has a header");
            // SAFETY: mapped, aligned to 8 as offset 0 of a page, and only accessed as atomics here.
            let cell = unsafe { start.cast::<AtomicU64>().as_ref() };
            cell.store(word, Ordering::Relaxed);
        }
    }

    /// Reads the header.
    #[must_use]
    pub fn header(&self) -> RegionHeader {
        let mut words = [0u64; 8];
        for (index, word) in words.iter_mut().enumerate() {
            let start = self
                .address(index as u64 * 8, 8)
                .expect("every region has a header");
            // SAFETY: mapped, aligned to 8 as offset 0 of a page, and only accessed as atomics here.
            let cell = unsafe { start.cast::<AtomicU64>().as_ref() };
            *word = cell.load(Ordering::Relaxed);
        }
        bytemuck::cast(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_outside_are_refused_whatever_their_arithmetic() {
        let region = Region::new(Mapping::private(4096).unwrap());
        for (offset, byte_size) in [
            (4096, 1),
            (0, 4097),
            (u64::MAX, 1),
            (1, u64::MAX),
            (u64::MAX, u64::MAX),
        ] {
            let error = RegionError {
                offset,
                byte_size,
                region_bytes: 4096,
            };
            assert_eq!(region.payload(offset, byte_size).unwrap_err(), error);
        }
        assert_eq!(region.payload(4096, 0).unwrap().byte_size(), 0);
        assert_eq!(region.payload(0, 4096).unwrap().byte_size(), 4096);
    }
}
