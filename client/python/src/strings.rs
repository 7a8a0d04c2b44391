//! Tensors of strings: arrays of `bytes` and `str` objects, or of numpy's fixed-width kinds, to and from
//! their form on the wire: for each element its length as a little-endian `u32`, then its bytes.

use numpy::{PyArrayDescr, PyUntypedArray};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyMemoryView, PyString, PyTuple};

use crate::fault;
use crate::plan::Dims;

/// Most dimensions of a tensor.
const RANK_MAX: usize = 8;

/// A tensor of strings in its form on the wire.
#[derive(Debug)]
pub(crate) struct Texts {
    pub(crate) shape: Dims,
    pub(crate) bytes: Vec<u8>,
}

/// Bytes of `count` empty strings.
pub(crate) fn empty_bytes(shape: &[i64]) -> u64 {
    let count = shape.iter().fold(1u64, |count, &dim| {
        count.saturating_mul(dim.max(0).unsigned_abs())
    });
    count.saturating_mul(4)
}

/// What a caller gives for an input of strings.
pub(crate) fn encode(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Texts> {
    let py = value.py();
    let numpy = py.import("numpy")?;
    // `asarray` alone would make fixed-width text of a list, and cut trailing zeros of its bytes.
    if let Some(kind) = first_bytes_like(value)? {
        return Err(no_text(name, &kind));
    }
    let array = if value.cast::<PyUntypedArray>().is_ok() {
        value.clone()
    } else {
        numpy.call_method1("asarray", (value, PyArrayDescr::new(py, "object")?))?
    };
    let array = array.cast_into::<PyUntypedArray>()?;
    let flat = array
        .call_method0("ravel")?
        .call_method0("tolist")?
        .cast_into::<PyList>()?;
    let mut bytes = Vec::with_capacity(flat.len() * 16);
    for element in flat.iter() {
        append(name, &element, &mut bytes)?;
    }
    Ok(Texts {
        shape: crate::array::shape_of(&array),
        bytes,
    })
}

/// The type of a list's first element where numpy would take that for a sequence of integers.
fn first_bytes_like<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyString>>> {
    let mut value = value.clone();
    for _ in 0..RANK_MAX {
        let is_nested = value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>();
        if !is_nested || value.is_empty()? {
            break;
        }
        value = value.get_item(0)?;
        if value.is_instance_of::<PyByteArray>() || value.is_instance_of::<PyMemoryView>() {
            return value.get_type().qualname().map(Some);
        }
    }
    Ok(None)
}

fn no_text(name: &str, kind: &Bound<'_, PyString>) -> PyErr {
    let message = format!(
        "input {name:?} has an element of type {kind}; the model takes str or bytes (BYTES)"
    );
    fault::raise("DataTypeMismatch", message)
}

fn append(name: &str, element: &Bound<'_, PyAny>, bytes: &mut Vec<u8>) -> PyResult<()> {
    let encoded = if let Ok(text) = element.cast::<PyString>() {
        text.encode_utf8()?
    } else if let Ok(raw) = element.cast::<PyBytes>() {
        raw.clone()
    } else {
        return Err(no_text(name, &element.get_type().qualname()?));
    };
    let encoded = encoded.as_bytes();
    let Ok(len) = u32::try_from(encoded.len()) else {
        let message = format!(
            "input {name:?} has an element of {} bytes; the most is 4294967295",
            encoded.len()
        );
        return Err(fault::raise("InvalidRequest", message));
    };
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(encoded);
    Ok(())
}

/// An array of `bytes` objects.
pub(crate) fn decode<'py>(
    py: Python<'py>,
    shape: &[i64],
    mut bytes: &[u8],
) -> PyResult<Bound<'py, PyAny>> {
    let elements = PyList::empty(py);
    while let Some((len, rest)) = bytes.split_first_chunk::<4>() {
        let len = u32::from_le_bytes(*len) as usize;
        let Some((text, rest)) = rest.split_at_checked(len) else {
            break;
        };
        elements.append(PyBytes::new(py, text))?;
        bytes = rest;
    }
    let numpy = py.import("numpy")?;
    let array = numpy.call_method1("empty", (elements.len(), "object"))?;
    array.set_item(pyo3::types::PySlice::full(py), elements)?;
    // Fails where the elements are not as many as the shape says, which the server checks.
    array.call_method1("reshape", (PyTuple::new(py, shape)?,))
}
