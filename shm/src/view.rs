//! Typed views for the client library: slices over memory whose bytes are at rest.
//!
//! A client writes its request region alone, and the server only reads there, so an exclusively
//! borrowed [`OwnedRange`] of it may be a `&mut [T]`. Outputs are written by the server before it
//! publishes the completion and not again until the client releases them. The client trusts the
//! server in this (it runs the client's model); the server never makes slices of a client's memory.

use adjoin_schema::DataType;
use thiserror::Error;

use crate::arena::OwnedRange;
use crate::region::{Region, RegionError};

/// A Rust type whose values are elements of tensors.
///
/// `BOOL` tensors are bytes (`u8`) here: a peer could write others than 0 and 1.
pub trait Element: bytemuck::Pod {
    /// The data types that may be viewed as this.
    const DTYPES: &'static [DataType];
}

macro_rules! elements {
    ($($rust:ty => $($dtype:ident),+;)+) => {
        $(impl Element for $rust { const DTYPES: &'static [DataType] = &[$(DataType::$dtype),+]; })+
    };
}

elements! {
    u8 => Uint8, Bool, Bytes;
    u16 => Uint16;
    u32 => Uint32;
    u64 => Uint64;
    i8 => Int8;
    i16 => Int16;
    i32 => Int32;
    i64 => Int64;
    half::f16 => Fp16;
    half::bf16 => Bf16;
    f32 => Fp32;
    f64 => Fp64;
}

/// Why bytes cannot be viewed as elements of a type.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ElementError {
    /// The size is no multiple of the element's.
    #[error("{byte_size} bytes are no whole number of elements of {element_bytes} bytes")]
    Size {
        /// Bytes of the payload.
        byte_size: u64,
        /// Bytes of an element.
        element_bytes: usize,
    },
    /// The range is not in the region.
    #[error(transparent)]
    Region(#[from] RegionError),
}

fn count<T>(byte_size: u64) -> Result<usize, ElementError> {
    let element_bytes = size_of::<T>();
    match usize::try_from(byte_size) {
        Ok(bytes) if bytes % element_bytes == 0 => Ok(bytes / element_bytes),
        _ => Err(ElementError::Size {
            byte_size,
            element_bytes,
        }),
    }
}

impl OwnedRange {
    /// The range as elements, to be written.
    ///
    /// # Errors
    /// If the size is no whole number of elements.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T], ElementError> {
        let count = count::<T>(self.byte_size())?;
        let (start, _) = self.address();
        // SAFETY:
        // - `count` elements lie in the range, which is mapped, writable and aligned to 64 bytes;
        // - every bit pattern is a `T` (Pod), so bytes of any history are initialised values;
        // - this process is the only writer of the region and this range its only owner, borrowed
        //   exclusively; the peer reads at most (module documentation).
        Ok(unsafe { std::slice::from_raw_parts_mut(start.cast::<T>().as_ptr(), count) })
    }

    /// The range as elements.
    ///
    /// # Errors
    /// As [`OwnedRange::as_mut_slice`].
    pub fn as_slice<T: Element>(&self) -> Result<&[T], ElementError> {
        let count = count::<T>(self.byte_size())?;
        let (start, _) = self.address();
        // SAFETY: as above, borrowed shared.
        Ok(unsafe { std::slice::from_raw_parts(start.cast::<T>().as_ptr(), count) })
    }
}

/// Elements in a region that the server wrote and that are at rest: outputs of a response that is
/// complete and not yet released. The caller keeps the response from being released while it
/// borrows.
///
/// # Errors
/// If the range is not in the region, not aligned for `T`, or no whole number of elements.
pub fn output_slice<T: Element>(
    response: &Region,
    offset: u64,
    byte_size: u64,
) -> Result<&[T], ElementError> {
    let count = count::<T>(byte_size)?;
    let start = response.address(offset, byte_size)?;
    if !start.cast::<T>().is_aligned() {
        return Err(ElementError::Region(RegionError {
            offset,
            byte_size,
            region_bytes: response.byte_size(),
        }));
    }
    // SAFETY:
    // - `count` elements lie in the mapped range, aligned, and every bit pattern is a `T` (Pod);
    // - the server, which the client trusts, does not write them before they are released.
    Ok(unsafe { std::slice::from_raw_parts(start.cast::<T>().as_ptr(), count) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;
    use crate::mapping::Mapping;

    #[test]
    fn elements_round_trip_and_sizes_must_fit() {
        let region = Region::new(Mapping::private(4096).unwrap());
        let mut range = Arena::new(region.clone(), 0..4096).allocate(12).unwrap();
        range
            .as_mut_slice::<f32>()
            .unwrap()
            .copy_from_slice(&[1.0, 2.0, 3.0]);
        assert_eq!(range.as_slice::<f32>().unwrap(), [1.0, 2.0, 3.0]);
        assert_eq!(
            output_slice::<f32>(&region, range.offset(), 12).unwrap(),
            [1.0, 2.0, 3.0]
        );
        let error = ElementError::Size {
            byte_size: 12,
            element_bytes: 8,
        };
        assert_eq!(range.as_slice::<f64>().unwrap_err(), error);
        assert!(output_slice::<f32>(&region, 2, 4).is_err());
        assert!(output_slice::<u8>(&region, 4096, 1).is_err());
    }

    #[test]
    fn every_data_type_has_exactly_one_element() {
        let all: Vec<DataType> = [
            u8::DTYPES,
            u16::DTYPES,
            u32::DTYPES,
            u64::DTYPES,
            i8::DTYPES,
            i16::DTYPES,
            i32::DTYPES,
            i64::DTYPES,
            half::f16::DTYPES,
            half::bf16::DTYPES,
            f32::DTYPES,
            f64::DTYPES,
        ]
        .concat();
        for dtype in DataType::ALL {
            assert_eq!(all.iter().filter(|d| **d == dtype).count(), 1, "{dtype}");
        }
    }
}
