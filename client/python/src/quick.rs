//! The short forms: arrays in, arrays that own their data out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adjoin_client::{DataType, TensorSpec};
use numpy::PyUntypedArray;
use numpy::prelude::*;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFloat, PyInt, PyList, PyMapping, PyTuple};
use smallvec::SmallVec;

use crate::connection::Room;
use crate::core::Core;
use crate::fault::Fault;
use crate::hold::Hold;
use crate::model::Model;
use crate::options::{Patience, RunOptions};
use crate::plan::{Dims, Plan, PlannedInput};
use crate::strings::{self, Texts};
use crate::{array, dlpack, dtype, fault};

/// What was given for an input.
#[derive(Debug)]
enum Value<'py> {
    Array(Bound<'py, PyUntypedArray>),
    Texts(Texts),
}

impl Value<'_> {
    fn shape(&self) -> Dims {
        match self {
            Self::Array(array) => array::shape_of(array),
            Self::Texts(texts) => texts.shape.clone(),
        }
    }
}

/// What a caller gives for all inputs, in the model's order.
#[derive(Debug)]
pub(crate) struct Arguments<'py> {
    values: SmallVec<[(Value<'py>, Dims); 2]>,
    outputs: Vec<String>,
}

impl<'py> Arguments<'py> {
    /// From a mapping, from arguments by name, or from both.
    pub(crate) fn new(
        py: Python<'py>,
        model: &Model,
        mapping: Option<&Bound<'py, PyAny>>,
        named: Option<&Bound<'py, PyDict>>,
        outputs: Option<Vec<String>>,
    ) -> PyResult<Self> {
        let mapping = mapping.map(|mapping| as_dict(mapping)).transpose()?;
        let dicts = [named, mapping.as_ref()].map(|dict| dict.filter(|dict| !dict.is_empty()));
        let mut values: SmallVec<[Value<'_>; 2]> = SmallVec::new();
        for (spec, name) in model.inner.info().inputs.iter().zip(model.names.iter(py)) {
            for dict in dicts.into_iter().flatten() {
                if let Some(value) = dict.get_item(name)? {
                    values.push(value_of(spec, &value)?);
                }
            }
        }
        let given: usize = dicts.into_iter().flatten().map(PyDictMethods::len).sum();
        if values.len() != given || values.len() != model.names.len() {
            return Err(misnamed(model, &dicts));
        }
        // Only now: code of the program's that converts one input may have changed another one.
        let values = values.into_iter().map(|value| {
            let shape = value.shape();
            (value, shape)
        });
        Ok(Self {
            values: values.collect(),
            outputs: outputs.unwrap_or_default(),
        })
    }

    /// A request with these values written, and whether it can be used again for others.
    pub(crate) fn request(
        &self,
        py: Python<'py>,
        model: &Model,
        options: &RunOptions,
        patience: Patience,
    ) -> Result<Arc<Core>, Fault> {
        model.connection.check()?;
        let shapes: SmallVec<[&[i64]; 2]> =
            self.values.iter().map(|(_, shape)| &shape[..]).collect();
        let pooled = if model.has_texts() {
            None
        } else {
            model.pool.take(&shapes, &self.outputs)
        };
        let core = match pooled {
            Some(core) => core,
            None => with_room(py, model, patience, || {
                Core::new(
                    py,
                    &model.connection,
                    self.plan(model),
                    options.patience.end(),
                )
            })?,
        };
        core.write(py, |request| {
            for (index, (value, _)) in self.values.iter().enumerate() {
                let bytes = request
                    .input_bytes_mut_at(index)
                    .map_err(|error| fault::of_tensor(&error))?;
                match value {
                    Value::Array(array) => array::copy_into(array, bytes)?,
                    Value::Texts(texts) => bytes.copy_from_slice(&texts.bytes),
                }
            }
            Ok(())
        })?;
        Ok(core)
    }

    fn plan(&self, model: &Model) -> Plan {
        let specs = &model.inner.info().inputs;
        let inputs = self
            .values
            .iter()
            .zip(specs)
            .map(|((value, shape), spec)| PlannedInput {
                dtype: spec.dtype,
                shape: shape.clone(),
                string_bytes: match value {
                    Value::Array(_) => None,
                    Value::Texts(texts) => Some(texts.bytes.len() as u64),
                },
                on_device: None,
            });
        Plan {
            model: model.inner.clone(),
            inputs: inputs.collect(),
            outputs: self.outputs.clone(),
            rooms: Vec::new(),
            // The size of strings is another one each time.
            may_prepare: !model.has_texts(),
        }
    }
}

/// Runs a model once.
pub(crate) fn infer<'py>(
    py: Python<'py>,
    model: &Model,
    arguments: &Arguments<'py>,
    options: &RunOptions,
) -> PyResult<Bound<'py, PyDict>> {
    let core = arguments.request(py, model, options, options.patience)?;
    let hold = with_room(py, model, options.patience, || core.infer(py, options))?;
    let outputs = collect(py, &hold)?;
    drop(hold);
    model.give(core);
    Ok(outputs)
}

