//! Strings as tensors carry them: for each element its length as a little-endian `u32`, then its
//! bytes.

use std::ffi::{CStr, c_char, c_void};

use crate::call::{Out, array, call};
use crate::error::AdjoinError;
use crate::failure::Failure;
use crate::status::AdjoinStatus;

/// Bytes of an element's length.
const LENGTH_BYTES: usize = size_of::<u32>();

/// Writes to `byte_size` how many bytes `count` strings take in a tensor of ADJOIN_DTYPE_BYTES.
///
/// `lengths` may be NULL if all strings are NUL-terminated; otherwise it holds the bytes of each,
/// which may be any then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_bytes_size(
    strings: *const *const c_char,
    lengths: *const usize,
    count: usize,
    byte_size: *mut usize,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let body = || {
        // SAFETY: a place of the caller's.
        let out = unsafe { Out::new(byte_size, "byte_size", 0) }?;
        // SAFETY: arrays of the caller's.
        out.set(packed_size(&unsafe { elements(strings, lengths, count) }?)?);
        Ok(())
    };
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}

/// Writes `count` strings to the `byte_size` bytes at `data`, as a tensor of ADJOIN_DTYPE_BYTES
/// holds them. They have to fill them exactly, see adjoin_bytes_size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_bytes_pack(
    strings: *const *const c_char,
    lengths: *const usize,
    count: usize,
    data: *mut c_void,
    byte_size: usize,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let body = || {
        // SAFETY: arrays of the caller's.
        let elements = unsafe { elements(strings, lengths, count) }?;
        let needed = packed_size(&elements)?;
        if needed != byte_size {
            return Err(Failure::new(
                AdjoinStatus::ByteSizeMismatch,
                format!("the strings take {needed} bytes, and there are {byte_size}"),
            ));
        }
        if byte_size > 0 && data.is_null() {
            return Err(Failure::null("data"));
        }
        let mut to = data.cast::<u8>();
        for element in elements {
            let length = u32::try_from(element.len())
                .unwrap_or(u32::MAX)
                .to_le_bytes();
            for part in [&length, element] {
                // SAFETY: all parts together have `byte_size` bytes, checked above, and so many are at
                // `data` by the caller's word. They are no part of the strings.
                unsafe { to.copy_from_nonoverlapping(part.as_ptr(), part.len()) };
                // SAFETY: as above.
                to = unsafe { to.add(part.len()) };
            }
        }
        Ok(())
    };
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}

/// Finds the `count` strings in the `byte_size` bytes of a tensor of ADJOIN_DTYPE_BYTES. Writes the
/// address of each to `strings`, and its bytes to `lengths`: they are not NUL-terminated. They are
/// there for as long as the tensor's bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_bytes_unpack(
    data: *const c_void,
    byte_size: usize,
    count: usize,
    strings: *mut *const c_char,
    lengths: *mut usize,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let body = || {
        // SAFETY: bytes of the caller's.
        let mut rest = unsafe { array(data.cast::<u8>(), byte_size, "data") }?;
        if count > 0 && (strings.is_null() || lengths.is_null()) {
            return Err(Failure::null("strings or lengths"));
        }
        for index in 0..count {
            let (element, behind) =
                split(rest).ok_or_else(|| malformed(index, count, byte_size))?;
            // SAFETY: `index` is less than `count`, and so many are there by the caller's word.
            let string = unsafe { strings.add(index) };
            // SAFETY: as above.
            unsafe { string.write(element.as_ptr().cast()) };
            // SAFETY: as above.
            let length = unsafe { lengths.add(index) };
            // SAFETY: as above.
            unsafe { length.write(element.len()) };
            rest = behind;
        }
        if rest.is_empty() {
            return Ok(());
        }
        Err(Failure::new(
            AdjoinStatus::BytesMalformed,
            format!(
                "{} of {byte_size} bytes are left behind {count} strings",
                rest.len()
            ),
        ))
    };
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

fn malformed(index: usize, count: usize, byte_size: usize) -> Failure {
    let message =
        format!("string {index} of {count} reaches past the {byte_size} bytes of the tensor");
    Failure::new(AdjoinStatus::BytesMalformed, message)
}

fn packed_size(elements: &[&[u8]]) -> Result<usize, Failure> {
    let mut total = 0usize;
    for (index, element) in elements.iter().enumerate() {
        let length = element.len();
        let sum = total
            .checked_add(LENGTH_BYTES)
            .and_then(|sum| sum.checked_add(length));
        total = sum
            .filter(|_| u32::try_from(length).is_ok())
            .ok_or_else(|| {
                Failure::argument(format!(
                    "string {index} has {length} bytes, which is too many"
                ))
            })?;
    }
    Ok(total)
}

/// # Safety
/// As the header says of arrays and text.
unsafe fn elements<'a>(
    strings: *const *const c_char,
    lengths: *const usize,
    count: usize,
) -> Result<Vec<&'a [u8]>, Failure> {
    // SAFETY: the caller's word.
    let strings = unsafe { array(strings, count, "strings") }?;
    let lengths = if lengths.is_null() {
        None
    } else {
        // SAFETY: the caller's word.
        Some(unsafe { array(lengths, count, "lengths") }?)
    };
    let mut elements = Vec::with_capacity(count);
    for (index, &string) in strings.iter().enumerate() {
        let name = format!("string {index}");
        elements.push(match lengths {
            // SAFETY: so many bytes are there by the caller's word.
            Some(lengths) => unsafe { array(string.cast::<u8>(), lengths[index], &name) }?,
            None if string.is_null() => return Err(Failure::null(&name)),
            // SAFETY: not NULL, and NUL-terminated by the caller's word.
            None => unsafe { CStr::from_ptr(string) }.to_bytes(),
        });
    }
    Ok(elements)
}
