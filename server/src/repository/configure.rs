//! What a model's directory, a load request and the server's configuration say of a model, put together.
//!
//! `[models.NAME]` of the server's file stands over `config.pbtxt`, key by key, that over `[defaults]`, and what nobody
//! says comes from the model itself. The JSON of a load request takes the place of `config.pbtxt`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::time::Duration;

use adjoin_backend::{ModelMetadata, RowsMax};
use adjoin_control_api::inference::model_config::SchedulingChoice;
use adjoin_control_api::inference::model_instance_group::Kind;
use adjoin_control_api::inference::model_version_policy::{All, Latest, PolicyChoice, Specific};
use adjoin_control_api::inference::{
    ModelDynamicBatching, ModelInstanceGroup, ModelParameter, ModelVersionPolicy,
};
use adjoin_input_transform::InputTransform;
use adjoin_model_config::{
    CONFIG_BYTES_MAX, Checked, ConfigError as ModelConfigError, Defaults, Engine,
    ModelConfig as Message, complete, input_transform_key, parse_json, parse_text,
};
use thiserror::Error;

use super::{FoundModel, VersionPolicy};
use crate::batch::queue_policy::{LevelPolicy, QueuePolicies, TimeoutAction};
use crate::config::file::{ModelSection, VersionPolicySection};
use crate::config::{CheckedFile, ConfigError, MAX_BATCH_SIZE_DEFAULT, ModelConfig};
use crate::ensemble;
use crate::model::ModelSettings;

/// The file in a model's directory that configures it.
const CONFIG_FILE: &str = "config.pbtxt";

/// Why a model's configuration is refused.
#[derive(Debug, Error)]
pub enum ConfigureError {
    /// What the server's file says.
    #[error(transparent)]
    Server(#[from] ConfigError),
    /// What `config.pbtxt` or a load request says.
    #[error("{place}: {error}")]
    Model {
        /// Where it says so.
        place: &'static str,
        /// What is wrong.
        error: ModelConfigError,
    },
    /// A file of the configuration cannot be read.
    #[error("cannot read {name}: {source}")]
    Unreadable {
        /// Its name in the model's directory.
        name: String,
        /// The system's error.
        source: std::io::Error,
    },
}

/// A model's configuration, before the model itself is known.
#[derive(Debug)]
pub(super) struct Configured {
    /// What the server's file and the other one come to.
    pub(super) config: ModelConfig,
    /// The other one, checked as far as it goes without the model: tensors may lack what the model says of them.
    pub(super) checked: Checked,
    /// The other one, with what stands over it.
    message: Message,
    /// Where the other one is from.
    place: &'static str,
    /// Most rows for a model with a batch dimension, where nobody says it.
    max_batch_size_default: u32,
}

/// A configuration with everything that the model leaves to it.
#[derive(Debug)]
pub(super) struct Complete {
    /// As the protocol shows it.
    pub(super) message: Message,
    /// As the server acts on it.
    pub(super) checked: Checked,
    /// How it is served.
    pub(super) settings: ModelSettings,
}

impl Configured {
    /// The configuration of a model that was found; `json` of a load request takes the place of its file.
    ///
    /// # Errors
    /// See [`ConfigureError`].
    pub(super) fn new(
        file: &CheckedFile,
        found: &FoundModel,
        json: Option<&str>,
    ) -> Result<Self, ConfigureError> {
        let place = match json {
            Some(_) => "the configuration of the load request",
            None => CONFIG_FILE,
        };
        let wrong = |error| ConfigureError::Model { place, error };
        let written = match json {
            Some(json) => Some(parse_json(json).map_err(wrong)?),
            None => match read_text(found)? {
                Some(text) => Some(parse_text(&text).map_err(wrong)?),
                None => None,
            },
        };
        let mut defaults = file.defaults().clone();
        let max_batch_size_default = defaults.max_batch_size.unwrap_or(MAX_BATCH_SIZE_DEFAULT);
        if written.is_some() {
            // What a written configuration does not say of this comes from the model.
            defaults.max_batch_size = None;
        }
        let own = file.section(&found.name);
        let mut message = written.unwrap_or_default();
        let transforms = file.model(&found.name)?.input_transforms;
        put_over(&mut message, &own, &transforms);
        let (checked, _) = Checked::new(&found.name, &without_tensors(&message)).map_err(wrong)?;
        let section = own.over(&section(&message, &checked).over(&defaults));
        let config = ModelConfig::new(&found.name, section)?;
        Ok(Self {
            config,
            checked,
            message,
            place,
            max_batch_size_default,
        })
    }

    /// The engine that was asked for by a name which the server's file does not know.
    pub(super) fn special_engine(&self) -> Option<&str> {
        match &self.checked.engine {
            Some(Engine::BuiltIn(name)) => Some(name),
            Some(Engine::Ensemble) => Some(ensemble::ENGINE),
            _ => None,
        }
    }

    /// Most rows of a batch, before the model is known.
    pub(super) fn rows_max(&self) -> RowsMax {
        match self.config.max_batch_size {
            Some(rows) => RowsMax::Configured(rows),
            None => RowsMax::Default(self.max_batch_size_default),
        }
    }

