//! Data types of tensors, with the numbers that travel.

use std::ffi::{CStr, c_char};

use adjoin_client::DataType;

use crate::failure::Failure;
use crate::status::AdjoinStatus;

/// The type of a tensor's elements. The numbers are those that travel; they keep their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AdjoinDtype {
    /// In an argument: whatever the tensor has. Tensors themselves always have one of the others.
    Any = 0,
    /// One byte, 0 or 1.
    Bool = 1,
    /// uint8_t
    Uint8 = 2,
    /// uint16_t
    Uint16 = 3,
    /// uint32_t
    Uint32 = 4,
    /// uint64_t
    Uint64 = 5,
    /// int8_t
    Int8 = 6,
    /// int16_t
    Int16 = 7,
    /// int32_t
    Int32 = 8,
    /// int64_t
    Int64 = 9,
    /// IEEE 754 half, 2 bytes.
    Fp16 = 10,
    /// The upper half of a float, 2 bytes.
    Bf16 = 11,
    /// float
    Fp32 = 12,
    /// double
    Fp64 = 13,
    /// Strings: for each element its length as a little-endian uint32_t, then its bytes. See
    /// adjoin_bytes_pack.
    Bytes = 14,
}

/// What C hands over where the header says `adjoin_dtype`: any number.
/// cbindgen:no-export
pub type RawDtype = u32;

const NAMES: &[(AdjoinDtype, DataType, &CStr)] = &[
    (AdjoinDtype::Bool, DataType::Bool, c"BOOL"),
    (AdjoinDtype::Uint8, DataType::Uint8, c"UINT8"),
    (AdjoinDtype::Uint16, DataType::Uint16, c"UINT16"),
    (AdjoinDtype::Uint32, DataType::Uint32, c"UINT32"),
    (AdjoinDtype::Uint64, DataType::Uint64, c"UINT64"),
    (AdjoinDtype::Int8, DataType::Int8, c"INT8"),
    (AdjoinDtype::Int16, DataType::Int16, c"INT16"),
    (AdjoinDtype::Int32, DataType::Int32, c"INT32"),
    (AdjoinDtype::Int64, DataType::Int64, c"INT64"),
    (AdjoinDtype::Fp16, DataType::Fp16, c"FP16"),
    (AdjoinDtype::Bf16, DataType::Bf16, c"BF16"),
    (AdjoinDtype::Fp32, DataType::Fp32, c"FP32"),
    (AdjoinDtype::Fp64, DataType::Fp64, c"FP64"),
    (AdjoinDtype::Bytes, DataType::Bytes, c"BYTES"),
];

/// The name of a data type in the Open Inference Protocol, such as "FP32"; "unknown" for a number
/// that is none, and for ADJOIN_DTYPE_ANY. The text is there for as long as the library is.
#[unsafe(no_mangle)]
pub extern "C" fn adjoin_dtype_name(dtype: RawDtype) -> *const c_char {
    find(dtype).map_or(c"unknown", |entry| entry.2).as_ptr()
}

/// Bytes of one element; 0 for ADJOIN_DTYPE_BYTES, whose elements differ in length, and for a
/// number that is none.
#[unsafe(no_mangle)]
pub extern "C" fn adjoin_dtype_size(dtype: RawDtype) -> usize {
    let byte_size = find(dtype).and_then(|entry| entry.1.element_bytes());
    byte_size.map_or(0, |byte_size| usize::try_from(byte_size).unwrap_or(0))
}

fn find(number: RawDtype) -> Option<&'static (AdjoinDtype, DataType, &'static CStr)> {
    NAMES.iter().find(|entry| entry.0 as u32 == number)
}

/// Whether a tensor has the data type that a caller goes by.
pub(crate) fn check(name: &str, actual: DataType, wanted: RawDtype) -> Result<(), Failure> {
    if wanted == AdjoinDtype::Any as u32 {
        return Ok(());
    }
    match find(wanted) {
        Some((_, wanted, _)) if *wanted == actual => Ok(()),
        Some((_, wanted, _)) => Err(Failure::new(
            AdjoinStatus::DataTypeMismatch,
            format!("tensor {name:?} has data type {actual}, and {wanted} was asked for"),
        )),
        None => Err(Failure::argument(format!("{wanted} is no data type"))),
    }
}

impl From<DataType> for AdjoinDtype {
    fn from(dtype: DataType) -> Self {
        let entry = NAMES.iter().find(|entry| entry.1 == dtype);
        entry.expect("a test goes through all of them").0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_data_type_has_its_number_and_name() {
        for dtype in DataType::ALL {
            let ours = AdjoinDtype::from(dtype);
            assert_eq!(ours as u32, dtype as u32);
            assert_eq!(find(ours as u32).unwrap().2.to_str(), Ok(dtype.name()));
        }
        assert_eq!(NAMES.len(), DataType::ALL.len());
    }
}
