//! The parameters of a configuration: those of a step model are its own, of others the keys below are known.

use std::collections::{BTreeMap, HashMap};

use adjoin_control_api::inference::ModelParameter;
use adjoin_input_transform::InputTransform;

use super::Engine;
use crate::error::{ConfigError, Warning, quoted};
use crate::limits::INTRA_OP_THREADS_MAX;

const INTRA_OP_THREADS_KEY: &str = "intra_op_thread_count";
const INPUT_TRANSFORM_PREFIX: &str = "input_transform:";

/// What TensorRT takes beside these: which profile of a plan, and whether its code for the host may run.
const TENSORRT_KEYS: [&str; 2] = ["optimization_profile", "engine_host_code"];

/// Most warnings of one configuration; a reader needs no more.
const WARNINGS_MAX: usize = 64;

/// The key of the parameter that transforms the input `name`.
#[must_use]
pub fn input_transform_key(name: &str) -> String {
    format!("{INPUT_TRANSFORM_PREFIX}{name}")
}

/// What the parameters say.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    /// Threads of one instance for one operator; `None`: the server's own.
    pub(super) intra_op_threads: Option<u32>,
    pub(super) input_transforms: BTreeMap<String, InputTransform>,
    /// All parameters of a step model, which checks them; of TensorRT, those that it knows.
    pub(super) of_engine: BTreeMap<String, String>,
}

impl Parameters {
    pub(super) fn new(
        parameters: &HashMap<String, ModelParameter>,
        engine: Option<&Engine>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let parameters: BTreeMap<String, String> = parameters
            .iter()
            .map(|(key, value)| (key.clone(), value.string_value.clone()))
            .collect();
        let mut known = Self::default();
        if let Some(Engine::BuiltIn(_)) = engine {
            known.of_engine = parameters;
            return Ok(known);
        }
        for (key, value) in &parameters {
            let path = format!("parameters[{}]", quoted(key));
            if key == INTRA_OP_THREADS_KEY {
                known.intra_op_threads = intra_op_threads(path, value)?;
            } else if let Some(input) = key.strip_prefix(INPUT_TRANSFORM_PREFIX) {
                if engine == Some(&Engine::Ensemble) {
                    let expected = "an ensemble has none; the model of a step may have";
                    return Err(ConfigError::value(path, quoted(value), expected));
                }
                let transform = value
                    .parse()
                    .map_err(|error| ConfigError::value(path, quoted(value), format!("{error}")));
                known.input_transforms.insert(input.to_owned(), transform?);
            } else if engine == Some(&Engine::TensorRt) && TENSORRT_KEYS.contains(&key.as_str()) {
                known.of_engine.insert(key.clone(), value.clone());
            } else if warnings.len() < WARNINGS_MAX {
                let note = "engines know intra_op_thread_count and input_transform:NAME";
                warnings.push(Warning { path, note });
            }
        }
        Ok(known)
    }
}

fn intra_op_threads(path: String, value: &str) -> Result<Option<u32>, ConfigError> {
    let count = value
        .parse()
        .ok()
        .filter(|&n: &u32| n <= INTRA_OP_THREADS_MAX);
    let count = count.ok_or_else(|| {
        let expected = format!("it is 1 to {INTRA_OP_THREADS_MAX}, or 0 for the server's own");
        ConfigError::value(path, quoted(value), expected)
    })?;
    Ok(Some(count).filter(|&count| count > 0))
}
