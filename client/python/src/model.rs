//! `adjoin.Model`: what the server says about a model, and the ways to run it.

use std::collections::HashMap;
use std::sync::Arc;

use adjoin_client::DataType;
use numpy::PyArrayDescr;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::connection::Connection;
use crate::core::Core;
use crate::device::DeviceArray;
use crate::dtype;
use crate::fault::Fault;
use crate::future::Future;
use crate::options::{self, Patience, RunOptions};
use crate::plan::{Names, Plan};
use crate::pool::Pool;
use crate::quick::{self, Arguments};
use crate::request::Request;
use crate::shapes::{self, Shapes};

/// An input or output of a model.
#[pyclass(frozen, module = "adjoin", eq)]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorSpec {
    inner: adjoin_client::TensorSpec,
}

/// A model of the server, as it was described when it was asked for. Made by `Client.model`.
#[pyclass(frozen, module = "adjoin")]
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) inner: adjoin_client::Model,
    pub(crate) connection: Arc<Connection>,
    /// Names of the inputs.
    pub(crate) names: Arc<Names>,
    pub(crate) pool: Arc<Pool>,
}

impl Model {
    pub(crate) fn new(
        py: Python<'_>,
        inner: adjoin_client::Model,
        connection: &Arc<Connection>,
    ) -> PyResult<Self> {
        let names = inner.info().inputs.iter().map(|spec| spec.name.as_str());
        let names = Arc::new(Names::new(py, names));
        let pool = Arc::new(Pool::default());
        connection.enter_pool(&pool);
        Ok(Self {
            inner,
            connection: Arc::clone(connection),
            names,
            pool,
        })
    }

    /// Whether an input is of strings.
    pub(crate) fn has_texts(&self) -> bool {
        self.inner
            .info()
            .inputs
            .iter()
            .any(|spec| spec.dtype == DataType::Bytes)
    }

    /// Keeps a request for the next call, where it can be used again.
    pub(crate) fn give(&self, core: Arc<Core>) {
        if !self.has_texts() {
            self.pool.give(core);
        }
    }

    fn start<'py>(
        &self,
        py: Python<'py>,
        arguments: &Arguments<'py>,
        options: RunOptions,
        patience: Patience,
    ) -> Result<Future, Fault> {
        let core = arguments.request(py, self, &options, patience)?;
        let flight = quick::with_room(py, self, patience, || core.start(py, &options))?;
        core.leave(flight);
        let pool = (!self.has_texts()).then(|| Arc::clone(&self.pool));
        Ok(Future::of_values(core, pool, options))
    }

    fn specs<'py>(
        py: Python<'py>,
        specs: &[adjoin_client::TensorSpec],
    ) -> PyResult<Bound<'py, PyTuple>> {
        let specs = specs.iter().map(|spec| TensorSpec {
            inner: spec.clone(),
        });
        let specs = specs.map(|spec| Bound::new(py, spec));
        PyTuple::new(py, specs.collect::<PyResult<Vec<_>>>()?)
    }
}

#[pymethods]
impl Model {
    /// Name of the model.
    #[getter]
    fn name(&self) -> &str {
        self.inner.name()
    }

    /// Version that was described.
    #[getter]
    fn version(&self) -> u64 {
        self.inner.info().version
    }

