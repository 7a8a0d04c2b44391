//! `ensemble_scheduling`: models that feed one another.

use std::collections::{BTreeMap, HashMap, HashSet};

use adjoin_control_api::inference::ModelEnsembling;
use adjoin_control_api::inference::model_ensembling;
use adjoin_schema::limits::{TENSOR_NAME_BYTES_MAX, TENSORS_MAX};
use adjoin_schema::text::{is_model_name, shape_text};

use super::{InputConfig, OutputConfig, TensorConfig};
use crate::error::{ConfigError, quoted};
use crate::limits::ENSEMBLE_STEPS_MAX;

/// The steps of an ensemble in an order in which they can run: what feeds a step comes before it. Each tensor is an input of
/// the ensemble or made by one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ensemble {
    /// At least one.
    pub steps: Vec<Step>,
    /// Most requests of the ensemble that are on their way through its steps at once; `None`: the server's default.
    pub max_inflight_requests: Option<u32>,
}

/// One run of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its place in the configuration, from 1.
    pub number: usize,
    /// Name of the model.
    pub model: String,
    /// Its version; `None`: as for a request that names none.
    pub version: Option<u64>,
    /// From the model's input to the tensor of the ensemble that feeds it.
    pub inputs: BTreeMap<String, String>,
    /// From the model's output to the tensor of the ensemble that it makes. Outputs that are not named are not asked for.
    pub outputs: BTreeMap<String, String>,
}

/// Where a step stands in the configuration.
fn path(index: usize, field: &str) -> String {
    format!("ensemble_scheduling.step[{index}]{field}")
}

impl Ensemble {
    pub(super) fn new(
        name: &str,
        scheduling: &ModelEnsembling,
        inputs: &[InputConfig],
        outputs: &[OutputConfig],
    ) -> Result<Self, ConfigError> {
        let count = scheduling.step.len();
        if !(1..=ENSEMBLE_STEPS_MAX).contains(&count) {
            let expected = format!("it has 1 to {ENSEMBLE_STEPS_MAX}");
            let value = format!("a list of {count}");
            return Err(ConfigError::value(
                "ensemble_scheduling.step",
                value,
                expected,
            ));
        }
        for (kind, is_empty) in [("input", inputs.is_empty()), ("output", outputs.is_empty())] {
            if is_empty {
                let expected = "an ensemble has no file that could say it";
                return Err(ConfigError::value(kind, "empty", expected));
            }
        }
        check_shapes("input", inputs.iter().map(|input| &input.tensor))?;
        check_shapes("output", outputs.iter().map(|output| &output.tensor))?;
        let numbered = scheduling.step.iter().enumerate();
        let steps = numbered.map(|(index, step)| Step::new(name, index, step));
        let steps = steps.collect::<Result<Vec<_>, _>>()?;
        let makers = makers(&steps, inputs)?;
        for (index, output) in outputs.iter().enumerate() {
            let tensor = output.tensor.name.as_str();
            if !matches!(makers.get(tensor), Some(Maker::Step(_))) {
                let expected = "no step makes a tensor of this name";
                return Err(ConfigError::value(
                    format!("output[{index}].name"),
                    quoted(tensor),
                    expected,
                ));
            }
        }
        let order = order(&steps, &makers)?;
        let mut steps: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
        let steps = order.into_iter().filter_map(|index| steps[index].take());
        Ok(Self {
            steps: steps.collect(),
            max_inflight_requests: Some(scheduling.max_inflight_requests).filter(|&most| most > 0),
        })
    }
}

impl Step {
    fn new(
        ensemble: &str,
        index: usize,
        step: &model_ensembling::Step,
    ) -> Result<Self, ConfigError> {
        let model = step.model_name.as_str();
        if !is_model_name(model) || model == ensemble {
            let expected = "it is the name of a model of this repository, not the ensemble's own";
            return Err(ConfigError::value(
                path(index, ".model_name"),
                quoted(model),
                expected,
            ));
        }
        let version = match step.model_version {
            -1 | 0 => None,
            number => Some(u64::try_from(number).map_err(|_| {
                let expected = "it is a version from 1, or -1 for the one that is served";
                ConfigError::value(path(index, ".model_version"), number, expected)
            })?),
        };
        Ok(Self {
            number: index + 1,
            model: model.to_owned(),
            version,
            inputs: names(&path(index, ".input_map"), &step.input_map)?,
            outputs: names(&path(index, ".output_map"), &step.output_map)?,
        })
    }
}

