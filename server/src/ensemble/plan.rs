//! The steps of an ensemble as a graph that can run: checked once, when the ensemble is loaded.

use std::collections::{BTreeMap, HashMap};

use adjoin_backend::{ModelMetadata, TensorMetadata};
use thiserror::Error;

/// Most requests of an ensemble that are on their way through its steps at once, unless its configuration says.
const IN_FLIGHT_MAX: usize = 256;

/// One run of one model, as a configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepConfig {
    /// Name of the model.
    pub model: String,
    /// Its version; `None`: as for a request that names none.
    pub version: Option<u64>,
    /// From the model's input to the tensor of the ensemble that feeds it.
    pub inputs: BTreeMap<String, String>,
    /// From the model's output to the tensor of the ensemble that it makes. Outputs that are not named are not asked
    /// for.
    pub outputs: BTreeMap<String, String>,
}

/// Why an ensemble cannot be. Steps count from 1.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// A tensor is made twice.
    #[error("tensor {tensor:?} is made by step {step} and before; expected one step that makes it")]
    MadeTwice {
        /// Name of the tensor.
        tensor: String,
        /// The second one that makes it.
        step: usize,
    },
    /// A step makes an input of the ensemble.
    #[error("step {step} makes tensor {tensor:?}, which is an input of the ensemble")]
    MakesInput {
        /// Name of the tensor.
        tensor: String,
        /// The step.
        step: usize,
    },
    /// Nothing makes what a step takes.
    #[error(
        "step {step} takes tensor {tensor:?}, which no step makes and which is no input of the ensemble"
    )]
    Unfed {
        /// Name of the tensor.
        tensor: String,
        /// The step.
        step: usize,
    },
    /// Nothing makes an output of the ensemble.
    #[error("output {tensor:?} is made by no step")]
    NoOutput {
        /// Name of the output.
        tensor: String,
    },
    /// Steps wait for one another.
    #[error("step {step} waits for its own output, directly or through other steps")]
    Circle {
        /// One of them.
        step: usize,
    },
}

/// A tensor of an ensemble, by its place in each run's list.
pub(super) type TensorIndex = usize;

/// A step in the order in which steps can run.
#[derive(Debug)]
pub(super) struct Step {
    /// Its place in the configuration, from 1.
    pub(super) number: usize,
    pub(super) model: String,
    /// 0 for none in particular.
    pub(super) version: u64,
    pub(super) inputs: Vec<(String, TensorIndex)>,
    pub(super) outputs: Vec<(String, TensorIndex)>,
}

/// The steps of an ensemble, which together are one model to clients.
#[derive(Debug)]
pub struct EnsemblePlan {
    pub(super) metadata: ModelMetadata,
    /// What feeds a step comes before it.
    pub(super) steps: Vec<Step>,
    /// For each input of the ensemble, its tensor.
    pub(super) inputs: Vec<TensorIndex>,
    /// For each output of the ensemble, its tensor.
    pub(super) outputs: Vec<TensorIndex>,
    /// Number of tensors.
    pub(super) tensors: usize,
    pub(super) in_flight_max: usize,
}

