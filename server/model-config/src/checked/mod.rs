//! The configuration that the server acts on: typed, in the field's units, each value checked by itself and against the
//! others.

mod batching;
mod engine;
mod ensemble;
mod instances;
mod parameters;
mod tensors;
mod warm_up;

use std::collections::BTreeMap;

use adjoin_backend::Placement;
use adjoin_control_api::inference::model_config::SchedulingChoice;
use adjoin_control_api::inference::model_version_policy::PolicyChoice;
use adjoin_control_api::inference::{ModelConfig, ModelVersionPolicy};
use adjoin_input_transform::InputTransform;
use adjoin_schema::text::is_model_name;

pub use batching::{DynamicBatching, QueuePolicy, TimeoutAction};
pub use engine::Engine;
pub use ensemble::{Ensemble, Step};
pub use parameters::input_transform_key;
pub(crate) use tensors::word;
pub use tensors::{InputConfig, OutputConfig, TensorConfig};
pub use warm_up::{WarmUp, WarmUpData, WarmUpInput};

use crate::error::{ConfigError, Warning, quoted};
use crate::limits::{FILE_NAME_BYTES_MAX, MAX_BATCH_SIZE_MAX};
use crate::{fields, parse};
use instances::Instances;
pub(crate) use instances::wants_gpu;
use parameters::Parameters;

/// A model's configuration, checked. It may be a partial one: what only the model's file can say is then absent, and
/// [`complete`](crate::complete()) adds it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Checked {
    /// Name of the model, which is its directory's.
    pub name: String,
    /// What runs it; `None`: the first engine that accepts the file.
    pub engine: Option<Engine>,
    /// Which versions are served.
    pub version_policy: VersionPolicy,
    /// Most rows of one execution. At 0 requests are never joined, and dims are whole shapes; above, they are without the
    /// first dimension.
    pub max_batch_size: u32,
    /// Inputs that are configured, each name once.
    pub inputs: Vec<InputConfig>,
    /// Outputs that are configured, each name once. Those of the model that are not among them are not given, unless
    /// there are none.
    pub outputs: Vec<OutputConfig>,
    /// How requests wait and are joined; the defaults if the configuration does not say.
    pub batching: DynamicBatching,
    /// The steps, if other models do the work.
    pub ensemble: Option<Ensemble>,
    /// Instances, 1 or more.
    pub instances: u32,
    /// Where they run. `Host` for plans of TensorRT, which run on a device always.
    pub placement: Placement,
    /// Numbers of the devices that they are to run on, each once; none: the server's.
    pub gpus: Vec<u32>,
    /// The model's file in its version's directory, one path segment; `None`: `model.onnx`.
    pub default_model_filename: Option<String>,
    /// Threads of one instance for one operator; `None`: the server's own.
    pub intra_op_threads: Option<u32>,
    /// Parameters for the engine, which checks them: all of a step model that is built in, those that TensorRT knows.
    pub parameters: BTreeMap<String, String>,
    /// Inputs that clients send as bytes of pixels, by name. Of no step model and no ensemble.
    pub input_transforms: BTreeMap<String, InputTransform>,
    /// Runs before an instance is ready, in this order.
    pub warm_up: Vec<WarmUp>,
    /// Whether responses are kept to answer equal requests.
    pub response_cache: bool,
}

/// Which versions of a model are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionPolicy {
    /// Every version in the repository.
    All,
    /// The newest so many, at least 1.
    Latest {
        /// How many.
        count: usize,
    },
    /// These, ascending, at least one.
    Specific {
        /// Their numbers, from 1.
        versions: Vec<u64>,
    },
}

