//! The shapes of a request: what the model leaves open, from what the caller gives.

use std::collections::HashMap;

use adjoin_client::{DataType, TensorSpec};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};

use crate::device::DeviceArray;
use crate::model::Model;
use crate::plan::{Dims, PlannedInput};
use crate::{fault, strings};

/// Dimensions as people read them.
pub(crate) fn text(spec: &TensorSpec) -> String {
    let dims = spec.shape.iter().enumerate().map(|(index, dim)| {
        let name = spec
            .dimension_names
            .get(index)
            .filter(|name| !name.is_empty());
        match name {
            Some(name) if *dim < 0 => name.clone(),
            _ => dim.to_string(),
        }
    });
    format!("[{}]", dims.collect::<Vec<_>>().join(","))
}

/// Whole shapes with those of inputs that lie on a device; `None` if none does.
pub(crate) fn with_arrays<'py>(
    py: Python<'py>,
    model: &adjoin_client::Model,
    given: Option<&Bound<'py, PyAny>>,
    arrays: &HashMap<String, DeviceArray>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    if arrays.is_empty() {
        return Ok(None);
    }
    let all = PyDict::new(py);
    if let Some(given) = given {
        all.update(given.cast::<PyMapping>()?)?;
    }
    for spec in &model.info().inputs {
        if let Some(array) = arrays.get(&spec.name) {
            all.set_item(&spec.name, array.shape.to_vec())?;
        }
    }
    Ok(Some(all.into_any()))
}

/// Where the shapes of a request come from.
#[derive(Debug)]
pub(crate) struct Shapes<'a, 'py> {
    pub(crate) model: &'a Model,
    /// Size of open first dimensions.
    pub(crate) batch: Option<i64>,
    /// Whole shapes, by name of the input.
    pub(crate) given: Option<&'a Bound<'py, PyAny>>,
    /// Sizes by name of the dimension.
    pub(crate) dimensions: Option<&'a Bound<'py, PyDict>>,
}

impl Shapes<'_, '_> {
    /// The inputs with all dimensions settled.
    pub(crate) fn inputs(&self) -> PyResult<smallvec::SmallVec<[PlannedInput; 2]>> {
        self.check_names()?;
        let specs = &self.model.inner.info().inputs;
        let inputs = specs.iter().map(|spec| self.input(spec));
        let inputs = inputs.collect::<PyResult<smallvec::SmallVec<[PlannedInput; 2]>>>()?;
        for (input, spec) in inputs.iter().zip(specs) {
            self.check_rows(spec, &input.shape)?;
        }
        Ok(inputs)
    }

    /// The server says so, too, but only to a run. Models that are never batched have no rows.
    fn check_rows(&self, spec: &TensorSpec, shape: &[i64]) -> PyResult<()> {
        let most = self.model.inner.info().max_batch_size;
        let (Some(&rows), Some(..0)) = (shape.first(), spec.shape.first()) else {
            return Ok(());
        };
        if most == 0 || (1..=i64::from(most)).contains(&rows) {
            return Ok(());
        }
        let message = format!(
            "input {:?} is to have {rows} rows; model {:?} takes at least 1 and at most {most}",
            spec.name,
            self.model.inner.name()
        );
        let class = if rows < 1 {
            "ShapeMismatch"
        } else {
            "BatchTooLarge"
        };
        Err(fault::raise(class, message))
    }

    fn input(&self, spec: &TensorSpec) -> PyResult<PlannedInput> {
        let shape = match self.whole(spec)? {
            Some(shape) => shape,
            None => self.resolved(spec)?,
        };
        let string_bytes = (spec.dtype == DataType::Bytes).then(|| strings::empty_bytes(&shape));
        Ok(PlannedInput {
            dtype: spec.dtype,
            shape,
            string_bytes,
            on_device: None,
        })
    }

    fn whole(&self, spec: &TensorSpec) -> PyResult<Option<Dims>> {
        let Some(given) = self.given else {
            return Ok(None);
        };
        if !given.contains(&spec.name)? {
            return Ok(None);
        }
        let shape: Vec<i64> = given.get_item(&spec.name)?.extract()?;
        Ok(Some(Dims::from_vec(shape)))
    }

    fn resolved(&self, spec: &TensorSpec) -> PyResult<Dims> {
        let sizes = spec.shape.iter().enumerate().map(|(index, &dim)| {
            if dim >= 0 {
                return Ok(dim);
            }
            let name = spec.dimension_names.get(index).map_or("", String::as_str);
            let named = match self.dimensions {
                Some(dimensions) if !name.is_empty() => dimensions.get_item(name)?,
                _ => None,
            };
            match named {
                Some(size) => size.extract(),
                None if index == 0 => Ok(self.batch.unwrap_or(1)),
                None => Err(open_dimension(spec, index, name)),
            }
        });
        sizes.collect()
    }

    /// Every name that was given means something.
    fn check_names(&self) -> PyResult<()> {
        let specs = &self.model.inner.info().inputs;
        if let Some(given) = self.given {
            for name in given.try_iter()? {
                let name = name?;
                if self.model.names.index(&name)?.is_none() {
                    let message = format!(
                        "model {:?} has no input {:?}; it takes {}",
                        self.model.inner.name(),
                        name.to_string(),
                        self.model.names.text(name.py())
                    );
                    return Err(fault::raise("TensorNotFound", message));
                }
            }
        }
        for (name, _) in self.dimensions.into_iter().flatten() {
            let name = name.to_string();
            let mut open = specs.iter().flat_map(|spec| spec.dimension_names.iter());
            if !open.any(|dimension| *dimension == name) {
                let inputs: Vec<String> = specs
                    .iter()
                    .map(|spec| format!("{:?} {}", spec.name, text(spec)))
                    .collect();
                let message = format!(
                    "model {:?} has no open dimension {name:?}; its inputs are {}",
                    self.model.inner.name(),
                    inputs.join(", ")
                );
                return Err(fault::raise("ShapeMismatch", message));
            }
        }
        Ok(())
    }
}

fn open_dimension(spec: &TensorSpec, index: usize, name: &str) -> PyErr {
    let by_name = if name.is_empty() {
        String::new()
    } else {
        format!("{name}=... or ")
    };
    let message = format!(
        "dimension {index} of input {:?} is open in {}: give {by_name}shapes={{{:?}: (...)}}",
        spec.name,
        text(spec),
        spec.name
    );
    fault::raise("ShapeMismatch", message)
}
