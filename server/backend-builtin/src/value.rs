//! Tensors of the instance's own: inputs as private bytes, results as numbers.

use adjoin_schema::DataType;
use half::f16;

/// An input, copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tensor<'a> {
    pub(crate) dtype: DataType,
    pub(crate) shape: &'a [i64],
    pub(crate) bytes: &'a [u8],
}

impl Tensor<'_> {
    /// Rows: the first dimension. Shapes were checked, so it is there and not negative.
    pub(crate) fn rows(&self) -> usize {
        let first = self.shape.first().copied().unwrap_or(0);
        usize::try_from(first).unwrap_or(0)
    }

    /// Elements of a row.
    pub(crate) fn row_len(&self) -> usize {
        let rest = self.shape.iter().skip(1);
        rest.map(|&size| usize::try_from(size).unwrap_or(0))
            .product()
    }

    /// The elements as numbers of 32 bits; without those of types that are not FP32 or FP16.
    pub(crate) fn numbers(&self) -> Vec<f32> {
        match self.dtype {
            DataType::Fp32 => {
                let elements = self.bytes.as_chunks().0;
                elements.iter().copied().map(f32::from_le_bytes).collect()
            }
            DataType::Fp16 => {
                let elements = self.bytes.as_chunks().0.iter().copied();
                elements.map(|e| f16::from_le_bytes(e).to_f32()).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// A result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Value {
    pub(crate) shape: Vec<i64>,
    pub(crate) elements: Elements,
}

/// Elements of a result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Elements {
    Float(Vec<f32>),
    #[cfg_attr(not(feature = "image"), allow(dead_code, reason = "pixels only"))]
    Half(Vec<f16>),
    Int64(Vec<i64>),
    /// UINT8, or strings with their lengths.
    Bytes(Vec<u8>),
}

impl Elements {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Float(values) => bytemuck::cast_slice(values),
            Self::Half(values) => bytemuck::cast_slice(values),
            Self::Int64(values) => bytemuck::cast_slice(values),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// A size as the wire has it.
pub(crate) fn dimension(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