impl EnsemblePlan {
    /// The plan of an ensemble with these inputs and outputs, whole shapes with the batch dimension. `in_flight_max` of 0
    /// sets the server's own limit.
    ///
    /// # Errors
    /// See [`PlanError`].
    pub fn new(
        metadata: ModelMetadata,
        steps: &[StepConfig],
        in_flight_max: u32,
    ) -> Result<Self, PlanError> {
        let mut tensors = Tensors::default();
        let named = |tensors: &mut Tensors, list: &[TensorMetadata]| -> Vec<TensorIndex> {
            list.iter()
                .map(|tensor| tensors.index(&tensor.name))
                .collect()
        };
        let inputs = named(&mut tensors, &metadata.inputs);
        let mut made: Vec<Option<usize>> = vec![None; inputs.len()];
        let mut unordered = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            let number = at + 1;
            let mut places = |map: &BTreeMap<String, String>| -> Vec<(String, TensorIndex)> {
                let place =
                    |(port, tensor): (&String, &String)| (port.clone(), tensors.index(tensor));
                map.iter().map(place).collect()
            };
            let step = Step {
                number,
                model: step.model.clone(),
                version: step.version.unwrap_or(0),
                inputs: places(&step.inputs),
                outputs: places(&step.outputs),
            };
            made.resize(tensors.names.len(), None);
            for (_, tensor) in &step.outputs {
                let name = || tensors.names[*tensor].clone();
                if inputs.contains(tensor) {
                    let tensor = name();
                    return Err(PlanError::MakesInput {
                        tensor,
                        step: number,
                    });
                }
                if made[*tensor].replace(number).is_some() {
                    let tensor = name();
                    return Err(PlanError::MadeTwice {
                        tensor,
                        step: number,
                    });
                }
            }
            unordered.push(step);
        }
        let outputs = named(&mut tensors, &metadata.outputs);
        made.resize(tensors.names.len(), None);
        if let Some(&tensor) = outputs.iter().find(|&&tensor| made[tensor].is_none()) {
            let tensor = tensors.names[tensor].clone();
            return Err(PlanError::NoOutput { tensor });
        }
        for step in &unordered {
            let is_unfed = |(_, tensor): &&(String, TensorIndex)| {
                made[*tensor].is_none() && !inputs.contains(tensor)
            };
            if let Some((_, tensor)) = step.inputs.iter().find(is_unfed) {
                let tensor = tensors.names[*tensor].clone();
                let step = step.number;
                return Err(PlanError::Unfed { tensor, step });
            }
        }
        Ok(Self {
            steps: ordered(unordered, &inputs, tensors.names.len())?,
            metadata,
            inputs,
            outputs,
            tensors: tensors.names.len(),
            in_flight_max: match usize::try_from(in_flight_max) {
                Ok(0) | Err(_) => IN_FLIGHT_MAX,
                Ok(most) => most,
            },
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

/// Names of tensors and their places.
#[derive(Debug, Default)]
struct Tensors {
    names: Vec<String>,
    places: HashMap<String, TensorIndex>,
}

impl Tensors {
    fn index(&mut self, name: &str) -> TensorIndex {
        if let Some(&index) = self.places.get(name) {
            return index;
        }
        self.names.push(name.to_owned());
        self.places.insert(name.to_owned(), self.names.len() - 1);
        self.names.len() - 1
    }
}

/// The steps so that what feeds one comes before it, otherwise as they were.
fn ordered(
    steps: Vec<Step>,
    inputs: &[TensorIndex],
    tensors: usize,
) -> Result<Vec<Step>, PlanError> {
    let mut is_there = vec![false; tensors];
    for &input in inputs {
        is_there[input] = true;
    }
    let mut waiting: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
    let mut order = Vec::with_capacity(waiting.len());
    while order.len() < waiting.len() {
        let can_run = |step: &&mut Option<Step>| {
            let step = step.as_ref();
            step.is_some_and(|step| step.inputs.iter().all(|&(_, tensor)| is_there[tensor]))
        };
        let next = waiting.iter_mut().find(can_run).and_then(Option::take);
        let Some(next) = next else {
            let step = waiting
                .iter()
                .flatten()
                .next()
                .map_or(0, |step| step.number);
            return Err(PlanError::Circle { step });
        };
        for &(_, tensor) in &next.outputs {
            is_there[tensor] = true;
        }
        order.push(next);
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use adjoin_schema::DataType;

    use super::*;
    use crate::testing::tensor;

    /// `MODEL INPUT=TENSOR,... OUTPUT=TENSOR,...`
    fn step(text: &str) -> StepConfig {
        let mut words = text.split(' ');
        let model = words.next().unwrap().to_owned();
        let mut map = || -> BTreeMap<String, String> {
            let pairs = words.next().unwrap().split(',');
            let pair = |pair: &str| {
                let (port, tensor) = pair.split_once('=')?;
                Some((port.to_owned(), tensor.to_owned()))
            };
            pairs.filter_map(pair).collect()
        };
        StepConfig {
            model,
            version: None,
            inputs: map(),
            outputs: map(),
        }
    }

    fn plan(steps: &[&str]) -> Result<EnsemblePlan, PlanError> {
        let float = |name| tensor(name, DataType::Fp32, &[1]);
        let metadata = ModelMetadata {
            inputs: vec![float("in")],
            outputs: vec![float("out"), float("other")],
        };
        let steps: Vec<_> = steps.iter().map(|text| step(text)).collect();
        EnsemblePlan::new(metadata, &steps, 0)
    }

    #[test]
    fn steps_run_in_the_order_of_their_tensors() {
        let plan = plan(&["c x=b,z=in y=out", "b x=a y=b", "a x=in y=a,z=other"]).unwrap();
        let order: Vec<_> = plan.steps.iter().map(|step| step.number).collect();
        assert_eq!(order, [3, 2, 1]);
        assert_eq!(plan.in_flight_max, IN_FLIGHT_MAX);
        assert_eq!(plan.needed(plan.outputs.iter().copied()), [true; 3]);
        assert_eq!(
            plan.needed(plan.outputs[1..].iter().copied()),
            [true, false, false]
        );
    }

    #[test]
    fn graphs_that_cannot_run_are_refused_by_step() {
        let error = |steps: &[&str]| plan(steps).unwrap_err().to_string();
        let other = "a x=in y=other";
        assert!(error(&[other]).contains("\"out\" is made by no step"));
        assert!(error(&[other, "b x=in y=other,z=out"]).contains("step 2"));
        assert!(error(&[other, "b x=other y=in,z=out"]).contains("input of the ensemble"));
        assert!(error(&[other, "b x=gone y=out"]).contains("\"gone\""));
        let circle = error(&[other, "b x=q y=p", "c x=p y=q,z=out"]);
        assert!(circle.contains("step 2 waits"), "{circle}");
        assert!(error(&[other, "b x=out y=out"]).contains("step 2 waits"));
    }
}
