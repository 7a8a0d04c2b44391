//! Arrays from and to other libraries by DLPack: <https://dmlc.github.io/dlpack/latest/>.
//!
//! numpy exports nothing that is read-only to libraries that speak an early DLPack, and some that speak a
//! late one write all the same. So outputs are exported here, as pages of their own that become private
//! where they are written: see `OutputPlace::writable`. Data types that numpy does not import, such as
//! bfloat16, are imported here.
#![allow(unsafe_code, reason = "DLPack passes addresses")]

use std::ffi::{CStr, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use adjoin_client::{DataType, WritablePart};
use numpy::prelude::*;
use numpy::{PyArrayDescr, PyUntypedArray};
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};
use smallvec::SmallVec;

use crate::array::{self, Place};
use crate::hold::{Hold, OutputOwner};
use crate::plan::Dims;
use crate::{dtype, fault};

const EARLY: &CStr = c"dltensor";
const EARLY_USED: &CStr = c"used_dltensor";
const LATE: &CStr = c"dltensor_versioned";
const LATE_USED: &CStr = c"used_dltensor_versioned";
/// What is exported to those who ask for a version.
const VERSION: Version = Version { major: 1, minor: 0 };
const READ_ONLY: u64 = 1;
const CPU: i32 = 1;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Version {
    major: u32,
    minor: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Device {
    kind: i32,
    id: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ElementType {
    code: u8,
    bits: u8,
    lanes: u16,
}

#[repr(C)]
#[derive(Debug)]
struct Tensor {
    data: *mut c_void,
    device: Device,
    ndim: i32,
    dtype: ElementType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

#[repr(C)]
#[derive(Debug)]
struct EarlyTensor {
    tensor: Tensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Self)>,
}

#[repr(C)]
#[derive(Debug)]
struct LateTensor {
    version: Version,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Self)>,
    flags: u64,
    tensor: Tensor,
}

/// What an exported tensor keeps, until its importer calls the deleter, on whatever thread.
#[derive(Debug)]
struct Export {
    early: Option<EarlyTensor>,
    late: Option<LateTensor>,
    shape: Dims,
    strides: Dims,
    part: WritablePart,
    #[expect(dead_code, reason = "held for its outputs")]
    hold: Arc<Hold>,
}

/// Exports an array over an output, or over a part of one; None if it is neither. For `adjoin._arrays` alone.
#[pyfunction]
pub(crate) fn export_dlpack<'py>(
    array: &Bound<'py, PyUntypedArray>,
    is_versioned: bool,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Some(owner) = owner(array) else {
        return Ok(None);
    };
    let OutputOwner { hold, index } = owner.get();
    let (place, dtype) = hold.place(*index)?;
    let itemsize = isize::try_from(array.dtype().itemsize())
        .unwrap_or(1)
        .max(1);
    let whole = array.strides().iter().all(|stride| stride % itemsize == 0);
    if !whole || !array.dtype().is_equiv_to(dtype::descr(array.py(), dtype)?) {
        return Err(PyBufferError::new_err(
            "only elements of an output can be exported, not parts of them",
        ));
    }
    let part = place.writable().map_err(|error| fault::of_tensor(&error))?;
    let offset = array::data(array).as_ptr() as usize - place.as_ptr() as usize;
    let strides = array
        .strides()
        .iter()
        .map(|stride| (stride / itemsize) as i64);
    let export = Box::new(Export {
        early: None,
        late: None,
        shape: array::shape_of(array),
        strides: strides.collect(),
        part,
        hold: Arc::clone(hold),
    });
    export
        .into_capsule(array.py(), offset, element_type(dtype), is_versioned)
        .map(Some)
}

/// The owner of the output that an array shows.
fn owner<'py>(array: &Bound<'py, PyUntypedArray>) -> Option<Bound<'py, OutputOwner>> {
    let mut base = array::base(array)?;
    loop {
        base = match base.cast_into::<OutputOwner>() {
            Ok(owner) => return Some(owner),
            Err(error) => array::base(error.into_inner().cast::<PyUntypedArray>().ok()?)?,
        };
    }
}

