//! Shapes: from dimensions to a number of elements and bytes, with checked arithmetic.

use smallvec::SmallVec;
use thiserror::Error;

use crate::{DataType, limits::RANK_MAX};

/// The dimensions of a tensor, outermost first; at most [`RANK_MAX`] of them, so none is on the heap.
pub type Shape = SmallVec<[i64; RANK_MAX]>;

/// Why a shape stands for no amount of memory.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ShapeError {
    /// More dimensions than the protocol allows.
    #[error("rank {rank} is above the limit of {RANK_MAX}")]
    Rank {
        /// Number of dimensions that were given.
        rank: usize,
    },
    /// A dimension below zero; only a model's description may leave a dimension open.
    #[error("dimension {index} is {value}; a request's dimensions are at least 0")]
    Negative {
        /// Position of the dimension.
        index: usize,
        /// Its value.
        value: i64,
    },
    /// The number of elements or bytes does not fit 63 bits.
    #[error("the shape stands for more than 2^63 bytes")]
    Overflow,
}

/// The number of elements of a tensor with these dimensions; 1 for a scalar.
///
/// # Errors
/// See [`ShapeError`].
pub fn element_count(dims: &[i64]) -> Result<u64, ShapeError> {
    if dims.len() > RANK_MAX {
        return Err(ShapeError::Rank { rank: dims.len() });
    }
    let mut count: u64 = 1;
    for (index, &value) in dims.iter().enumerate() {
        let dim = u64::try_from(value).map_err(|_| ShapeError::Negative { index, value })?;
        // A zero anywhere makes the tensor empty, but later dimensions must still be valid ones.
        count = count
            .checked_mul(dim)
            .filter(|&c| c <= i64::MAX as u64)
            .ok_or(ShapeError::Overflow)?;
    }
    Ok(count)
}

impl DataType {
    /// Bytes of a tensor of this type with these dimensions; `None` in place of a size for
    /// [`DataType::Bytes`].
    ///
    /// # Errors
    /// See [`ShapeError`].
    pub fn byte_size(self, dims: &[i64]) -> Result<Option<u64>, ShapeError> {
        let count = element_count(dims)?;
        let Some(element) = self.element_bytes() else {
            return Ok(None);
        };
        let size = count.checked_mul(element).filter(|&s| s <= i64::MAX as u64);
        size.map(Some).ok_or(ShapeError::Overflow)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scalars_and_empty_tensors_have_a_size() {
        assert_eq!(DataType::Fp32.byte_size(&[]), Ok(Some(4)));
        assert_eq!(DataType::Fp64.byte_size(&[3, 0, 5]), Ok(Some(0)));
        assert_eq!(DataType::Bytes.byte_size(&[3]), Ok(None));
    }

    #[test]
    fn impossible_shapes_are_refused() {
        assert_eq!(
            element_count(&[2, -1]),
            Err(ShapeError::Negative {
                index: 1,
                value: -1
            })
        );
        assert_eq!(element_count(&[1; 9]), Err(ShapeError::Rank { rank: 9 }));
        assert_eq!(element_count(&[i64::MAX, 2]), Err(ShapeError::Overflow));
        assert_eq!(
            DataType::Fp64.byte_size(&[i64::MAX / 4]),
            Err(ShapeError::Overflow)
        );
    }

    proptest! {
        #[test]
        fn size_is_the_exact_product_or_an_error(dims in prop::collection::vec(any::<i64>(), 0..10)) {
            let exact = dims.iter().try_fold(1u128, |acc, &d| u128::try_from(d).ok().map(|d| acc.saturating_mul(d)));
            match (element_count(&dims), exact) {
                (Ok(count), Some(product)) => prop_assert_eq!(u128::from(count), product),
                (Ok(_), None) => prop_assert!(false, "a negative dimension was accepted"),
                (Err(_), _) => {}
            }
        }
    }
}
