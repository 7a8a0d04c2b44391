//! `adjoin.Request`: inputs as arrays in shared memory, run in place.

use std::sync::Arc;

use adjoin_client::DataType;
use numpy::prelude::*;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyTuple};

use crate::core::Core;
use crate::fault;
use crate::future::Future;
use crate::options::{self, RunOptions};
use crate::plan::Names;
use crate::result::Result;
use crate::{array, quick, strings};

/// A request whose inputs are arrays in memory shared with the server. Made by `Model.request`.
///
/// ``request["x"]`` is a writable `numpy.ndarray` over the input; ``request["x"][:] = values`` is the only
/// write. It holds what was last written. Arrays stay valid when the request moves to another session, or
/// is gone. While the request is with the server they must not be written: that garbles its own answer.
///
/// ``request["x"] = values`` copies an array of exactly the right type, shape and order, and is the way to
/// write inputs of strings.
#[pyclass(frozen, mapping, module = "adjoin")]
#[derive(Debug)]
pub(crate) struct Request {
    core: Arc<Core>,
    names: Arc<Names>,
}

impl Request {
    pub(crate) fn new(py: Python<'_>, core: Arc<Core>, names: &Arc<Names>) -> PyResult<Self> {
        let texts = core.with_plan(|plan| {
            let texts = plan.inputs.iter().enumerate();
            let texts = texts.filter(|(_, input)| input.dtype == DataType::Bytes);
            texts
                .map(|(index, input)| (index, input.string_bytes))
                .collect::<Vec<_>>()
        })?;
        for (index, bytes) in texts {
            // Lengths of empty strings.
            let bytes = usize::try_from(bytes.unwrap_or(0)).unwrap_or(0);
            core.set_texts(py, index, &vec![0; bytes])?;
        }
        Ok(Self {
            core,
            names: Arc::clone(names),
        })
    }

    fn index(&self, name: &Bound<'_, PyAny>) -> PyResult<usize> {
        if let Some(index) = self.names.index(name)? {
            return Ok(index);
        }
        let message = format!(
            "the request has no input {}, only {}",
            name.repr()?,
            self.names.text(name.py())
        );
        Err(fault::raise("TensorNotFound", message))
    }

    fn is_text(&self, index: usize) -> PyResult<bool> {
        Ok(self
            .core
            .with_plan(|plan| plan.inputs[index].dtype == DataType::Bytes)?)
    }
}

#[pymethods]
impl Request {
    fn __getitem__<'py>(&self, name: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = name.py();
        let index = self.index(name)?;
        if self.is_text(index)? {
            return self.core.texts(py, index);
        }
        self.core.input(py, index).map(Bound::into_any)
    }

    fn __setitem__(&self, name: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = name.py();
        let index = self.index(name)?;
        let (model, shape) = self
            .core
            .with_plan(|plan| (plan.model.clone(), plan.inputs[index].shape.clone()))?;
        let spec = &model.info().inputs[index];
        if spec.dtype == DataType::Bytes {
            let texts = strings::encode(&spec.name, value)?;
            check_shape(&spec.name, &texts.shape, &shape)?;
            return self.core.set_texts(py, index, &texts.bytes);
        }
        let from = quick::as_array(spec, value)?;
        check_shape(&spec.name, &array::shape_of(&from), &shape)?;
        if !from.is_c_contiguous() {
            let name = &spec.name;
            let message = format!(
                "the array for input {name:?} is not contiguous; write it with request[{name:?}][:] = array, or make it so with numpy.ascontiguousarray"
            );
            return Err(fault::raise("NotContiguous", message));
        }
        array::assign(&self.core.input(py, index)?, &from)
    }

    /// Names of the inputs in the model's order.
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.names.iter(py))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.keys(py)?.try_iter()
    }

    fn __len__(&self) -> usize {
        self.names.len()
    }

    fn __contains__(&self, name: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.names.index(name)?.is_some())
    }

    /// Runs the request and waits for its outputs.
    ///
    /// Parameters
    /// ----------
    /// timeout : float, optional
    ///     Seconds to wait for the answer. Also the deadline, unless another one is given. The request can be
    ///     used again at once.
    /// deadline : float, optional
    ///     Seconds from now after which the server does not begin to run the request any more.
    /// priority : int
    ///     Level in the model's queue; 1 is the most urgent, 0 the model's default.
    ///
    /// Returns
    /// -------
    /// Result
    ///     Outputs where the server wrote them. A ``with`` block releases them at its end.
    ///
    /// Raises
    /// ------
    /// DeadlineExceeded, QueueFull, ServerUnavailable, ExecutionFailed, and others of `adjoin.errors`
    #[pyo3(signature = (*, timeout=None, deadline=None, priority=0))]
    fn infer(
        &self,
        py: Python<'_>,
        timeout: Option<f64>,
        deadline: Option<f64>,
        #[pyo3(from_py_with = options::priority)] priority: u16,
    ) -> PyResult<Result> {
        let options = RunOptions::new(timeout, deadline, priority)?;
        Ok(Result::new(self.core.infer(py, &options)?))
    }

    /// Submits the request and does not wait. Its inputs must not be written before the future is done.
    ///
    /// Returns
    /// -------
    /// Future
    ///     Of a `Result`. Dropping the future cancels the request.
    #[pyo3(signature = (*, deadline=None, priority=0))]
    fn submit(
        &self,
        py: Python<'_>,
        deadline: Option<f64>,
        #[pyo3(from_py_with = options::priority)] priority: u16,
    ) -> PyResult<Future> {
        let options = RunOptions::new(None, deadline, priority)?;
        let flight = self.core.start(py, &options)?;
        self.core.leave(flight);
        Ok(Future::of_result(&self.core, options))
    }

    /// Runs the request, for ``await``. Its inputs must not be written meanwhile.
    ///
    /// Returns
    /// -------
    /// awaitable of Result
    #[pyo3(signature = (*, timeout=None, deadline=None, priority=0))]
    fn infer_async<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
        deadline: Option<f64>,
        #[pyo3(from_py_with = options::priority)] priority: u16,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = RunOptions::new(timeout, deadline, priority)?;
        let flight = self.core.start(py, &options)?;
        self.core.leave(flight);
        Future::of_result(&self.core, options).finish_async(py, timeout)
    }

    /// Gives its memory back, except what arrays still show. It cannot be used any more.
    fn close(&self) {
        self.core.close();
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, PyTuple>) {
        self.close();
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let model = self.core.with_plan(|plan| plan.model.name().to_owned())?;
        Ok(format!(
            "<adjoin.Request of model {model:?} with inputs {}>",
            self.names.text(py)
        ))
    }
}

fn check_shape(name: &str, given: &[i64], expected: &[i64]) -> PyResult<()> {
    if given == expected {
        return Ok(());
    }
    let message =
        format!("input {name:?} has shape {given:?}; the request was made for {expected:?}");
    Err(fault::raise("ShapeMismatch", message))
}
