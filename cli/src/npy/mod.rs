//! Arrays in numpy's `.npy` files, as tensors of adjoin.
//!
//! The element bytes go through as they are, so this reads what a tensor can be laid over: little-endian
//! numbers in C order. numpy has no bfloat16; where a package adds it, its arrays are saved as `V2`, and so
//! read and written here. Strings (`S`, `U`) become the elements of a BYTES tensor.

mod header;

use std::io::{self, Read, Write};

use adjoin_schema::DataType;
use thiserror::Error;

use header::Header;

/// An array in memory, in the form of a tensor's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Array {
    pub(crate) dtype: DataType,
    pub(crate) shape: Vec<i64>,
    pub(crate) bytes: Vec<u8>,
}

/// Why a file is no array, or none that can be used.
#[derive(Debug, Error)]
pub(crate) enum NpyError {
    #[error("it is no .npy file; numpy.save makes one")]
    NotNpy,
    #[error("its header is damaged: {0}")]
    Header(String),
    #[error("it is in Fortran order; save numpy.ascontiguousarray(array)")]
    FortranOrder,
    #[error("its elements are big-endian ({0}); save array.astype(array.dtype.newbyteorder('<'))")]
    BigEndian(String),
    #[error(
        "it holds Python objects; save an array of numbers, or of strings as array.astype('S')"
    )]
    Objects,
    #[error(
        "elements of type {0} are no tensor's; save array.astype(TYPE) of a type that the model takes"
    )]
    DataType(String),
    #[error("it ends after {got} of {wanted} bytes of data")]
    Truncated { wanted: u64, got: u64 },
    #[error("it goes on after the {wanted} bytes that its shape makes")]
    TooLong { wanted: u64 },
    #[error("its shape makes more bytes than can be addressed")]
    TooLarge,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// How the elements lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Elements {
    /// As in the tensor.
    Plain(DataType),
    /// Strings of so many bytes, filled up with zeros.
    ByteStrings(usize),
    /// Strings of so many characters of four bytes, filled up with zeros.
    Characters(usize),
}

/// Reads one array.
pub(crate) fn read(file: &mut impl Read) -> Result<Array, NpyError> {
    let header = Header::read(file)?;
    let elements = elements(&header.descr)?;
    let rank = header.shape.iter().filter(|&&size| size != 1).count();
    if header.is_fortran_order && rank > 1 {
        return Err(NpyError::FortranOrder);
    }
    let element_bytes = match elements {
        Elements::Plain(dtype) => dtype.element_bytes().unwrap_or(1),
        Elements::ByteStrings(size) => size as u64,
        Elements::Characters(count) => 4 * count as u64,
    };
    let sizes = header
        .shape
        .iter()
        .try_fold(element_bytes, |bytes, &size| bytes.checked_mul(size));
    let wanted = sizes
        .filter(|&bytes| i64::try_from(bytes).is_ok())
        .ok_or(NpyError::TooLarge)?;
    let mut bytes = Vec::new();
    // The header is not to be trusted with the size of an allocation.
    file.take(wanted + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        got if got < wanted => return Err(NpyError::Truncated { wanted, got }),
        got if got > wanted => return Err(NpyError::TooLong { wanted }),
        _ => {}
    }
    let shape: Result<Vec<i64>, _> = header
        .shape
        .iter()
        .map(|&size| i64::try_from(size))
        .collect();
    let count = header.shape.iter().product::<u64>();
    let (dtype, bytes) = match elements {
        Elements::Plain(dtype) => (dtype, bytes),
        Elements::ByteStrings(size) => (DataType::Bytes, byte_strings(&bytes, size, count)),
        Elements::Characters(size) => (DataType::Bytes, characters(&bytes, size, count)?),
    };
    Ok(Array {
        dtype,
        shape: shape.map_err(|_| NpyError::TooLarge)?,
        bytes,
    })
}

/// Writes one array. `bytes` is a tensor's payload.
pub(crate) fn write(
    file: &mut impl Write,
    dtype: DataType,
    shape: &[i64],
    bytes: &[u8],
) -> io::Result<()> {
    if dtype != DataType::Bytes {
        header::write(file, descr(dtype), shape)?;
        return file.write_all(bytes);
    }
    let strings = split_strings(bytes)
        .ok_or_else(|| io::Error::other("the strings of the tensor are damaged"))?;
    // numpy has no strings of no bytes.
    let longest = strings
        .iter()
        .map(|string| string.len())
        .max()
        .unwrap_or(0)
        .max(1);
    header::write(file, &format!("|S{longest}"), shape)?;
    for string in strings {
        file.write_all(string)?;
        file.write_all(&vec![0; longest - string.len()])?;
    }
    Ok(())
}

