//! `adjoin.Result`: outputs as arrays in shared memory.

use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyList, PyTuple};

use crate::fault::{self, Fault};
use crate::hold::Hold;
use crate::quick;

/// Outputs of one run, where the server wrote them.
///
/// ``result["y"]`` is a read-only array over the output, without a copy. A ``with`` block, or `release`, gives the
/// place back; after that look-ups raise `Released`. An array that is still there then stays valid: it
/// keeps its place, and the next run of the request gets another one.
#[pyclass(frozen, mapping, module = "adjoin")]
#[derive(Debug)]
pub(crate) struct Result {
    hold: Mutex<Option<Arc<Hold>>>,
}

/// How a request ran.
#[pyclass(frozen, eq, get_all, module = "adjoin")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stats {
    /// Rows of the batch that it ran in.
    batch_size: u32,
    /// Seconds from the server's intake to the start of the batch.
    queue: f64,
    /// Seconds of the batch in the engine.
    execute: f64,
    /// Version of the model that ran.
    model_version: u64,
    /// Whether the server copied the outputs once, because their size was not known before.
    is_output_copied: bool,
}

impl Result {
    pub(crate) fn new(hold: Arc<Hold>) -> Self {
        Self {
            hold: Mutex::new(Some(hold)),
        }
    }

    fn hold(&self) -> std::result::Result<Arc<Hold>, Fault> {
        self.hold.lock().clone().ok_or(Fault::Released)
    }
}

#[pymethods]
impl Result {
    fn __getitem__<'py>(&self, name: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let hold = self.hold()?;
        let names = hold.names()?;
        match names.index(name)? {
            Some(index) => hold.array(name.py(), index),
            None => {
                let message = format!(
                    "the result has no output {}, only {}",
                    name.repr()?,
                    names.text(name.py())
                );
                Err(fault::raise("TensorNotFound", message))
            }
        }
    }

    /// Names of the outputs.
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.hold()?.names()?.iter(py))
    }

    /// The outputs as read-only arrays, in place.
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let hold = self.hold()?;
        let arrays = (0..hold.names()?.len()).map(|index| hold.array(py, index));
        PyList::new(py, arrays.collect::<PyResult<Vec<_>>>()?)
    }

    /// Names and outputs.
    fn items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let hold = self.hold()?;
        let names = hold.names()?;
        let pairs = names.iter(py).enumerate().map(|(index, name)| {
            let array = hold.array(py, index)?;
            PyTuple::new(py, [name.as_any(), &array])
        });
        PyList::new(py, pairs.collect::<PyResult<Vec<_>>>()?)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.keys(py)?.try_iter()
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.hold()?.names()?.len())
    }

    fn __contains__(&self, name: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.hold()?.names()?.index(name)?.is_some())
    }

    /// All outputs as arrays that own their data.
    ///
    /// Returns
    /// -------
    /// dict of str to numpy.ndarray
    fn copy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        quick::collect(py, &self.hold()?)
    }

    /// How the request ran.
    #[getter]
    fn stats(&self) -> PyResult<Stats> {
        let stats = self.hold()?.with_lease(|lease| lease.outputs().stats())?;
        Ok(Stats {
            batch_size: stats.batch_size,
            queue: stats.queue.as_secs_f64(),
            execute: stats.execute.as_secs_f64(),
            model_version: stats.model_version,
            is_output_copied: stats.is_output_copied,
        })
    }

    /// Whether `release` was called.
    #[getter]
    fn released(&self) -> bool {
        self.hold.lock().is_none()
    }

    /// Gives the outputs' place back as soon as no array shows it.
    fn release(&self) {
        let hold = self.hold.lock().take();
        drop(hold);
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, PyTuple>) {
        self.release();
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(match self.hold() {
            Ok(hold) => format!("<adjoin.Result with outputs {}>", hold.names()?.text(py)),
            Err(_) => "<adjoin.Result, released>".to_owned(),
        })
    }
}

#[pymethods]
impl Stats {
    fn __repr__(&self) -> String {
        format!(
            "Stats(batch_size={}, queue={:e}, execute={:e}, model_version={}, is_output_copied={})",
            self.batch_size,
            self.queue,
            self.execute,
            self.model_version,
            if self.is_output_copied {
                "True"
            } else {
                "False"
            }
        )
    }
}
