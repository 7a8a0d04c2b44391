//! The steps of an ensemble with its tensors by number, made once, when the ensemble is loaded.

use std::collections::{BTreeMap, HashMap};

use adjoin_backend::{Dimension, InputAccess, ModelMetadata, TensorMetadata};
use adjoin_model_config::{Checked, TensorConfig};

/// Most requests of an ensemble that are on their way through its steps at once, unless its configuration says.
const IN_FLIGHT_DEFAULT: usize = 256;
/// As many as a configuration can have.
const IN_FLIGHT_MAX: usize = 4096;

/// A tensor of an ensemble, by its place in each run's list.
pub(super) type TensorIndex = usize;

/// One run of one model.
#[derive(Debug)]
pub(super) struct Step {
    /// Its place in the configuration, from 1.
    pub(super) number: usize,
    pub(super) model: String,
    /// 0 for none in particular.
    pub(super) version: u64,
    /// Names of the model's inputs, and the tensors that feed them.
    pub(super) inputs: Vec<(String, TensorIndex)>,
    /// Names of the model's outputs, and the tensors that they make.
    pub(super) outputs: Vec<(String, TensorIndex)>,
}

/// The steps of an ensemble, which together are one model to clients.
#[derive(Debug)]
pub struct EnsemblePlan {
    metadata: ModelMetadata,
    /// What feeds a step comes before it.
    pub(super) steps: Vec<Step>,
    /// For each input of the ensemble, its tensor.
    pub(super) inputs: Vec<TensorIndex>,
    /// For each output of the ensemble, its tensor.
    pub(super) outputs: Vec<TensorIndex>,
    /// Number of tensors.
    pub(super) tensors: usize,
    /// Most requests that are on their way at once.
    pub(super) in_flight_max: usize,
}

impl EnsemblePlan {
    /// The plan of a configuration; `None` if it has no steps. That its graph can run was checked with it.
    #[must_use]
    pub fn new(checked: &Checked) -> Option<Self> {
        let ensemble = checked.ensemble.as_ref()?;
        let rows = checked.max_batch_size;
        let metadata = ModelMetadata {
            inputs: (checked.inputs.iter())
                .map(|input| described(&input.tensor, rows))
                .collect(),
            outputs: (checked.outputs.iter())
                .map(|output| described(&output.tensor, rows))
                .collect(),
        };
        let mut tensors = Tensors::default();
        let inputs = tensors.of_ensemble(&metadata.inputs);
        let mut steps = Vec::with_capacity(ensemble.steps.len());
        for step in &ensemble.steps {
            steps.push(Step {
                number: step.number,
                model: step.model.clone(),
                version: step.version.unwrap_or(0),
                inputs: tensors.of_step(&step.inputs),
                outputs: tensors.of_step(&step.outputs),
            });
        }
        let outputs = tensors.of_ensemble(&metadata.outputs);
        let in_flight_max = ensemble.max_inflight_requests;
        Some(Self {
            metadata,
            steps,
            inputs,
            outputs,
            tensors: tensors.0.len(),
            in_flight_max: in_flight_max
                .and_then(|most| usize::try_from(most).ok())
                .map_or(IN_FLIGHT_DEFAULT, |most| most.min(IN_FLIGHT_MAX)),
        })
    }

    /// Inputs and outputs, as clients see them.
    #[must_use]
    pub fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    /// Which steps make, directly or through others, the tensors that are `wanted`.
    pub(super) fn needed(&self, wanted: impl Iterator<Item = TensorIndex>) -> Vec<bool> {
        let mut is_needed = vec![false; self.tensors];
        for tensor in wanted {
            is_needed[tensor] = true;
        }
        let mut steps = vec![false; self.steps.len()];
        for (at, step) in self.steps.iter().enumerate().rev() {
            if step.outputs.iter().any(|&(_, tensor)| is_needed[tensor]) {
                steps[at] = true;
                for &(_, tensor) in &step.inputs {
                    is_needed[tensor] = true;
                }
            }
        }
        steps
    }
}

/// A tensor as the configuration describes it.
fn described(tensor: &TensorConfig, max_batch_size: u32) -> TensorMetadata {
    let dimension = |(at, &size): (usize, &i64)| match size {
        _ if at == 0 && max_batch_size > 0 => Dimension::Named("batch".to_owned()),
        ..0 => Dimension::Unknown,
        size => Dimension::Fixed(size),
    };
    let shape = tensor.client_shape(max_batch_size);
    TensorMetadata {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        dimensions: shape.iter().enumerate().map(dimension).collect(),
        // Each step has its own word on that.
        access: InputAccess::InPlace,
    }
}

/// Tensors by name, numbered in the order in which they are met.
#[derive(Debug, Default)]
struct Tensors(HashMap<String, TensorIndex>);

impl Tensors {
    fn index(&mut self, name: &str) -> TensorIndex {
        let next = self.0.len();
        *self.0.entry(name.to_owned()).or_insert(next)
    }

    fn of_ensemble(&mut self, tensors: &[TensorMetadata]) -> Vec<TensorIndex> {
        tensors
            .iter()
            .map(|tensor| self.index(&tensor.name))
            .collect()
    }

    fn of_step(&mut self, map: &BTreeMap<String, String>) -> Vec<(String, TensorIndex)> {
        map.iter()
            .map(|(port, tensor)| (port.clone(), self.index(tensor)))
            .collect()
    }
}
