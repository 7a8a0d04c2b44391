//! Outputs of one run, kept for everybody who may still read them.
#![allow(unsafe_code, reason = "arrays over outputs, and copies of them")]

use std::sync::Arc;

use adjoin_client::{DataType, Lease, OutputPlace};
use numpy::PyUntypedArray;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::array::{self, Place};
use crate::fault::Fault;
use crate::plan::{Dims, Names};
use crate::{dtype, strings};

/// A place for responses of one request. Shared by the request, the results that were given out, and each
/// array over an output.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    lease: Option<Lease>,
    /// The lease's, when names and arrays were made.
    layout_id: u64,
    names: Option<Arc<Names>>,
    /// Arrays that were given out, to be given out again.
    arrays: Vec<Option<Py<PyUntypedArray>>>,
    /// Whether a request has it, and will break the circle of array and hold.
    is_kept: bool,
}

/// What an array over an output has as its base: keeps the bytes.
#[pyclass(frozen, module = "adjoin._adjoin")]
#[derive(Debug)]
pub(crate) struct OutputOwner {
    pub(crate) hold: Arc<Hold>,
    pub(crate) index: usize,
}

/// An output without its elements.
#[derive(Debug)]
struct Found {
    place: OutputPlace,
    dtype: DataType,
    shape: Dims,
}

impl Hold {
    /// One that a request has.
    pub(crate) fn kept() -> Arc<Self> {
        let hold = Self::default();
        hold.inner.lock().is_kept = true;
        Arc::new(hold)
    }

    /// Puts the outputs of a run in.
    pub(crate) fn fill(&self, py: Python<'_>, lease: Lease) {
        let layout_id = lease.outputs().layout_id();
        let is_same = self.inner.lock().layout_id == layout_id;
        let names = (!is_same).then(|| {
            let outputs = lease.outputs();
            Arc::new(Names::new(py, outputs.iter().map(|output| output.name)))
        });
        let mut inner = self.inner.lock();
        inner.lease = Some(lease);
        inner.layout_id = layout_id;
        let stale = names.map(|names| {
            let arrays = (0..names.len()).map(|_| None).collect();
            inner.names = Some(names);
            std::mem::replace(&mut inner.arrays, arrays)
        });
        drop(inner);
        // Dropped without the lock: arrays have shares of this.
        drop(stale);
    }

    /// Takes the lease out, for the next run to use its place.
    pub(crate) fn take_lease(&self) -> Option<Lease> {
        self.inner.lock().lease.take()
    }

    /// Whether there is a lease.
    pub(crate) fn has_lease(&self) -> bool {
        self.inner.lock().lease.is_some()
    }

    /// Whether nobody but the request that has it can read the outputs.
    pub(crate) fn is_free(self: &Arc<Self>, py: Python<'_>) -> bool {
        let inner = self.inner.lock();
        let arrays = inner.arrays.iter().flatten();
        let mut count = 0;
        for array in arrays {
            if array::references(py, array) > 1 {
                return false;
            }
            count += 1;
        }
        // One share of the request's, and one of each array's.
        Arc::strong_count(self) <= count + 1
    }

    /// No request has it any more: whoever has a share keeps it, and the last one releases.
    pub(crate) fn let_go(&self) {
        let mut inner = self.inner.lock();
        inner.is_kept = false;
        let arrays = std::mem::take(&mut inner.arrays);
        drop(inner);
        drop(arrays);
    }

    /// Reads the lease.
    pub(crate) fn with_lease<T>(&self, read: impl FnOnce(&Lease) -> T) -> Result<T, Fault> {
        let inner = self.inner.lock();
        inner.lease.as_ref().map(read).ok_or(Fault::Released)
    }

    /// Names of the outputs.
    pub(crate) fn names(&self) -> Result<Arc<Names>, Fault> {
        self.inner.lock().names.clone().ok_or(Fault::Released)
    }

    /// An output as a read-only array, in place; the texts of one of strings as objects of their own.
    pub(crate) fn array<'py>(
        self: &Arc<Self>,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let found = self.lookup(index)?;
        if let Some(array) = self.cached(py, index) {
            return Ok(array.into_any());
        }
        if found.dtype == DataType::Bytes {
            return self.texts(py, index, &found.shape);
        }
        let array = self.view(py, index, &found)?;
        let mut inner = self.inner.lock();
        if inner.is_kept
            && let Some(cell) = inner.arrays.get_mut(index).filter(|cell| cell.is_none())
        {
            *cell = Some(array.clone().unbind());
        }
        Ok(array.into_any())
    }

    /// An output as an array that owns its data.
    pub(crate) fn copied<'py>(
        self: &Arc<Self>,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let found = self.lookup(index)?;
        if found.dtype == DataType::Bytes {
            return self.texts(py, index, &found.shape);
        }
        let descr = dtype::descr(py, found.dtype)?;
        // SAFETY: the place lives until the end of this call, and so does the lease that keeps its bytes: it is only
        // taken out when nobody but the request has a share, and the caller has one or is the request.
        let array = unsafe { array::copy_of(py, descr, &found.shape, &found.place) }?;
        Ok(array.into_any())
    }

    /// Where an output is, and its type.
    pub(crate) fn place(&self, index: usize) -> Result<(OutputPlace, DataType), Fault> {
        let found = self.lookup(index)?;
        Ok((found.place, found.dtype))
    }

    /// An output, looked up without making anything of Python's: that may run any code, and must not with the
    /// lock held.
    fn lookup(&self, index: usize) -> Result<Found, Fault> {
        self.with_lease(|lease| {
            let outputs = lease.outputs();
            let place = outputs.place_at(index)?;
            let info = outputs.output_at(index).ok_or(Fault::Released)?;
            Ok(Found {
                place,
                dtype: info.dtype,
                shape: Dims::from_slice(info.shape),
            })
        })?
    }

    /// The array that was given out before.
    fn cached<'py>(&self, py: Python<'py>, index: usize) -> Option<Bound<'py, PyUntypedArray>> {
        let inner = self.inner.lock();
        let array = inner.arrays.get(index)?.as_ref()?;
        Some(array.bind(py).clone())
    }

    fn texts<'py>(
        &self,
        py: Python<'py>,
        index: usize,
        shape: &[i64],
    ) -> PyResult<Bound<'py, PyAny>> {
        let bytes = self.with_lease(|lease| lease.outputs().bytes_at(index).map(<[u8]>::to_vec))?;
        let bytes = bytes.map_err(Fault::from)?;
        strings::decode(py, shape, &bytes)
    }

    fn view<'py>(
        self: &Arc<Self>,
        py: Python<'py>,
        index: usize,
        found: &Found,
    ) -> PyResult<Bound<'py, PyUntypedArray>> {
        let descr = dtype::descr(py, found.dtype)?;
        let owner = OutputOwner {
            hold: Arc::clone(self),
            index,
        };
        let owner = Bound::new(py, owner)?.into_any();
        let place = Place {
            start: std::ptr::NonNull::new(found.place.as_ptr().cast_mut())
                .unwrap_or(std::ptr::NonNull::dangling()),
            shape: &found.shape,
            strides: None,
            is_writable: false,
        };
        // SAFETY: the descriptor was checked to have as many bytes as type and shape make; the owner's share keeps
        // the response from being released, and the server does not write it before that.
        unsafe { array::view(&place, output_class(py)?, descr, owner) }
    }
}

/// The subclass of `numpy.ndarray` that outputs are of.
fn output_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "adjoin._arrays", "OutputArray")
}
