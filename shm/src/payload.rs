//! Payload on its way to and from an engine: a pointer and a size, never a slice.
//!
//! The bytes behind a [`Payload`] may be written by a peer at any time. It can be copied out of, and
//! an engine can be pointed at it; no safe method reads it as Rust values.

use std::marker::PhantomData;
use std::ptr::NonNull;

/// Bytes to read, valid for `'a`.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    start: NonNull<u8>,
    byte_size: usize,
    life: PhantomData<&'a ()>,
}

/// Bytes to write, valid for `'a`.
#[derive(Debug)]
pub struct PayloadMut<'a> {
    start: NonNull<u8>,
    byte_size: usize,
    life: PhantomData<&'a mut ()>,
}

// SAFETY: a payload is an address and a size; reading behind it is unsafe wherever it is done, and
// the mapping it points into may be used from any thread.
unsafe impl Send for Payload<'_> {}
// SAFETY: as for Send.
unsafe impl Sync for Payload<'_> {}
// SAFETY: as for `Payload`; there is one `PayloadMut` for a range at a time.
unsafe impl Send for PayloadMut<'_> {}

impl<'a> Payload<'a> {
    /// # Safety
    /// `start` must be valid for reads of `byte_size` bytes for `'a`; the bytes may change meanwhile.
    #[inline]
    pub(crate) unsafe fn from_raw(start: NonNull<u8>, byte_size: usize) -> Self {
        Self {
            start,
            byte_size,
            life: PhantomData,
        }
    }

    /// Payload in private memory.
    #[must_use]
    pub fn from_slice(bytes: &'a [u8]) -> Self {
        Self {
            start: NonNull::from(bytes).cast(),
            byte_size: bytes.len(),
            life: PhantomData,
        }
    }

    /// Address of the first byte in this process.
    #[inline]
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    /// Size in bytes.
    #[inline]
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.byte_size
    }

    /// Whether `next` begins where this payload ends.
    #[must_use]
    pub fn is_followed_by(&self, next: &Payload<'_>) -> bool {
        self.as_ptr().wrapping_add(self.byte_size) == next.as_ptr()
    }

    /// This payload and what follows it, `byte_size` bytes in all, where the caller has seen by
    /// [`Payload::is_followed_by`] that every part is there.
    #[must_use]
    pub fn joined(parts: &[Self]) -> Option<Self> {
        let first = parts.first()?;
        if !parts
            .windows(2)
            .all(|pair| pair[0].is_followed_by(&pair[1]))
        {
            return None;
        }
        let byte_size = parts.iter().map(|part| part.byte_size).sum();
        Some(Self {
            start: first.start,
            byte_size,
            life: PhantomData,
        })
    }

    /// `byte_size` bytes from `at` on; `None` if they are not all in this payload.
    #[inline]
    #[must_use]
    pub fn part(&self, at: usize, byte_size: usize) -> Option<Self> {
        at.checked_add(byte_size)
            .filter(|&end| end <= self.byte_size)?;
        // SAFETY: `at` is within the payload, checked above.
        let start = unsafe { self.start.add(at) };
        Some(Self {
            start,
            byte_size,
            life: PhantomData,
        })
    }

    /// Copies all bytes to the start of `to`.
    ///
    /// # Panics
    /// If `to` is smaller.
    #[inline]
    pub fn copy_to(&self, to: &mut PayloadMut<'_>) {
        assert!(
            self.byte_size <= to.byte_size,
            "the destination was sized from this payload's descriptor"
        );
        // SAFETY:
        // - both are valid for `byte_size` bytes, checked above for the destination, which is the only
        //   `PayloadMut` of its range; `copy` allows that they overlap;
        // - the source may change while it is copied: the copy then holds some mix of bytes, which is
        //   garbage for the peer that did it, and the copy is all that is used from here on.
        unsafe { std::ptr::copy(self.as_ptr(), to.as_mut_ptr(), self.byte_size) };
    }

    /// A private copy.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut copy = vec![0; self.byte_size];
        self.copy_to(&mut PayloadMut::from_slice(&mut copy));
        copy
    }
}

impl<'a> PayloadMut<'a> {
    /// # Safety
    /// `start` must be valid for writes of `byte_size` bytes for `'a`, and no other `PayloadMut` of
    /// this process may share bytes with it. A peer may read meanwhile.
    #[inline]
    pub(crate) unsafe fn from_raw(start: NonNull<u8>, byte_size: usize) -> Self {
        Self {
            start,
            byte_size,
            life: PhantomData,
        }
    }

    /// Room in private memory.
    #[must_use]
    pub fn from_slice(bytes: &'a mut [u8]) -> Self {
        let byte_size = bytes.len();
        Self {
            start: NonNull::from(bytes).cast(),
            byte_size,
            life: PhantomData,
        }
    }

    /// Address of the first byte in this process.
    #[inline]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Size in bytes.
    #[inline]
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.byte_size
    }

    /// Divides the room at `at` bytes.
    ///
    /// # Panics
    /// If `at` is past the end.
    #[inline]
    #[must_use]
    pub fn split_at(self, at: usize) -> (Self, Self) {
        assert!(
            at <= self.byte_size,
            "split at {at} of {} bytes",
            self.byte_size
        );
        // SAFETY: `at` is within the range, checked above.
        let second = unsafe { self.start.add(at) };
        let rest = self.byte_size - at;
        (
            Self {
                start: self.start,
                byte_size: at,
                life: PhantomData,
            },
            Self {
                start: second,
                byte_size: rest,
                life: PhantomData,
            },
        )
    }
}