    /// All versions that were ready, ascending.
    #[getter]
    fn versions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.inner.info().ready_versions)
    }

    /// Whether the version that was described was ready.
    #[getter]
    fn ready(&self) -> bool {
        let info = self.inner.info();
        info.ready_versions.contains(&info.version)
    }

    /// Engine that runs the model, such as "onnxruntime".
    #[getter]
    fn engine(&self) -> &str {
        &self.inner.info().engine
    }

    /// Most rows of one execution; 0 if requests are never batched.
    #[getter]
    fn max_batch_size(&self) -> u32 {
        self.inner.info().max_batch_size
    }

    /// Inputs in the model's order.
    #[getter]
    fn inputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        Self::specs(py, &self.inner.info().inputs)
    }

    /// Outputs in the model's order.
    #[getter]
    fn outputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        Self::specs(py, &self.inner.info().outputs)
    }

    /// Makes a request, whose inputs are arrays in memory shared with the server.
    ///
    /// A request is to be kept and run again and again: after its first run the server knows it, and
    /// neither side parses, copies or allocates anything for it any more.
    ///
    /// Parameters
    /// ----------
    /// batch : int, optional
    ///     Size of the first dimension of each input where the model leaves it open. Default 1.
    /// shapes : mapping of str to sequence of int, optional
    ///     Whole shapes of inputs, by name.
    /// outputs : sequence of str, optional
    ///     Names of the outputs that are wanted. Default: all.
    /// on_device : mapping of str to DeviceArray, optional
    ///     Inputs that lie on a device, and outputs that go there, by name. An input has the shape of its array; an output
    ///     may be smaller than its own. Neither is an array of the request or its result.
    /// **dimensions : int
    ///     Sizes of open dimensions by the name that the model gives them, such as ``sequence=128``.
    ///
    /// Raises
    /// ------
    /// ShapeMismatch
    ///     A dimension is open and no size was given, or the model does not take that shape.
    /// BatchTooLarge
    ///     More rows than the model runs at once.
    /// TensorNotFound
    ///     A name that is none of the model's.
    /// RequestRegionFull
    ///     The session has no room for the inputs: see ``request_bytes`` of `adjoin.connect`.
    #[pyo3(signature = (batch=None, *, shapes=None, outputs=None, on_device=None, **dimensions))]
    fn request(
        &self,
        py: Python<'_>,
        batch: Option<i64>,
        shapes: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = options::names)] outputs: Option<Vec<String>>,
        on_device: Option<HashMap<String, DeviceArray>>,
        dimensions: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Request> {
        let on_device = on_device.unwrap_or_default();
        let all_shapes = shapes::with_arrays(py, &self.inner, shapes, &on_device)?;
        let shapes: Shapes<'_, '_> = Shapes {
            model: self,
            batch,
            given: all_shapes.as_ref().or(shapes),
            dimensions,
        };
        let mut plan = Plan {
            model: self.inner.clone(),
            inputs: shapes.inputs()?,
            outputs: outputs.unwrap_or_default(),
            rooms: Vec::new(),
            may_prepare: true,
        };
        plan.put_on_device(on_device)?;
        let make = || Core::new(py, &self.connection, plan.clone(), None);
        let core = quick::with_room(py, self, Patience::Endless, make)?;
        Request::new(py, core, &self.names)
    }

    /// Runs the model once: copies arrays in, waits, and gives arrays that own their data. The short form is a
    /// call, ``model(image=images)``.
    ///
    /// Parameters
    /// ----------
    /// inputs : mapping of str to array, optional
    ///     Inputs by name, for names that are no identifiers or those of parameters here.
    /// timeout : float, optional
    ///     Seconds to wait for the answer. Also the deadline, unless another one is given.
    /// deadline : float, optional
    ///     Seconds from now after which the server does not begin to run the request any more.
    /// priority : int
    ///     Level in the model's queue; 1 is the most urgent, 0 the model's default.
    /// outputs : sequence of str, optional
    ///     Names of the outputs that are wanted. Default: all.
    /// **named : array
    ///     Inputs by name: anything with ``__dlpack__`` on the CPU, numpy's arrays of any strides, lists and
    ///     numbers. Arrays must have the model's data type; nothing is converted in silence. Lists and
    ///     numbers take it, where it holds their values.
    ///
    /// Returns
    /// -------
    /// dict of str to numpy.ndarray
    ///
    /// Raises
    /// ------
    /// ShapeMismatch, DataTypeMismatch, TensorNotFound, BatchTooLarge
    ///     The inputs are not those of the model.
    /// DeadlineExceeded, QueueFull, ServerUnavailable, ExecutionFailed, and others of `adjoin.errors`
    #[pyo3(signature = (inputs=None, /, *, timeout=None, deadline=None, priority=0, outputs=None, **named))]
    #[expect(
        clippy::too_many_arguments,
        reason = "they have names where this is called"
    )]
    fn infer<'py>(
        &self,
        py: Python<'py>,
        inputs: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
        deadline: Option<f64>,
        #[pyo3(from_py_with = options::priority)] priority: u16,
        #[pyo3(from_py_with = options::names)] outputs: Option<Vec<String>>,
        named: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let options = RunOptions::new(timeout, deadline, priority)?;
        let arguments = Arguments::new(py, self, inputs, named, outputs)?;
        quick::infer(py, self, &arguments, &options)
    }

    /// As `infer`.
    #[pyo3(signature = (inputs=None, /, *, timeout=None, deadline=None, priority=0, outputs=None, **named))]
    #[expect(
        clippy::too_many_arguments,
        reason = "they have names where this is called"
    )]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        inputs: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
        deadline: Option<f64>,
        #[pyo3(from_py_with = options::priority)] priority: u16,
        #[pyo3(from_py_with = options::names)] outputs: Option<Vec<String>>,
        named: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.infer(py, inputs, timeout, deadline, priority, outputs, named)
    }

    /// Submits a run and does not wait for its answer. Where the session has no place for another request, it
    /// waits for one of the earlier ones, until the deadline if there is one.
    ///
    /// Parameters are those of `infer`, without ``timeout``.
    ///
    /// Returns
    /// -------
    /// Future
    ///     Of a dict as `infer` gives it. Dropping the future cancels the request.
    #[pyo3(signature = (inputs=None, /, *, deadline=None, priority=0, outputs=None, **named))]
    fn submit<'py>(
        &self,
        py: Python<'py>,
        inputs: Option<&Bound<'py, PyAny>>,
        deadline: Option<f64>,
        #[pyo3(from_py_with = options::priority)] priority: u16,
        #[pyo3(from_py_with = options::names)] outputs: Option<Vec<String>>,
        named: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Future> {
        let options = RunOptions::new(None, deadline, priority)?;
        let arguments = Arguments::new(py, self, inputs, named, outputs)?;
        Ok(self.start(py, &arguments, options, options.patience)?)
    }

    /// Runs the model once, for ``await``. No thread is taken: the event loop watches a descriptor.
    ///
    /// The run is submitted by the call itself, which also raises what is wrong with the arguments.
    ///
    /// Parameters are those of `infer`.
    ///
    /// Returns
    /// -------
    /// awaitable of dict of str to numpy.ndarray
    #[pyo3(signature = (inputs=None, /, *, timeout=None, deadline=None, priority=0, outputs=None, **named))]
    fn infer_async<'py>(
        slf: &Bound<'py, Self>,
        inputs: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
        deadline: Option<f64>,
        #[pyo3(from_py_with = options::priority)] priority: u16,
        #[pyo3(from_py_with = options::names)] outputs: Option<Vec<String>>,
        named: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let model = slf.get();
        let options = RunOptions::new(timeout, deadline, priority)?;
        let arguments = Arguments::new(py, model, inputs, named, outputs.clone())?;
        match model.start(py, &arguments, options, Patience::None) {
            Ok(future) => future.finish_async(py, timeout),
            Err(fault) if fault.is_for_want_of_room() => {
                let again = PyDict::new(py);
                again.set_item("priority", priority)?;
                again.set_item("outputs", outputs)?;
                Future::retry_async(py, (slf, inputs, named, timeout, deadline, again))
            }
            Err(fault) => Err(fault.into()),
        }
    }

    /// As `submit`, but None where that would wait. For `adjoin._aio` alone.
    #[pyo3(signature = (inputs, named, *, deadline, priority, outputs))]
    fn _try_submit<'py>(
        &self,
        py: Python<'py>,
        inputs: Option<&Bound<'py, PyAny>>,
        named: Option<&Bound<'py, PyDict>>,
        deadline: Option<f64>,
        #[pyo3(from_py_with = options::priority)] priority: u16,
        #[pyo3(from_py_with = options::names)] outputs: Option<Vec<String>>,
    ) -> PyResult<Option<Future>> {
        let options = RunOptions::new(None, deadline, priority)?;
        let arguments = Arguments::new(py, self, inputs, named, outputs)?;
        match self.start(py, &arguments, options, Patience::None) {
            Err(fault)
                if fault.is_for_want_of_places()
                    || fault.is_for_want_of_room()
                        && (self.connection.is_any_under_way()
                            || self.connection.has_orphans()) =>
            {
                Ok(None)
            }
            outcome => Ok(outcome.map(Some)?),
        }
    }

    fn __repr__(&self) -> String {
        format!(
            "<adjoin.Model {:?} version {}>",
            self.name(),
            self.version()
        )
    }
}