/// An ensemble has no file with other shapes than its clients see.
fn check_shapes<'a>(
    kind: &str,
    tensors: impl Iterator<Item = &'a TensorConfig>,
) -> Result<(), ConfigError> {
    for (index, tensor) in tensors.enumerate() {
        if let Some(shape) = &tensor.reshape {
            let path = format!("{kind}[{index}].reshape.shape");
            let expected = "none: the steps of an ensemble get the shapes that its clients give";
            return Err(ConfigError::value(path, shape_text(shape, &[]), expected));
        }
    }
    Ok(())
}

fn names(
    path: &str,
    map: &HashMap<String, String>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    if !(1..=TENSORS_MAX).contains(&map.len()) {
        let value = format!("a map of {}", map.len());
        return Err(ConfigError::value(
            path,
            value,
            format!("it names 1 to {TENSORS_MAX} tensors"),
        ));
    }
    for name in map.iter().flat_map(|(key, value)| [key, value]) {
        if name.is_empty() || name.len() > TENSOR_NAME_BYTES_MAX {
            let expected = format!("a name has 1 to {TENSOR_NAME_BYTES_MAX} bytes");
            return Err(ConfigError::value(
                format!("a name in {path}"),
                quoted(name),
                expected,
            ));
        }
    }
    Ok(map
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect())
}

/// Where a tensor comes from.
#[derive(Clone, Copy)]
enum Maker {
    Request,
    Step(usize),
}

fn makers<'a>(
    steps: &'a [Step],
    inputs: &'a [InputConfig],
) -> Result<HashMap<&'a str, Maker>, ConfigError> {
    let given = inputs
        .iter()
        .map(|input| (input.tensor.name.as_str(), Maker::Request));
    let mut makers: HashMap<_, _> = given.collect();
    for (index, step) in steps.iter().enumerate() {
        for (output, tensor) in &step.outputs {
            if let Some(other) = makers.insert(tensor, Maker::Step(index)) {
                let other = match other {
                    Maker::Request => "an input of the ensemble has this name".to_owned(),
                    Maker::Step(other) => format!("step[{other}] makes a tensor of this name too"),
                };
                let path = path(index, &format!(".output_map[{}]", quoted(output)));
                return Err(ConfigError::value(path, quoted(tensor), other));
            }
        }
    }
    Ok(makers)
}

/// An order in which each step comes after those that feed it; as configured, as far as that is one.
fn order(steps: &[Step], makers: &HashMap<&str, Maker>) -> Result<Vec<usize>, ConfigError> {
    for (index, step) in steps.iter().enumerate() {
        for (input, tensor) in &step.inputs {
            if !makers.contains_key(tensor.as_str()) {
                let path = path(index, &format!(".input_map[{}]", quoted(input)));
                let expected =
                    "no step makes a tensor of this name, and the ensemble has no such input";
                return Err(ConfigError::value(path, quoted(tensor), expected));
            }
        }
    }
    let mut done = HashSet::new();
    let mut order = Vec::new();
    while order.len() < steps.len() {
        let is_fed = |index: &usize| {
            steps[*index]
                .inputs
                .values()
                .all(|tensor| match makers[tensor.as_str()] {
                    Maker::Request => true,
                    Maker::Step(maker) => done.contains(&maker),
                })
        };
        let next = (0..steps.len())
            .filter(|index| !done.contains(index))
            .find(is_fed);
        let Some(next) = next else {
            let waiting = (0..steps.len())
                .find(|index| !done.contains(index))
                .unwrap_or(0);
            let expected = "no step can wait for its own output, directly or through others";
            let value = "never fed";
            return Err(ConfigError::value(path(waiting, ""), value, expected));
        };
        done.insert(next);
        order.push(next);
    }
    Ok(order)
}