impl Export {
    fn into_capsule(
        mut self: Box<Self>,
        py: Python<'_>,
        offset: usize,
        dtype: ElementType,
        is_versioned: bool,
    ) -> PyResult<Bound<'_, PyAny>> {
        let tensor = Tensor {
            data: self.part.start().as_ptr().wrapping_add(offset).cast(),
            device: Device { kind: CPU, id: 0 },
            ndim: i32::try_from(self.shape.len()).unwrap_or(i32::MAX),
            dtype,
            shape: self.shape.as_mut_ptr(),
            strides: self.strides.as_mut_ptr(),
            byte_offset: 0,
        };
        let this = NonNull::from(Box::leak(self));
        let context = this.as_ptr().cast();
        // SAFETY: the box was leaked just now, and nobody else has its address.
        let export = unsafe { &mut *this.as_ptr() };
        let (address, name): (*mut c_void, &CStr) = if is_versioned {
            let late = export.late.insert(LateTensor {
                version: VERSION,
                context,
                deleter: Some(delete_late),
                flags: READ_ONLY,
                tensor,
            });
            ((&raw mut *late).cast(), LATE)
        } else {
            let early = export.early.insert(EarlyTensor {
                tensor,
                context,
                deleter: Some(delete_early),
            });
            ((&raw mut *early).cast(), EARLY)
        };
        // SAFETY: the name is static, and the address that of a tensor which lives until its deleter is called.
        let capsule = unsafe { ffi::PyCapsule_New(address, name.as_ptr(), Some(drop_unused)) };
        if capsule.is_null() {
            drop_export(context);
        }
        // SAFETY: the call gives a new reference, or null with an exception set.
        unsafe { Bound::from_owned_ptr_or_err(py, capsule) }
    }
}

fn drop_export(context: *mut c_void) {
    // SAFETY: the context of a tensor is the box that `into_capsule` leaked, and it is dropped once: by the
    // deleter, which is called once.
    drop(unsafe { Box::from_raw(context.cast::<Export>()) });
}

unsafe extern "C" fn delete_early(tensor: *mut EarlyTensor) {
    // SAFETY: the importer passes the tensor that it got, which is alive until this call.
    drop_export(unsafe { (*tensor).context });
}

unsafe extern "C" fn delete_late(tensor: *mut LateTensor) {
    // SAFETY: as in `delete_early`.
    drop_export(unsafe { (*tensor).context });
}

/// The capsule's destructor: a tensor that nobody took is deleted here.
unsafe extern "C" fn drop_unused(capsule: *mut ffi::PyObject) {
    if let Some(early) = pointer::<EarlyTensor>(capsule, EARLY) {
        // SAFETY: the tensor is that of `into_capsule`, and nobody took it over.
        unsafe { delete_early(early.as_ptr()) };
    }
    if let Some(late) = pointer::<LateTensor>(capsule, LATE) {
        // SAFETY: as above.
        unsafe { delete_late(late.as_ptr()) };
    }
}

/// What is in a capsule of that name; `None` if it has another name.
fn pointer<T>(capsule: *mut ffi::PyObject, name: &CStr) -> Option<NonNull<T>> {
    // SAFETY: the capsule is alive; the call looks at nothing but its type and name.
    if unsafe { ffi::PyCapsule_IsValid(capsule, name.as_ptr()) } == 0 {
        return None;
    }
    // SAFETY: it is a capsule of that name, as was just seen.
    let address = unsafe { ffi::PyCapsule_GetPointer(capsule, name.as_ptr()) };
    NonNull::new(address.cast())
}

/// What an array over an imported tensor has as its base.
#[pyclass(frozen, module = "adjoin._adjoin")]
#[derive(Debug)]
struct ImportOwner {
    #[expect(dead_code, reason = "held for the tensor")]
    import: Import,
}

/// A tensor that was taken over, to be deleted once.
#[derive(Debug)]
enum Import {
    Early(NonNull<EarlyTensor>),
    Late(NonNull<LateTensor>),
}

// SAFETY: DLPack lets a tensor be deleted on any thread, and nothing else is done with the address.
unsafe impl Send for Import {}
// SAFETY: as for Send; there is no access through a shared reference.
unsafe impl Sync for Import {}

impl Import {
    fn tensor(&self) -> NonNull<Tensor> {
        match self {
            // SAFETY: the tensor is alive until it is deleted on drop.
            Self::Early(early) => NonNull::from(unsafe { &(*early.as_ptr()).tensor }),
            // SAFETY: as above.
            Self::Late(late) => NonNull::from(unsafe { &(*late.as_ptr()).tensor }),
        }
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        match self {
            Self::Early(early) => {
                // SAFETY: alive, and this is its one owner.
                if let Some(delete) = unsafe { early.as_ref() }.deleter {
                    // SAFETY: called once, with the tensor that it is of.
                    unsafe { delete(early.as_ptr()) };
                }
            }
            Self::Late(late) => {
                // SAFETY: alive, and this is its one owner.
                if let Some(delete) = unsafe { late.as_ref() }.deleter {
                    // SAFETY: called once, with the tensor that it is of.
                    unsafe { delete(late.as_ptr()) };
                }
            }
        }
    }
}