fn elements(descr: &str) -> Result<Elements, NpyError> {
    let unknown = || NpyError::DataType(descr.to_owned());
    let mut rest = descr.chars();
    let (Some(order), Some(kind)) = (rest.next(), rest.next()) else {
        return Err(unknown());
    };
    if kind == 'O' {
        return Err(NpyError::Objects);
    }
    let size: usize = rest.as_str().parse().map_err(|_| unknown())?;
    if order == '>' && size > 1 {
        return Err(NpyError::BigEndian(descr.to_owned()));
    }
    Ok(match (kind, size) {
        ('S' | 'a', size) => Elements::ByteStrings(size),
        ('U', size) => Elements::Characters(size),
        _ => {
            let is_same = |dtype: &DataType| descr_kind(*dtype) == Some((kind, size));
            let dtype = DataType::ALL
                .into_iter()
                .find(is_same)
                .ok_or_else(unknown)?;
            Elements::Plain(dtype)
        }
    })
}

/// numpy's letter for a data type, and the size of an element.
fn descr_kind(dtype: DataType) -> Option<(char, usize)> {
    let size = usize::try_from(dtype.element_bytes()?).ok()?;
    let kind = match dtype {
        DataType::Bool => 'b',
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 | DataType::Uint64 => 'u',
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => 'i',
        DataType::Fp16 | DataType::Fp32 | DataType::Fp64 => 'f',
        DataType::Bf16 => 'V',
        DataType::Bytes => return None,
    };
    Some((kind, size))
}

fn descr(dtype: DataType) -> &'static str {
    match dtype {
        DataType::Bool => "|b1",
        DataType::Uint8 => "|u1",
        DataType::Uint16 => "<u2",
        DataType::Uint32 => "<u4",
        DataType::Uint64 => "<u8",
        DataType::Int8 => "|i1",
        DataType::Int16 => "<i2",
        DataType::Int32 => "<i4",
        DataType::Int64 => "<i8",
        DataType::Fp16 => "<f2",
        DataType::Bf16 => "<V2",
        DataType::Fp32 => "<f4",
        DataType::Fp64 => "<f8",
        DataType::Bytes => "|S1",
    }
}

/// Puts a string as an element of a BYTES tensor.
fn push_string(payload: &mut Vec<u8>, string: &[u8]) {
    let size = u32::try_from(string.len()).unwrap_or(u32::MAX);
    payload.extend_from_slice(&size.to_le_bytes());
    payload.extend_from_slice(string);
}

fn byte_strings(bytes: &[u8], size: usize, count: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    for index in 0..usize::try_from(count).unwrap_or(0) {
        let cell = &bytes[index * size..(index + 1) * size];
        let end = cell
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |last| last + 1);
        push_string(&mut payload, &cell[..end]);
    }
    payload
}

fn characters(bytes: &[u8], size: usize, count: u64) -> Result<Vec<u8>, NpyError> {
    let mut payload = Vec::new();
    for index in 0..usize::try_from(count).unwrap_or(0) {
        let cell = &bytes[4 * index * size..4 * (index + 1) * size];
        let mut text = String::new();
        for word in cell.chunks_exact(4) {
            let code = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            let character = char::from_u32(code);
            text.push(
                character.ok_or_else(|| NpyError::Header(format!("{code} is no character")))?,
            );
        }
        push_string(&mut payload, text.trim_end_matches('\0').as_bytes());
    }
    Ok(payload)
}

fn split_strings(mut payload: &[u8]) -> Option<Vec<&[u8]>> {
    let mut strings = Vec::new();
    while !payload.is_empty() {
        let (size, rest) = payload.split_first_chunk::<4>()?;
        let (string, rest) = rest.split_at_checked(u32::from_le_bytes(*size) as usize)?;
        strings.push(string);
        payload = rest;
    }
    Some(strings)
}

#[cfg(test)]
mod tests;
