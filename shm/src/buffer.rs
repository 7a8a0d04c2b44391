//! Private memory for batches: page-aligned, populated once, reused for every batch.

use crate::mapping::Mapping;
use crate::memfd::MemfdError;
use crate::payload::{Payload, PayloadMut};
use crate::view::Element;

/// Page-aligned private memory whose pages are there from the start.
#[derive(Debug, Default)]
pub struct AlignedBuffer {
    mapping: Option<Mapping>,
}

impl AlignedBuffer {
    /// A zeroed buffer; 0 bytes make one that needs no memory.
    ///
    /// # Errors
    /// If the system has no memory for it.
    pub fn new(byte_size: usize) -> Result<Self, MemfdError> {
        if byte_size == 0 {
            return Ok(Self { mapping: None });
        }
        let mapping = Mapping::private(byte_size)?;
        mapping.populate()?;
        Ok(Self {
            mapping: Some(mapping),
        })
    }

    /// Bytes of the buffer.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.mapping.as_ref().map_or(0, Mapping::byte_size)
    }

    /// Makes the buffer at least `byte_size` bytes long; what it held is lost if it had to grow.
    ///
    /// # Errors
    /// If the system has no memory for it; the buffer is as before then.
    pub fn reserve(&mut self, byte_size: usize) -> Result<(), MemfdError> {
        if byte_size > self.byte_size() {
            *self = Self::new(byte_size.next_power_of_two())?;
        }
        Ok(())
    }

    /// The first `byte_size` bytes, to be read.
    ///
    /// # Panics
    /// If the buffer is smaller.
    #[must_use]
    pub fn payload(&self, byte_size: usize) -> Payload<'_> {
        assert!(
            byte_size <= self.byte_size(),
            "{byte_size} of {} bytes",
            self.byte_size()
        );
        match &self.mapping {
            // SAFETY: mapped for as long as `self`, and at least `byte_size` long, checked above.
            Some(mapping) => unsafe { Payload::from_raw(mapping.start(), byte_size) },
            None => Payload::from_slice(&[]),
        }
    }

    /// The first `byte_size` bytes, to be written.
    ///
    /// # Panics
    /// If the buffer is smaller.
    pub fn payload_mut(&mut self, byte_size: usize) -> PayloadMut<'_> {
        assert!(
            byte_size <= self.byte_size(),
            "{byte_size} of {} bytes",
            self.byte_size()
        );
        match &self.mapping {
            // SAFETY: mapped writable for as long as `self`, at least `byte_size` long, checked above,
            // and borrowed exclusively.
            Some(mapping) => unsafe { PayloadMut::from_raw(mapping.start(), byte_size) },
            None => PayloadMut::from_slice(&mut []),
        }
    }
}

impl AlignedBuffer {
    /// The first `count` elements, to be written. The memory is this process's alone, so they may be a slice.
    ///
    /// # Panics
    /// If the buffer is smaller.
    pub fn as_mut_slice<T: Element>(&mut self, count: usize) -> &mut [T] {
        let byte_size = count.checked_mul(size_of::<T>());
        assert!(
            byte_size.is_some_and(|byte_size| byte_size <= self.byte_size()),
            "{count} elements of {} bytes in a buffer of {}",
            size_of::<T>(),
            self.byte_size()
        );
        match &self.mapping {
            // SAFETY:
            // - `count` elements lie in the mapping, checked above, which starts at a page and is writable;
            // - every bit pattern is a `T` (Pod), so bytes of any history are initialised values;
            // - the mapping is private to this process, and borrowed exclusively.
            Some(mapping) => unsafe {
                std::slice::from_raw_parts_mut(mapping.start().cast::<T>().as_ptr(), count)
            },
            None => &mut [],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_grows_and_holds_what_is_copied_in() {
        let mut buffer = AlignedBuffer::new(0).unwrap();
        assert_eq!(buffer.payload(0).byte_size(), 0);
        buffer.reserve(5000).unwrap();
        assert!(buffer.byte_size() >= 5000);
        Payload::from_slice(&[7; 5000]).copy_to(&mut buffer.payload_mut(5000));
        assert_eq!(buffer.payload(5000).to_vec(), vec![7; 5000]);
        assert_eq!(buffer.payload(1).as_ptr() as usize % 4096, 0);
        buffer.as_mut_slice::<f32>(2)[1] = 1.0;
        assert_eq!(buffer.payload(8).to_vec()[4..], 1f32.to_le_bytes());
    }
}