impl Checked {
    /// Checks the configuration of the model whose directory is `name`. Beside the checked form, what is set in vain.
    ///
    /// # Errors
    /// [`ConfigError::Unsupported`] for fields that this server does not have, [`ConfigError::Value`] for values that
    /// cannot be.
    pub fn new(name: &str, config: &ModelConfig) -> Result<(Self, Vec<Warning>), ConfigError> {
        let mut warnings = fields::check(&parse::dynamic(config))?;
        check_name(name, &config.name)?;
        let max_batch_size = bounded(
            "max_batch_size",
            config.max_batch_size,
            0..=MAX_BATCH_SIZE_MAX,
        )?;
        let inputs = tensors::inputs(&config.input)?;
        let outputs = tensors::outputs(&config.output)?;
        let ensemble = match &config.scheduling_choice {
            Some(SchedulingChoice::EnsembleScheduling(scheduling)) => {
                Some(Ensemble::new(name, scheduling, &inputs, &outputs)?)
            }
            _ => None,
        };
        let batching = match &config.scheduling_choice {
            Some(SchedulingChoice::DynamicBatching(batching)) => {
                DynamicBatching::new(batching, max_batch_size)?
            }
            _ => DynamicBatching::default(),
        };
        let engine = Engine::new(&config.platform, &config.backend, ensemble.is_some())?;
        let Parameters {
            intra_op_threads,
            input_transforms,
            of_engine,
        } = Parameters::new(&config.parameters, engine.as_ref(), &mut warnings)?;
        let Instances {
            count,
            placement,
            gpus,
        } = Instances::new(
            &config.instance_group,
            engine.as_ref(),
            config.optimization.as_ref(),
            &mut warnings,
        )?;
        let checked = Self {
            name: name.to_owned(),
            engine,
            version_policy: VersionPolicy::new(config.version_policy.as_ref())?,
            max_batch_size,
            inputs,
            outputs,
            batching,
            ensemble,
            instances: count,
            placement,
            gpus,
            default_model_filename: file_name(
                "default_model_filename",
                &config.default_model_filename,
            )?,
            intra_op_threads,
            parameters: of_engine,
            input_transforms,
            warm_up: warm_up::samples(&config.model_warmup, max_batch_size)?,
            response_cache: config.response_cache.is_some_and(|cache| cache.enable),
        };
        Ok((checked, warnings))
    }
}

impl VersionPolicy {
    fn new(policy: Option<&ModelVersionPolicy>) -> Result<Self, ConfigError> {
        match policy.and_then(|policy| policy.policy_choice.as_ref()) {
            None => Ok(Self::Latest { count: 1 }),
            Some(PolicyChoice::All(_)) => Ok(Self::All),
            Some(PolicyChoice::Latest(latest)) => {
                let path = "version_policy.latest.num_versions";
                let count = bounded(path, latest.num_versions, 1..=u32::MAX)?;
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                Ok(Self::Latest { count })
            }
            Some(PolicyChoice::Specific(specific)) => {
                let path = "version_policy.specific.versions";
                if specific.versions.is_empty() {
                    return Err(ConfigError::value(
                        path,
                        "empty",
                        "it names at least one version",
                    ));
                }
                let mut versions = Vec::new();
                for (index, &version) in specific.versions.iter().enumerate() {
                    let version = u64::try_from(version).ok().filter(|&number| number > 0);
                    versions.push(version.ok_or_else(|| {
                        let path = format!("{path}[{index}]");
                        ConfigError::value(path, specific.versions[index], "versions count from 1")
                    })?);
                }
                versions.sort_unstable();
                versions.dedup();
                Ok(Self::Specific { versions })
            }
        }
    }
}

fn check_name(directory: &str, configured: &str) -> Result<(), ConfigError> {
    if !is_model_name(directory) {
        let expected = "a model's name is letters, digits, '.', '_' and '-', not starting with a dot, at most 128 bytes";
        return Err(ConfigError::value("name", quoted(directory), expected));
    }
    if configured.is_empty() || configured == directory {
        return Ok(());
    }
    let expected = format!("it is absent or the name of the model's directory, {directory:?}");
    Err(ConfigError::value("name", quoted(configured), expected))
}

/// A number within bounds.
fn bounded<T>(
    path: impl Into<String>,
    value: T,
    bounds: std::ops::RangeInclusive<u32>,
) -> Result<u32, ConfigError>
where
    T: Copy + std::fmt::Display + TryInto<u32>,
{
    let number = value
        .try_into()
        .ok()
        .filter(|number| bounds.contains(number));
    number.ok_or_else(|| {
        let expected = match *bounds.end() {
            u32::MAX => format!("it is at least {}", bounds.start()),
            end => format!("it is {} to {end}", bounds.start()),
        };
        ConfigError::value(path, value, expected)
    })
}

/// The name of a file that has to lie in a directory which the caller knows: one path segment. `None` if there is none.
fn file_name(path: &str, name: &str) -> Result<Option<String>, ConfigError> {
    if name.is_empty() {
        return Ok(None);
    }
    let is_segment = ![".", ".."].contains(&name) && !name.contains(['/', '\\']);
    if is_segment && name.len() <= FILE_NAME_BYTES_MAX && !name.contains(char::is_control) {
        return Ok(Some(name.to_owned()));
    }
    let expected = format!(
        "it is the name of a file, at most {FILE_NAME_BYTES_MAX} bytes, without a directory and control characters"
    );
    Err(ConfigError::value(path, quoted(name), expected))
}

#[cfg(test)]
mod tests;
