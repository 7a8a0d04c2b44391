//! The edge to numpy: arrays over memory that is not numpy's, and the bytes of arrays.
#![allow(
    unsafe_code,
    reason = "makes arrays of addresses, and reads and writes what arrays point to"
)]

use std::ffi::c_int;
use std::ptr::NonNull;

use adjoin_client::OutputPlace;
use numpy::npyffi::{
    NPY_ARRAY_C_CONTIGUOUS, NPY_ARRAY_WRITEABLE, PY_ARRAY_API, PyArrayObject, npy_intp,
};
use numpy::prelude::*;
use numpy::{PyArrayDescr, PyUntypedArray};
use pyo3::prelude::*;
use pyo3::types::PyType;
use smallvec::SmallVec;

use crate::fault;
use crate::plan::Dims;

type Strides = SmallVec<[npy_intp; 8]>;

/// Memory that an array is to show.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// First byte, aligned for the data type.
    pub(crate) start: NonNull<u8>,
    pub(crate) shape: &'a [i64],
    /// Bytes from one element to the next, per dimension; `None` where the elements lie side by side.
    pub(crate) strides: Option<&'a [npy_intp]>,
    pub(crate) is_writable: bool,
}

/// An array over a place.
///
/// # Safety
/// The place holds the elements of `shape`, aligned, for as long as `owner` lives, and whoever writes there is
/// ordered with its readers by the rules that the user of the array is told.
pub(crate) unsafe fn view<'py>(
    place: &Place<'_>,
    class: &Bound<'py, PyType>,
    descr: &Bound<'py, PyArrayDescr>,
    owner: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let py = class.py();
    let mut dims = dims(place.shape);
    let mut strides: Option<Strides> = place.strides.map(Strides::from_slice);
    let strides = strides
        .as_mut()
        .map_or(std::ptr::null_mut(), |strides| strides.as_mut_ptr());
    let contiguous = if place.strides.is_none() {
        NPY_ARRAY_C_CONTIGUOUS
    } else {
        0
    };
    let writable = if place.is_writable {
        NPY_ARRAY_WRITEABLE
    } else {
        0
    };
    // SAFETY:
    // - `dims` and `strides` have `len` elements, or are null;
    // - the call takes over one reference to the description, and the data is valid as the caller says.
    let array = unsafe {
        PY_ARRAY_API.PyArray_NewFromDescr(
            py,
            class.as_type_ptr(),
            descr.clone().into_dtype_ptr(),
            rank(&dims),
            dims.as_mut_ptr(),
            strides,
            place.start.as_ptr().cast(),
            contiguous | writable,
            std::ptr::null_mut(),
        )
    };
    // SAFETY: the call gives a new reference, or null with an exception set.
    let array = unsafe { Bound::from_owned_ptr_or_err(py, array) }?;
    // SAFETY: it is an array, as it was just made.
    let array: Bound<'py, PyUntypedArray> = unsafe { array.cast_into_unchecked() };
    // SAFETY: the array has no base yet; the call takes over the reference to the owner.
    let outcome =
        unsafe { PY_ARRAY_API.PyArray_SetBaseObject(py, array.as_array_ptr(), owner.into_ptr()) };
    if outcome == 0 {
        Ok(array)
    } else {
        Err(PyErr::fetch(py))
    }
}

/// A fresh array with the bytes of an output.
///
/// # Safety
/// The response that the place is of is not released before the end of the call.
pub(crate) unsafe fn copy_of<'py>(
    py: Python<'py>,
    descr: &Bound<'py, PyArrayDescr>,
    shape: &[i64],
    from: &OutputPlace,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let array = empty(py, descr, shape)?;
    let len = byte_size(&array);
    assert!(
        from.byte_size() == len as u64,
        "the client checks shapes against bytes"
    );
    let ends = Unshared((from.as_ptr(), data(&array).as_ptr()));
    large(py, len, ends, move |Unshared((from, to))| {
        // SAFETY: the array is fresh, so nothing else points there; both have `len` bytes, and what is read stays as
        // it is, as the caller says.
        unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
    });
    Ok(array)
}

/// A fresh array whose elements are to be written.
pub(crate) fn empty<'py>(
    py: Python<'py>,
    descr: &Bound<'py, PyArrayDescr>,
    shape: &[i64],
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let mut dims = dims(shape);
    // SAFETY: `dims` has `len` elements; the call takes over one reference to the description.
    let array = unsafe {
        PY_ARRAY_API.PyArray_Empty(
            py,
            rank(&dims),
            dims.as_mut_ptr(),
            descr.clone().into_dtype_ptr(),
            0,
        )
    };
    // SAFETY: the call gives a new reference, or null with an exception set.
    let array = unsafe { Bound::from_owned_ptr_or_err(py, array) }?;
    // SAFETY: it is an array, as it was just made.
    Ok(unsafe { array.cast_into_unchecked() })
}

