//! Payload space of a region, handed out in ranges that belong to one owner each.

use std::ops::Range;
use std::sync::Arc;

use adjoin_schema::limits::ALIGNMENT;
use parking_lot::Mutex;
use range_alloc::RangeAllocator;

use crate::mapping::Mapping;
use crate::memfd::MemfdError;
use crate::payload::{Payload, PayloadMut};
use crate::region::Region;

#[derive(Debug)]
struct Inner {
    region: Region,
    free: Mutex<RangeAllocator<u64>>,
    capacity: u64,
}

/// The payload space that this process may write in a region. Clones share it.
#[derive(Clone, Debug)]
pub struct Arena {
    inner: Arc<Inner>,
}

/// A range of an arena with exactly one owner; given back on drop.
#[derive(Debug)]
pub struct OwnedRange {
    arena: Arc<Inner>,
    range: Range<u64>,
    byte_size: u64,
}

impl Arena {
    /// An arena over `range` of a region that this process writes.
    ///
    /// # Panics
    /// If the region is mapped read-only or the range is not within it: both come from a checked
    /// layout.
    #[must_use]
    pub fn new(region: Region, range: Range<u64>) -> Self {
        assert!(
            region.is_writable(),
            "only the writer of a region hands out its space"
        );
        let range = range.start.next_multiple_of(ALIGNMENT)..range.end / ALIGNMENT * ALIGNMENT;
        let capacity = range.end.saturating_sub(range.start);
        assert!(
            region.address(range.start, capacity).is_ok(),
            "an arena lies within its region"
        );
        let free = Mutex::new(RangeAllocator::new(range));
        Self {
            inner: Arc::new(Inner {
                region,
                free,
                capacity,
            }),
        }
    }

    /// An arena in private memory, for payload that is in no session at the moment.
    ///
    /// # Errors
    /// If the system has no memory for it.
    pub fn private(byte_size: u64) -> Result<Self, MemfdError> {
        let len = usize::try_from(byte_size).unwrap_or(usize::MAX);
        let mapping = Mapping::private(len.max(1))?;
        Ok(Self::new(Region::new(mapping), 0..byte_size))
    }

    /// `byte_size` bytes that start at a multiple of 64; `None` if no free range is long enough.
    #[must_use]
    pub fn allocate(&self, byte_size: u64) -> Option<OwnedRange> {
        // An empty tensor still gets an offset of its own.
        let rounded = byte_size.max(1).checked_next_multiple_of(ALIGNMENT)?;
        if rounded > self.inner.capacity {
            return None;
        }
        let range = self.inner.free.lock().allocate_range(rounded).ok()?;
        Some(OwnedRange {
            arena: Arc::clone(&self.inner),
            range,
            byte_size,
        })
    }

    /// Bytes of the arena.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.inner.capacity
    }

    /// Bytes that are not handed out, in however many pieces.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.inner.free.lock().total_available()
    }
}

impl OwnedRange {
    /// Offset of the first byte in the region.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.range.start
    }

    /// Bytes that were asked for.
    #[must_use]
    pub fn byte_size(&self) -> u64 {
        self.byte_size
    }

    /// Address of the first byte in this process.
    #[must_use]
    pub fn start(&self) -> std::ptr::NonNull<u8> {
        self.address().0
    }

    /// The bytes, to be written.
    pub fn payload_mut(&mut self) -> PayloadMut<'_> {
        let (start, byte_size) = self.address();
        // SAFETY: the range is mapped writable while the arena lives, and this is its only owner, borrowed
        // exclusively.
        unsafe { PayloadMut::from_raw(start, byte_size) }
    }

    /// The bytes, to be read or handed to an engine.
    #[must_use]
    pub fn payload(&self) -> Payload<'_> {
        let (start, byte_size) = self.address();
        // SAFETY: the range is mapped readable while the arena lives.
        unsafe { Payload::from_raw(start, byte_size) }
    }

    /// Address and size in this process.
    pub(crate) fn address(&self) -> (std::ptr::NonNull<u8>, usize) {
        let start = self
            .arena
            .region
            .address(self.range.start, self.byte_size)
            .expect("checked when the arena was made");
        (
            start,
            usize::try_from(self.byte_size).expect("the range is mapped in this process"),
        )
    }

    /// Copies `bytes` to the start of the range.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn write(&mut self, bytes: &[u8]) {
        Payload::from_slice(bytes).copy_to(&mut self.payload_mut());
    }
}

impl Drop for OwnedRange {
    fn drop(&mut self) {
        self.arena.free.lock().free_range(self.range.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena(byte_size: usize) -> Arena {
        let region = Region::new(Mapping::private(byte_size).unwrap());
        Arena::new(region, 100..byte_size as u64)
    }

    #[test]
    fn ranges_are_aligned_disjoint_and_come_back() {
        let arena = arena(4096);
        assert_eq!(arena.capacity(), 4096 - 128);
        let ranges: Vec<_> = std::iter::from_fn(|| arena.allocate(100)).collect();
        assert_eq!(ranges.len(), (4096 - 128) / 128);
        assert!(
            ranges
                .iter()
                .all(|r| r.offset() % ALIGNMENT == 0 && r.byte_size() == 100)
        );
        assert!(arena.allocate(1).is_some() == (arena.free_bytes() >= 64));
        drop(ranges);
        assert_eq!(arena.free_bytes(), arena.capacity());
        assert!(arena.allocate(arena.capacity()).is_some());
    }

    #[test]
    fn private_arena_holds_as_much_as_was_asked_for() {
        let arena = Arena::private(192).unwrap();
        let mut ranges: Vec<_> = std::iter::from_fn(|| arena.allocate(64)).collect();
        assert_eq!(ranges.len(), 3);
        ranges[2].write(&[7; 64]);
        assert_eq!(ranges[2].payload().to_vec(), [7; 64]);
        assert!(Arena::private(0).unwrap().allocate(1).is_none());
        assert!(Arena::private(u64::MAX).is_err());
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let arena = arena(4096);
        for byte_size in [4096, u64::MAX, u64::MAX - 63] {
            assert!(arena.allocate(byte_size).is_none(), "{byte_size}");
        }
    }
}
