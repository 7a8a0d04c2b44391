//! What a request is made of, so that it can be made again.

use std::collections::HashMap;
use std::time::Instant;

use adjoin_client::{DataType, Model, RequestError};
use pyo3::prelude::*;
use pyo3::types::PyString;
use smallvec::SmallVec;

use crate::device::DeviceArray;
use crate::{dtype, fault};

pub(crate) type Dims = SmallVec<[i64; 8]>;

/// An input with its dimensions.
#[derive(Clone, Debug)]
pub(crate) struct PlannedInput {
    pub(crate) dtype: DataType,
    pub(crate) shape: Dims,
    /// Bytes of an input of strings; those of others follow from the shape.
    pub(crate) string_bytes: Option<u64>,
    /// Where it lies, if not in the session's memory.
    pub(crate) on_device: Option<DeviceArray>,
}

/// Model, inputs in the model's order, wanted outputs.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) model: Model,
    pub(crate) inputs: SmallVec<[PlannedInput; 2]>,
    /// Names of the wanted outputs; none for all.
    pub(crate) outputs: Vec<String>,
    /// Outputs that go to a device, by name.
    pub(crate) rooms: Vec<(String, DeviceArray)>,
    pub(crate) may_prepare: bool,
}

impl Plan {
    /// Takes room for the inputs. The texts of string inputs are empty; other inputs hold what was there
    /// before.
    pub(crate) fn build(
        &self,
        until: Option<Instant>,
    ) -> Result<adjoin_client::Request, RequestError> {
        let outputs: Vec<&str> = self.outputs.iter().map(String::as_str).collect();
        let mut builder = self
            .model
            .request()
            .outputs(&outputs)
            .prepare(self.may_prepare);
        for (input, spec) in self.inputs.iter().zip(&self.model.info().inputs) {
            builder = match (&input.on_device, input.string_bytes) {
                (Some(array), _) => builder.input_on_device(
                    &spec.name,
                    &input.shape,
                    &array.region,
                    array.offset,
                )?,
                (None, None) => builder.input(&spec.name, &input.shape)?,
                (None, Some(bytes)) => builder.input_with_bytes(&spec.name, &input.shape, bytes)?,
            };
        }
        for (name, room) in &self.rooms {
            builder = builder.output_on_device(name, &room.region, room.offset, room.byte_size)?;
        }
        if let Some(until) = until {
            builder = builder.give_up_at(until);
        }
        builder.build()
    }

    /// Has tensors of these names lie on a device.
    pub(crate) fn put_on_device(&mut self, arrays: HashMap<String, DeviceArray>) -> PyResult<()> {
        let info = self.model.info();
        for (name, array) in arrays {
            let input = info.inputs.iter().position(|spec| spec.name == name);
            let output = info.outputs.iter().find(|spec| spec.name == name);
            let spec = input.map(|index| &info.inputs[index]).or(output);
            let Some(spec) = spec else {
                let message = format!("model {:?} has no input or output {name:?}", info.model);
                return Err(fault::raise("TensorNotFound", message));
            };
            if spec.dtype != array.dtype {
                let message = format!(
                    "{name:?} is {}; its array on the device is {}",
                    dtype::name(spec.dtype),
                    dtype::name(array.dtype)
                );
                return Err(fault::raise("DataTypeMismatch", message));
            }
            match input {
                Some(index) => self.inputs[index].on_device = Some(array),
                None => self.rooms.push((name, array)),
            }
        }
        Ok(())
    }

    /// Whether requests of this plan can be those of another one's.
    pub(crate) fn is_alike(&self, shapes: &[&[i64]], outputs: &[String]) -> bool {
        self.outputs == outputs
            && self.inputs.len() == shapes.len()
            && self
                .inputs
                .iter()
                .zip(shapes)
                .all(|(input, shape)| input.shape.as_slice() == *shape)
    }
}

/// Names of tensors as Python strings, looked up by identity first: those in a program's text are
/// interned, and so are these.
#[derive(Debug)]
pub(crate) struct Names(Vec<Py<PyString>>);

impl Names {
    pub(crate) fn new<'n>(py: Python<'_>, names: impl Iterator<Item = &'n str>) -> Self {
        Self(
            names
                .map(|name| PyString::intern(py, name).unbind())
                .collect(),
        )
    }

    pub(crate) fn index(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
        if let Some(index) = self.0.iter().position(|name| name.is(key)) {
            return Ok(Some(index));
        }
        for (index, name) in self.0.iter().enumerate() {
            if key.eq(name)? {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    pub(crate) fn iter<'a, 'py: 'a>(
        &'a self,
        py: Python<'py>,
    ) -> impl ExactSizeIterator<Item = &'a Bound<'py, PyString>> {
        self.0.iter().map(move |name| name.bind(py))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What there is, for an error's text.
    pub(crate) fn text(&self, py: Python<'_>) -> String {
        let quoted: Vec<String> = self
            .iter(py)
            .map(|name| format!("{:?}", name.to_string()))
            .collect();
        if quoted.is_empty() {
            "none".to_owned()
        } else {
            quoted.join(", ")
        }
    }
}