/// Copies the elements of an array, whatever its strides, to `bytes`; refused where there are not as many any more
/// as when `bytes` were made: any code of the program's may have run since.
pub(crate) fn copy_into(array: &Bound<'_, PyUntypedArray>, bytes: &mut [u8]) -> PyResult<()> {
    let py = array.py();
    if byte_size(array) != bytes.len() {
        let message = format!(
            "an array was resized while its request was made: it has {} bytes now, {} are expected",
            byte_size(array),
            bytes.len()
        );
        return Err(fault::raise("ShapeMismatch", message));
    }
    if array.is_c_contiguous() {
        let ends = Unshared((data(array).as_ptr(), bytes.as_mut_ptr()));
        let len = bytes.len();
        large(py, len, ends, move |Unshared((from, to))| {
            // SAFETY: the array is alive, contiguous and of that size, and a thread that writes it meanwhile garbles the
            // copy; the destination is borrowed exclusively; `copy` allows that they overlap.
            unsafe { std::ptr::copy(from, to, len) };
        });
        return Ok(());
    }
    let place = Place {
        start: NonNull::from(bytes).cast(),
        shape: &shape_of(array),
        strides: None,
        is_writable: true,
    };
    let class = py.get_type::<PyUntypedArray>();
    // SAFETY: the place is valid as long as the borrow, and the array is gone before that ends.
    let to = unsafe { view(&place, &class, &array.dtype(), py.None().into_bound(py)) }?;
    assign(&to, array)
}

/// Copies the elements of one array to another one of the same shape and type.
pub(crate) fn assign(
    to: &Bound<'_, PyUntypedArray>,
    from: &Bound<'_, PyUntypedArray>,
) -> PyResult<()> {
    let py = to.py();
    // SAFETY: both are arrays; numpy checks the rest.
    let outcome =
        unsafe { PY_ARRAY_API.PyArray_CopyInto(py, to.as_array_ptr(), from.as_array_ptr()) };
    if outcome == 0 {
        Ok(())
    } else {
        Err(PyErr::fetch(py))
    }
}

/// Dimensions as the client takes them.
pub(crate) fn shape_of(array: &Bound<'_, PyUntypedArray>) -> Dims {
    let dims = array.shape().iter();
    dims.map(|&dim| i64::try_from(dim).unwrap_or(i64::MAX))
        .collect()
}

/// Address of the first element.
pub(crate) fn data(array: &Bound<'_, PyUntypedArray>) -> NonNull<u8> {
    let raw: *mut PyArrayObject = array.as_array_ptr();
    // SAFETY: the array is alive.
    let data = unsafe { (*raw).fields.data };
    NonNull::new(data.cast()).unwrap_or(NonNull::dangling())
}

/// Bytes of all elements.
pub(crate) fn byte_size(array: &Bound<'_, PyUntypedArray>) -> usize {
    array.len() * array.dtype().itemsize()
}

/// What the array shows: another array, the owner of its memory, or nothing.
pub(crate) fn base<'py>(array: &Bound<'py, PyUntypedArray>) -> Option<Bound<'py, PyAny>> {
    let raw: *mut PyArrayObject = array.as_array_ptr();
    // SAFETY: the array is alive.
    let base = unsafe { (*raw).fields.base };
    // SAFETY: the base is alive as long as the array; this takes a reference of its own.
    unsafe { Bound::from_borrowed_ptr_or_opt(array.py(), base) }
}

/// How many references there are to an array.
pub(crate) fn references(py: Python<'_>, array: &Py<PyUntypedArray>) -> isize {
    // SAFETY: the array is alive, and the interpreter is held, so nobody changes the count.
    unsafe { pyo3::ffi::Py_REFCNT(array.bind(py).as_ptr()) }
}

/// An address that another thread state may use.
struct Unshared<T>(T);
// SAFETY: the address is used by the calling thread alone, which only lets go of the interpreter meanwhile.
unsafe impl<T> Send for Unshared<T> {}

/// Bytes from which on a copy takes so long that other threads of the interpreter may run meanwhile.
const LARGE: usize = 1 << 20;

fn large<T: Copy>(
    py: Python<'_>,
    byte_size: usize,
    address: Unshared<T>,
    copy: impl FnOnce(Unshared<T>) + Send,
) {
    if byte_size < LARGE {
        copy(address);
    } else {
        py.detach(move || copy(address));
    }
}

fn dims(shape: &[i64]) -> Strides {
    shape
        .iter()
        .map(|&dim| npy_intp::try_from(dim).unwrap_or(npy_intp::MAX))
        .collect()
}

fn rank(dims: &Strides) -> c_int {
    // At most 8, as the protocol says.
    c_int::try_from(dims.len()).unwrap_or(c_int::MAX)
}