/// Longest sleep before the next look whether there is a place, which nobody wakes this side for.
const MOMENT: Duration = Duration::from_millis(1);

/// Tries again as long as others give room, and the caller has patience.
pub(crate) fn with_room<T>(
    py: Python<'_>,
    model: &Model,
    patience: Patience,
    attempt: impl Fn() -> Result<T, Fault>,
) -> Result<T, Fault> {
    loop {
        let fault = match attempt() {
            Err(fault) if fault.is_for_want_of_room() => fault,
            outcome => return outcome,
        };
        match (model.connection.make_room(py, patience)?, patience) {
            (Room::Made, _) => {}
            (Room::None, Patience::None) => return Err(fault),
            // Runs that were dropped have it, or other threads the places: it comes back with the answers.
            (Room::None, _) if fault.is_for_want_of_places() || model.connection.has_orphans() => {
                py.detach(|| std::thread::sleep(MOMENT));
                py.check_signals()?;
            }
            (Room::None, _) => return Err(fault),
            (Room::TooLate, _) => {}
        }
        if let Patience::Until(at_most, end) = patience
            && end <= Instant::now()
        {
            return Err(Fault::NoRoom(at_most));
        }
    }
}

/// All outputs by name, as arrays that own their data.
pub(crate) fn collect<'py>(py: Python<'py>, hold: &Arc<Hold>) -> PyResult<Bound<'py, PyDict>> {
    let outputs = PyDict::new(py);
    for (index, name) in hold.names()?.iter(py).enumerate() {
        outputs.set_item(name, hold.copied(py, index)?)?;
    }
    Ok(outputs)
}

fn as_dict<'py>(mapping: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    if let Ok(dict) = mapping.cast::<PyDict>() {
        return Ok(dict.clone());
    }
    let Ok(mapping) = mapping.cast::<PyMapping>() else {
        let kind = mapping.get_type().qualname()?;
        let message = format!("inputs are given by name or as a mapping, and this is a {kind}");
        return Err(PyTypeError::new_err(message));
    };
    let dict = PyDict::new(mapping.py());
    dict.update(mapping)?;
    Ok(dict)
}

/// The error for names that are not those of the model's inputs, worded by the client.
fn misnamed(model: &Model, dicts: &[Option<&Bound<'_, PyDict>>; 2]) -> PyErr {
    let mut builder = model.inner.request();
    for name in dicts.iter().flatten().flat_map(|dict| dict.keys()) {
        let name = name.to_string();
        let spec = model
            .inner
            .info()
            .inputs
            .iter()
            .find(|spec| spec.name == name);
        let shape: Dims = spec.map_or_else(Dims::new, |spec| {
            spec.shape.iter().map(|&dim| dim.max(0)).collect()
        });
        let bytes = spec.filter(|spec| spec.dtype == DataType::Bytes).map(|_| 0);
        let added = match bytes {
            Some(bytes) => builder.input_with_bytes(&name, &shape, bytes),
            None => builder.input(&name, &shape),
        };
        builder = match added {
            Ok(builder) => builder,
            Err(error) => return fault::of_request(&error),
        };
    }
    match builder.build() {
        Err(error) => fault::of_request(&error),
        Ok(_) => fault::raise("InvalidRequest", "the inputs are not those of the model"),
    }
}

fn value_of<'py>(spec: &TensorSpec, value: &Bound<'py, PyAny>) -> PyResult<Value<'py>> {
    if spec.dtype == DataType::Bytes {
        return Ok(Value::Texts(strings::encode(&spec.name, value)?));
    }
    Ok(Value::Array(as_array(spec, value)?))
}

/// What makes arrays of lists and numbers.
fn from_numbers(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static FUNCTION: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    FUNCTION.import(py, "adjoin._numbers", "from_numbers")
}

/// What was given as an array of the input's type. Numbers and lists have no type of their own and take
/// the input's, where it holds their values; everything else has to have it.
pub(crate) fn as_array<'py>(
    spec: &TensorSpec,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let py = value.py();
    let descr = dtype::descr(py, spec.dtype)?;
    let array = if let Ok(array) = value.cast::<PyUntypedArray>() {
        array.clone()
    } else if value.hasattr("__dlpack__")? {
        dlpack::import(value)?
    } else {
        let is_untyped = value.is_instance_of::<PyList>()
            || value.is_instance_of::<PyTuple>()
            || value.is_instance_of::<PyInt>()
            || value.is_instance_of::<PyFloat>();
        let array = if is_untyped {
            let expected = format!("{} ({})", dtype::name(spec.dtype), spec.dtype);
            from_numbers(py)?.call1((&spec.name, value, descr, expected))?
        } else {
            py.import("numpy")?.call_method1("asarray", (value,))?
        };
        array.cast_into::<PyUntypedArray>()?
    };
    let given = array.dtype();
    if given.is(descr) || given.is_equiv_to(descr) {
        return Ok(array);
    }
    let expected = dtype::name(spec.dtype);
    let message = format!(
        "input {:?} has data type {given}; the model takes {expected} ({}): convert it, as with .astype({expected:?})",
        spec.name, spec.dtype
    );
    Err(fault::raise("DataTypeMismatch", message))
}
