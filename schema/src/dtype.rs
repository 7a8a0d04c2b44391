//! Data types of tensors: wire numbers, element sizes, the names that the field uses for them.

use std::fmt;

use crate::generated::adjoin::wire;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names say it all")]
pub enum DataType {
    Bool = 1,
    Uint8 = 2,
    Uint16 = 3,
    Uint32 = 4,
    Uint64 = 5,
    Int8 = 6,
    Int16 = 7,
    Int32 = 8,
    Int64 = 9,
    Fp16 = 10,
    Bf16 = 11,
    Fp32 = 12,
    Fp64 = 13,
    /// Strings: a sequence of (u32 little-endian length, bytes), one per element.
    Bytes = 14,
}

impl DataType {
    /// All data types in the order of their wire numbers.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    /// Bytes of one element; `None` for [`DataType::Bytes`], whose elements differ in length.
    pub const fn element_bytes(self) -> Option<u64> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// The name that the Open Inference Protocol uses, such as `FP32`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }

    /// The data type of that name in the Open Inference Protocol, or `None`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The data type with that wire number, or `None`.
    pub fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| *dtype as u8 == number)
    }

    pub(crate) fn to_flatbuffer(self) -> wire::DataType {
        wire::DataType(self as u8)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back_to_the_same_type() {
        for dtype in DataType::ALL {
            assert_eq!(DataType::from_wire(dtype as u8), Some(dtype));
            assert_eq!(DataType::from_name(dtype.name()), Some(dtype));
            assert_eq!(
                dtype.to_flatbuffer().variant_name().map(str::to_uppercase),
                Some(dtype.name().to_owned())
            );
        }
        assert_eq!(DataType::from_wire(0), None);
        assert_eq!(DataType::from_wire(15), None);
        assert_eq!(DataType::from_name("FLOAT"), None);
    }
}