    /// That the model is to run on device number `device`, if it says on which.
    ///
    /// # Errors
    /// [`ConfigureError::Model`] with the device that it names and the one that there is.
    pub(super) fn check_device(&self, device: u32) -> Result<(), ConfigureError> {
        match self.checked.gpus.iter().find(|&&named| named != device) {
            None => Ok(()),
            Some(other) => Err(ConfigureError::Model {
                place: self.place,
                error: ModelConfigError::Value {
                    path: "instance_group.gpus".to_owned(),
                    value: other.to_string(),
                    expected: format!(
                        "this server has one device, number {device} (`device` of [cuda] in its configuration)"
                    ),
                },
            }),
        }
    }

    /// With what the model says itself, as the engine of that name has read it; `rows_max` is the most rows that it takes,
    /// if it says so.
    ///
    /// # Errors
    /// [`ConfigureError::Model`] if the whole cannot be.
    pub(super) fn complete(
        &self,
        engine: &str,
        metadata: &ModelMetadata,
        rows_max: Option<u32>,
    ) -> Result<Complete, ConfigureError> {
        let wrong = |error| ConfigureError::Model {
            place: self.place,
            error,
        };
        let name = &self.checked.name;
        let of_model = rows_max
            .unwrap_or(u32::MAX)
            .min(self.max_batch_size_default);
        let defaults = Defaults {
            engine: match engine {
                "rten" => Engine::Rten,
                "onnxruntime" => Engine::OnnxRuntime,
                "tensorrt" => Engine::TensorRt,
                ensemble::ENGINE => Engine::Ensemble,
                other => Engine::BuiltIn(other.to_owned()),
            },
            max_batch_size: self.config.max_batch_size.unwrap_or(of_model),
        };
        let mut message = self.message.clone();
        if let (Some(size), 0) = (self.config.max_batch_size, message.max_batch_size) {
            message.max_batch_size = i32::try_from(size).unwrap_or(i32::MAX);
        }
        let mut message = complete(name, &message, Some(metadata), &defaults);
        let max_batch_size = u32::try_from(message.max_batch_size).unwrap_or(0);
        let mut settings = self.config.settings(max_batch_size);
        say_settings(&mut message, &settings, &self.config.version_policy);
        let (checked, warnings) = Checked::new(name, &message).map_err(wrong)?;
        for warning in warnings {
            tracing::warn!(model = name, "{}: {warning}", self.place);
        }
        settings.queue = queue_policies(&checked);
        settings.response_cache = checked.response_cache;
        Ok(Complete {
            message,
            checked,
            settings,
        })
    }