/// An array over a tensor of another library, on the CPU.
pub(crate) fn import<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    let py = value.py();
    let (kind, _id): (i32, i32) = value.call_method0("__dlpack_device__")?.extract()?;
    if kind != CPU {
        let message = format!("the tensor is on DLPack device {kind}; copy it to the CPU first");
        return Err(fault::raise("InvalidRequest", message));
    }
    let import = take_over(&capsule_of(value)?)?;
    // SAFETY: the tensor is alive as long as `import`, and nobody writes its description.
    let tensor = unsafe { import.tensor().as_ref() };
    let rank = usize::try_from(tensor.ndim).unwrap_or(0);
    let descr = descr_of(py, tensor.dtype)?;
    let shape = numbers(tensor.shape, rank);
    let itemsize = descr.itemsize();
    let strides = (!tensor.strides.is_null()).then(|| {
        let strides = numbers(tensor.strides, rank).into_iter();
        strides
            .map(|stride| byte_stride(stride, itemsize))
            .collect::<SmallVec<[isize; 8]>>()
    });
    let offset = usize::try_from(tensor.byte_offset).unwrap_or(0);
    let start = tensor.data.cast::<u8>().wrapping_add(offset);
    let place = Place {
        start: NonNull::new(start).unwrap_or(NonNull::dangling()),
        shape: &shape,
        strides: strides.as_deref(),
        is_writable: false,
    };
    let owner = Bound::new(py, ImportOwner { import })?.into_any();
    let class = py.get_type::<PyUntypedArray>();
    // SAFETY: the exporter vouches for shape, strides and type, and keeps the data until the tensor is deleted.
    unsafe { array::view(&place, &class, &descr, owner) }
}

/// The tensor's capsule, by the late protocol where the library speaks it.
fn capsule_of<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    let kwargs = PyDict::new(py);
    kwargs.set_item("max_version", (VERSION.major, VERSION.minor))?;
    match value.call_method("__dlpack__", (), Some(&kwargs)) {
        Err(error) if error.is_instance_of::<PyTypeError>(py) => value.call_method0("__dlpack__"),
        outcome => outcome,
    }
}

fn take_over(capsule: &Bound<'_, PyAny>) -> PyResult<Import> {
    let raw = capsule.as_ptr();
    let (import, used) = if let Some(late) = pointer::<LateTensor>(raw, LATE) {
        // SAFETY: alive, as the capsule still has the name of one that was not taken over.
        let version = unsafe { late.as_ref() }.version;
        if version.major != VERSION.major {
            let message = format!(
                "the tensor is of DLPack {}.{}; this reads 1",
                version.major, version.minor
            );
            return Err(PyBufferError::new_err(message));
        }
        (Import::Late(late), LATE_USED)
    } else if let Some(early) = pointer::<EarlyTensor>(raw, EARLY) {
        (Import::Early(early), EARLY_USED)
    } else {
        let kind = capsule.get_type().qualname()?;
        return Err(PyBufferError::new_err(format!(
            "__dlpack__ gave a {kind} that is no tensor's"
        )));
    };
    debug_assert!(capsule.is_instance_of::<PyCapsule>());
    // SAFETY: it is a capsule, and the name is static; from here on its destructor leaves the tensor alone.
    unsafe { ffi::PyCapsule_SetName(raw, used.as_ptr()) };
    Ok(import)
}

fn byte_stride(stride: i64, itemsize: usize) -> isize {
    let stride = isize::try_from(stride).unwrap_or(0);
    stride * isize::try_from(itemsize).unwrap_or(0)
}

/// Dimensions or strides.
fn numbers(start: *const i64, count: usize) -> Dims {
    if count == 0 {
        return Dims::new();
    }
    // SAFETY: the protocol says that there is one for each dimension.
    Dims::from_slice(unsafe { std::slice::from_raw_parts(start, count) })
}

fn element_type(dtype: DataType) -> ElementType {
    const INT: u8 = 0;
    const UINT: u8 = 1;
    const FLOAT: u8 = 2;
    const BFLOAT: u8 = 4;
    const BOOL: u8 = 6;
    let (code, bits) = match dtype {
        DataType::Int8 => (INT, 8),
        DataType::Int16 => (INT, 16),
        DataType::Int32 => (INT, 32),
        DataType::Int64 => (INT, 64),
        DataType::Uint8 | DataType::Bytes => (UINT, 8),
        DataType::Uint16 => (UINT, 16),
        DataType::Uint32 => (UINT, 32),
        DataType::Uint64 => (UINT, 64),
        DataType::Fp16 => (FLOAT, 16),
        DataType::Fp32 => (FLOAT, 32),
        DataType::Fp64 => (FLOAT, 64),
        DataType::Bf16 => (BFLOAT, 16),
        DataType::Bool => (BOOL, 8),
    };
    ElementType {
        code,
        bits,
        lanes: 1,
    }
}

fn descr_of(py: Python<'_>, wanted: ElementType) -> PyResult<Bound<'_, PyArrayDescr>> {
    let mut all = DataType::ALL
        .into_iter()
        .filter(|dtype| *dtype != DataType::Bytes);
    match all.find(|dtype| element_type(*dtype) == wanted) {
        Some(found) => dtype::descr(py, found).cloned(),
        None => {
            let ElementType { code, bits, lanes } = wanted;
            let message = format!(
                "the tensor has elements of DLPack type {code} with {bits} bits and {lanes} lanes, which no model takes"
            );
            Err(fault::raise("DataTypeMismatch", message))
        }
    }
}