#[pymethods]
impl TensorSpec {
    /// Name of the input or output.
    #[getter]
    fn name(&self) -> &str {
        &self.inner.name
    }

    /// Type of the elements in numpy: ``object`` for strings, that of ``ml_dtypes`` for bfloat16.
    #[getter]
    fn dtype<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDescr>> {
        dtype::descr(py, self.inner.dtype).cloned()
    }

    /// Type of the elements as the Open Inference Protocol names it, such as "FP32".
    #[getter]
    fn datatype(&self) -> &'static str {
        self.inner.dtype.name()
    }

    /// Size of each dimension; None where the request decides.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let dims = self
            .inner
            .shape
            .iter()
            .map(|&dim| (dim >= 0).then_some(dim));
        PyTuple::new(py, dims.collect::<Vec<_>>())
    }

    /// Name of each dimension; empty where the model gives none.
    #[getter]
    fn dimensions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let names = &self.inner.dimension_names;
        let names =
            (0..self.inner.shape.len()).map(|index| names.get(index).map_or("", String::as_str));
        PyTuple::new(py, names.collect::<Vec<_>>())
    }

    fn __repr__(&self) -> String {
        format!(
            "<adjoin.TensorSpec {:?} {} {}>",
            self.inner.name,
            self.inner.dtype,
            shapes::text(&self.inner)
        )
    }
}