    /// Whether the configuration says what the model does.
    ///
    /// # Errors
    /// [`ConfigureError::Model`] with what is configured and what is there.
    pub(super) fn check_fit(
        &self,
        checked: &Checked,
        metadata: &ModelMetadata,
    ) -> Result<(), ConfigureError> {
        checked
            .fits(metadata)
            .map_err(|error| ConfigureError::Model {
                place: self.place,
                error,
            })
    }
}

/// The text of `config.pbtxt`, if there is one.
fn read_text(found: &FoundModel) -> Result<Option<String>, ConfigureError> {
    let unreadable = |source| ConfigureError::Unreadable {
        name: CONFIG_FILE.to_owned(),
        source,
    };
    let file = match File::open(found.path.join(CONFIG_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut text = String::new();
    // One byte more than may be, so that the parser sees it.
    let limit = CONFIG_BYTES_MAX as u64 + 1;
    file.take(limit)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    Ok(Some(text))
}

/// Puts what the server's file says into the message, as far as the check of the rest depends on it.
fn put_over(
    message: &mut Message,
    own: &ModelSection,
    transforms: &BTreeMap<String, InputTransform>,
) {
    if let Some(engine) = &own.engine {
        message.platform.clear();
        message.backend.clone_from(engine);
    }
    if let Some(size) = own.max_batch_size {
        message.max_batch_size = i32::try_from(size).unwrap_or(i32::MAX);
    }
    if let (Some(sizes), Some(batching)) = (&own.preferred_batch_sizes, batching_of(message)) {
        batching.preferred_batch_size = sizes.iter().map(|&size| size.cast_signed()).collect();
    }
    for (input, transform) in transforms {
        let value = ModelParameter {
            string_value: transform.to_string(),
        };
        message.parameters.insert(input_transform_key(input), value);
    }
}

/// What can be checked before the model is known. An ensemble has no model.
fn without_tensors(message: &Message) -> Message {
    let mut message = message.clone();
    if !matches!(
        message.scheduling_choice,
        Some(SchedulingChoice::EnsembleScheduling(_))
    ) {
        message.input.clear();
        message.output.clear();
        message.model_warmup.clear();
    }
    message
}

fn batching_of(message: &mut Message) -> Option<&mut ModelDynamicBatching> {
    match &mut message.scheduling_choice {
        Some(SchedulingChoice::DynamicBatching(batching)) => Some(batching),
        _ => None,
    }
}

/// What a message says, in the words of the server's file; nothing where it says nothing.
fn section(message: &Message, checked: &Checked) -> ModelSection {
    let batching = match &message.scheduling_choice {
        Some(SchedulingChoice::DynamicBatching(batching)) => Some(batching),
        _ => None,
    };
    let has_levels = batching.is_some_and(|batching| batching.priority_levels > 0);
    let levels = has_levels.then_some(&checked.batching);
    ModelSection {
        engine: match checked.engine {
            Some(Engine::OnnxRuntime) => Some("onnxruntime".into()),
            Some(Engine::Rten) => Some("rten".into()),
            Some(Engine::TensorRt) => Some("tensorrt".into()),
            _ => None,
        },
        instances: (!message.instance_group.is_empty()).then_some(checked.instances),
        intra_op_threads: checked.intra_op_threads.map(|threads| threads as usize),
        max_batch_size: Some(checked.max_batch_size).filter(|&size| size > 0),
        preferred_batch_sizes: batching
            .filter(|batching| !batching.preferred_batch_size.is_empty())
            .map(|_| checked.batching.preferred_batch_sizes.clone()),
        max_queue_delay_us: batching
            .map(|batching| batching.max_queue_delay_microseconds)
            .filter(|&delay_us| delay_us > 0),
        queue_limit: None,
        priority_levels: levels.map(|levels| levels.priority_levels),
        default_priority: levels.map(|levels| levels.default_priority_level),
        version_policy: message
            .version_policy
            .is_some()
            .then(|| match &checked.version_policy {
                adjoin_model_config::VersionPolicy::All => VersionPolicySection::All,
                adjoin_model_config::VersionPolicy::Latest { count } => {
                    VersionPolicySection::Latest(*count)
                }
                adjoin_model_config::VersionPolicy::Specific { versions } => {
                    VersionPolicySection::Specific(versions.clone())
                }
            }),
        labels: None,
        warm_up: None,
        input_transforms: None,
    }
}

/// Writes what the server acts on into a complete message.
fn say_settings(message: &mut Message, settings: &ModelSettings, versions: &VersionPolicy) {
    if !matches!(
        message.scheduling_choice,
        Some(SchedulingChoice::EnsembleScheduling(_))
    ) {
        let counted: u32 = (message.instance_group.iter())
            .map(|group| group.count.max(1).unsigned_abs())
            .sum();
        if counted != settings.instances {
            // All groups are of one kind.
            let kind = message.instance_group.first();
            let kind = kind.map_or(Kind::Cpu, ModelInstanceGroup::kind);
            message.instance_group = vec![ModelInstanceGroup {
                count: i32::try_from(settings.instances).unwrap_or(i32::MAX),
                kind: kind.into(),
                ..ModelInstanceGroup::default()
            }];
        }
        let says_more = settings.priority_levels > 1 || settings.policy.max_queue_delay_ns > 0;
        if says_more && message.scheduling_choice.is_none() {
            let batching = ModelDynamicBatching::default();
            message.scheduling_choice = Some(SchedulingChoice::DynamicBatching(batching));
        }
    }
    if let Some(batching) = batching_of(message) {
        let policy = &settings.policy;
        batching.preferred_batch_size = (policy.preferred_batch_sizes.iter())
            .map(|&size| size.cast_signed())
            .collect();
        batching.max_queue_delay_microseconds = policy.max_queue_delay_ns / 1000;
        if settings.priority_levels > 1 {
            batching.priority_levels = settings.priority_levels.into();
            batching.default_priority_level = settings.default_priority.into();
        }
    }
    let numbers = |versions: &[u64]| {
        let number = |&version: &u64| i64::try_from(version).unwrap_or(i64::MAX);
        versions.iter().map(number).collect()
    };
    message.version_policy = Some(ModelVersionPolicy {
        policy_choice: Some(match versions {
            VersionPolicy::All => PolicyChoice::All(All {}),
            VersionPolicy::Latest { count } => PolicyChoice::Latest(Latest {
                num_versions: u32::try_from(*count).unwrap_or(u32::MAX),
            }),
            VersionPolicy::Specific { versions } => PolicyChoice::Specific(Specific {
                versions: numbers(versions),
            }),
        }),
    });
}

fn queue_policies(checked: &Checked) -> QueuePolicies {
    use adjoin_model_config::{QueuePolicy, TimeoutAction as Word};
    let level = |policy: &QueuePolicy| LevelPolicy {
        timeout_action: match policy.timeout_action {
            Word::Reject => TimeoutAction::Reject,
            Word::Delay => TimeoutAction::Delay,
        },
        default_timeout_ns: policy.default_timeout.map_or(u64::MAX, nanoseconds),
        allow_timeout_override: policy.allow_timeout_override,
        count_max: policy
            .max_queue_size
            .map_or(usize::MAX, |count| count as usize),
    };
    let batching = &checked.batching;
    QueuePolicies {
        default: level(&batching.default_queue_policy),
        levels: (batching.priority_queue_policy.iter())
            .map(|(&priority, policy)| (priority, level(policy)))
            .collect(),
        is_in_order: batching.preserve_ordering,
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
