//! Configuration: what the file says ([`mod@file`]) becomes checked values here, once, before anything starts.
//! Nothing below this module reads a file or an environment variable.

pub mod access;
pub mod file;
mod model_control;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adjoin_input_transform::{InputTransform, SpecError};
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::batch::policy::BatchPolicy;
use crate::batch::queue_policy::QueuePolicies;
use crate::devices::DeviceSettings;
use crate::model::ModelSettings;
use crate::oip::LogSettings;
use crate::oip::regions::RegionLimits;
use crate::repository::{EngineLibraries, Repository, VersionPolicy};
use crate::session::table::SessionLimits;
use access::AccessConfig;
pub use model_control::{ControlMode, ModelControl, POLL_INTERVAL_DEFAULT};

use file::{ConfigFile, InputTransformSection, ModelSection, TraceSection, VersionPolicySection};

/// Everything that a server needs to know.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The model repository.
    pub repository: Repository,
    /// Which of its models are loaded, and when.
    pub model_control: ModelControl,
    /// Directory of the sockets; made if it is not there.
    pub socket_dir: PathBuf,
    /// Whether a server that is alive in that directory is taken over from; otherwise it is in the way.
    pub takes_over: bool,
    /// Whether this server lives on when another one has taken over from it, until it is told to end.
    pub lingers: bool,
    /// TCP address of the Open Inference Protocol over gRPC, if wanted.
    pub grpc_addr: Option<SocketAddr>,
    /// TCP address of the Open Inference Protocol over HTTP, if wanted.
    pub http_addr: Option<SocketAddr>,
    /// TCP address of `/metrics`, if wanted.
    pub metrics_addr: Option<SocketAddr>,
    /// Where libraries of engines are, if not in the usual places.
    pub libraries: EngineLibraries,
    /// Directory whose files callers may register as regions, if any.
    pub named_shm: Option<PathBuf>,
    /// What is logged, and how that is changed.
    pub log: LogSettings,
    /// From the configuration file.
    pub file: CheckedFile,
}

/// The checked content of the configuration file.
#[derive(Clone, Debug)]
pub struct CheckedFile {
    /// Longest look at the rings before a worker sleeps.
    pub spin: Duration,
    /// Longest wait for requests in flight when the server ends.
    pub drain_timeout: Duration,
    /// Permission bits of the sockets that clients reach.
    pub socket_mode: u32,
    /// Users that may open sessions; none: all who can reach the socket.
    pub allow_uids: Vec<u32>,
    /// Quotas of sessions.
    pub limits: SessionLimits,
    /// Hundredths of the control group's memory limit up to which sessions are opened; 0: it is not looked at.
    pub memory_percent: u8,
    /// Bytes of answers that are kept.
    pub response_cache_bytes: u64,
    /// What callers may register and have copied of named shared memory.
    pub region_limits: RegionLimits,
    /// Connections of each listener at once.
    pub connection_count_max: usize,
    /// Bytes of all messages over gRPC and HTTP together.
    pub message_bytes_max: u64,
    /// Who may do what.
    pub access: AccessConfig,
    /// Traces of requests, if a collector is named.
    pub trace: Option<TraceConfig>,
    /// The GPU, if it must be there.
    pub cuda: Option<DeviceSettings>,
    /// Where engines are kept that are built of models for the GPU, if there is a place.
    pub engine_cache: Option<PathBuf>,
    defaults: ModelSection,
    models: BTreeMap<String, ModelSection>,
}

/// Where traces of requests go.
#[derive(Clone, Debug)]
pub struct TraceConfig {
    /// Address of the collector.
    pub otlp_endpoint: String,
    /// One request of so many is traced, beside those whose callers want it; 0: only these.
    pub rate: u32,
}

/// How one model is loaded and served.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// Name of the engine; `None`: the first that is there and accepts the file.
    pub engine: Option<String>,
    /// Inputs that clients send as bytes of pixels, by name, as the server's file has them.
    pub input_transforms: BTreeMap<String, InputTransform>,
    /// Which versions are served.
    pub version_policy: VersionPolicy,
    /// Version labels.
    pub labels: BTreeMap<String, u64>,
    /// Threads of one instance for one operator.
    pub intra_op_threads: usize,
    /// Whether to run the model before it is ready.
    pub warm_up: bool,
    /// Most rows; `None`: from the model's own description.
    pub max_batch_size: Option<u32>,
    preferred_batch_sizes: Vec<u32>,
    max_queue_delay: Duration,
    queue_count_max: usize,
    instances: u32,
    priority_levels: u16,
    default_priority: u16,
}

/// Most rows of a batch where the model has a batch dimension and nothing is configured.
pub const MAX_BATCH_SIZE_DEFAULT: u32 = 32;

/// Why a configuration is refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("configuration {}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A value that cannot be.
    #[error("configuration: {key} is {value}; {expected}")]
    Value {
        /// Its place in the file.
        key: String,
        /// What it is.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// Numbers that are no input transform.
    #[error("configuration: {key}: {source}")]
    InputTransform {
        /// Its place in the file.
        key: String,
        /// What is wrong.
        source: SpecError,
    },
}

fn check(
    is_good: bool,
    key: &str,
    value: impl ToString,
    expected: &'static str,
) -> Result<(), ConfigError> {
    if is_good {
        return Ok(());
    }
    Err(ConfigError::Value {
        key: key.to_owned(),
        value: value.to_string(),
        expected,
    })
}

/// Where engines are kept if nobody says it: in the cache directory of the service, or else of the user.
fn engine_cache(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let directory = |name: &str| {
        let path = variable(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    // What systemd gives a service; it may give several.
    let service = variable("CACHE_DIRECTORY").and_then(|paths| {
        let first = paths.to_str()?.split(':').next()?;
        Some(PathBuf::from(first)).filter(|path| path.is_absolute())
    });
    service
        .map(|service| service.join("engines"))
        .or_else(|| Some(directory("XDG_CACHE_HOME")?.join("adjoin/engines")))
        .or_else(|| Some(directory("HOME")?.join(".cache/adjoin/engines")))
}

fn trace(section: TraceSection) -> Result<Option<TraceConfig>, ConfigError> {
    let Some(otlp_endpoint) = section.otlp_endpoint else {
        return Ok(None);
    };
    check(
        crate::control::can_trace_to(&otlp_endpoint),
        "trace.otlp_endpoint",
        format!("{otlp_endpoint:?}"),
        if cfg!(feature = "otlp") {
            "it is http://HOST:PORT, without TLS"
        } else {
            "this build of the server sends no traces"
        },
    )?;
    let rate = section.rate;
    Ok(Some(TraceConfig {
        otlp_endpoint,
        rate,
    }))
}

impl CheckedFile {
    /// Reads and checks a configuration file; without one, all values are the defaults.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else {
            return Self::parse("", Path::new(""));
        };
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Checks the text of a configuration file; `path` is for messages.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file: ConfigFile = toml::from_str(text).map_err(|source| ConfigError::Malformed {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let server = &file.server;
        let socket_mode = u32::from_str_radix(&server.socket_mode, 8).unwrap_or(u32::MAX);
        check(
            socket_mode <= 0o777,
            "server.socket_mode",
            &server.socket_mode,
            "it is octal, such as \"660\"",
        )?;
        let limits = SessionLimits {
            session_count_max: file.limits.sessions,
            session_bytes_max: file.limits.session_bytes,
            user_bytes_max: file.limits.user_bytes,
            total_bytes_max: file.limits.total_bytes,
        };
        check(
            limits.session_count_max > 0,
            "limits.sessions",
            0,
            "it is at least 1",
        )?;
        let memory_percent = file.limits.memory_percent;
        check(
            memory_percent <= 100,
            "limits.memory_percent",
            memory_percent,
            "it is 0 to 100; 0 does not look at the memory limit",
        )?;
        let connections = file.limits.connections;
        check(
            (1..=Semaphore::MAX_PERMITS).contains(&connections),
            "limits.connections",
            connections,
            "it is at least 1",
        )?;
        check(
            file.limits.message_bytes > 0,
            "limits.message_bytes",
            0,
            "it is at least 1; one message has up to 256 MiB",
        )?;
        let checked = Self {
            spin: Duration::from_micros(server.spin_us),
            drain_timeout: Duration::from_millis(server.drain_timeout_ms),
            socket_mode,
            allow_uids: server.allow_uids.clone(),
            limits,
            memory_percent,
            response_cache_bytes: file.limits.response_cache_bytes,
            region_limits: RegionLimits {
                count_max: file.limits.named_regions,
                owner_count_max: file.limits.user_named_regions,
                call_bytes_max: file.limits.named_call_bytes,
            },
            connection_count_max: connections,
            message_bytes_max: file.limits.message_bytes,
            access: file.access.checked()?,
            trace: trace(file.trace)?,
            cuda: file.cuda.as_ref().map(DeviceSettings::from),
            engine_cache: file
                .cuda
                .and_then(|section| section.engine_cache_dir)
                .or_else(|| engine_cache(|name| std::env::var_os(name))),
            defaults: file.defaults,
            models: file.models,
        };
        for name in checked.models.keys() {
            check(
                adjoin_schema::text::is_model_name(name),
                "models",
                name,
                "a model's name is letters, digits, '.', '_' and '-'",
            )?;
            checked.model(name)?;
        }
        checked.model("defaults")?;
        let of_all = checked.defaults.input_transforms.as_ref();
        check(
            of_all.is_none(),
            "defaults.input_transforms",
            "set",
            "models have inputs of their own; it belongs into [models.NAME]",
        )?;
        Ok(checked)
    }

    /// Number of the GPU.
    pub fn device(&self) -> u32 {
        self.cuda.unwrap_or_default().device
    }

    /// What the file says of one model itself.
    pub fn section(&self, name: &str) -> ModelSection {
        self.models.get(name).cloned().unwrap_or_default()
    }

    /// What holds for models that do not say otherwise.
    pub fn defaults(&self) -> &ModelSection {
        &self.defaults
    }

    /// The configuration of one model: its own section over the defaults.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn model(&self, name: &str) -> Result<ModelConfig, ConfigError> {
        ModelConfig::new(name, self.section(name).over(&self.defaults))
    }
}

impl ModelConfig {
    /// The configuration of the model `name` that a section comes to.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn new(name: &str, section: ModelSection) -> Result<Self, ConfigError> {
        let key = |field: &str| format!("models.{name}.{field}");
        if let Some(engine) = &section.engine {
            let is_known = ["onnxruntime", "rten", "tensorrt"].contains(&engine.as_str());
            check(
                is_known,
                &key("engine"),
                engine,
                "it is \"onnxruntime\", \"rten\" or \"tensorrt\"",
            )?;
        }
        let instances = section.instances.unwrap_or(1);
        check(
            (1..=64).contains(&instances),
            &key("instances"),
            instances,
            "it is 1 to 64",
        )?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shared_out = (cores / instances as usize).max(1);
        let intra_op_threads = section.intra_op_threads.unwrap_or(shared_out);
        check(
            (1..=256).contains(&intra_op_threads),
            &key("intra_op_threads"),
            intra_op_threads,
            "it is 1 to 256",
        )?;
        let mut preferred = section.preferred_batch_sizes.unwrap_or_default();
        preferred.sort_unstable();
        let most = section.max_batch_size.unwrap_or(MAX_BATCH_SIZE_DEFAULT);
        check(
            most <= 65_536,
            &key("max_batch_size"),
            most,
            "it is at most 65536; 0 never joins requests",
        )?;
        let fits = preferred.iter().all(|size| (1..=most).contains(size));
        check(
            fits,
            &key("preferred_batch_sizes"),
            format!("{preferred:?}"),
            "each is from 1 to max_batch_size",
        )?;
        let queue_count_max = section.queue_limit.unwrap_or(4096);
        check(
            queue_count_max > 0,
            &key("queue_limit"),
            queue_count_max,
            "it is at least 1",
        )?;
        let priority_levels = section.priority_levels.unwrap_or(1);
        check(
            priority_levels > 0,
            &key("priority_levels"),
            priority_levels,
            "it is at least 1",
        )?;
        let default_priority = section.default_priority.unwrap_or(priority_levels);
        let is_level = (1..=priority_levels).contains(&default_priority);
        check(
            is_level,
            &key("default_priority"),
            default_priority,
            "it is from 1 to priority_levels",
        )?;
        let version_policy = match section.version_policy {
            None => VersionPolicy::Latest { count: 1 },
            Some(VersionPolicySection::All) => VersionPolicy::All,
            Some(VersionPolicySection::Latest(count)) => VersionPolicy::Latest { count },
            Some(VersionPolicySection::Specific(versions)) => VersionPolicy::Specific { versions },
        };
        let is_empty = matches!(&version_policy, VersionPolicy::Latest { count: 0 })
            || matches!(&version_policy, VersionPolicy::Specific { versions } if versions.is_empty());
        check(
            !is_empty,
            &key("version_policy"),
            format!("{version_policy:?}"),
            "it serves at least one version",
        )?;
        let transforms = section.input_transforms.unwrap_or_default();
        let transforms = transforms.into_iter().map(|(input, section)| {
            let key = key(&format!("input_transforms.{input}"));
            let InputTransformSection { scale, mean, std } = section;
            let transform = InputTransform::new(scale, mean, std);
            let transform =
                transform.map_err(|source| ConfigError::InputTransform { key, source })?;
            Ok((input, transform))
        });
        let input_transforms = transforms.collect::<Result<_, ConfigError>>()?;
        Ok(Self {
            engine: section.engine,
            input_transforms,
            version_policy,
            labels: section.labels.unwrap_or_default(),
            intra_op_threads,
            warm_up: section.warm_up.unwrap_or(true),
            max_batch_size: section.max_batch_size,
            preferred_batch_sizes: preferred,
            max_queue_delay: Duration::from_micros(section.max_queue_delay_us.unwrap_or(0)),
            queue_count_max,
            instances,
            priority_levels,
            default_priority,
        })
    }

    /// The settings for batches of at most so many rows, or with 0 for requests that are never joined.
    #[must_use]
    pub fn settings(&self, max_batch_size: u32) -> ModelSettings {
        let policy = BatchPolicy {
            max_batch_size,
            preferred_batch_sizes: self
                .preferred_batch_sizes
                .iter()
                .copied()
                .filter(|&s| s <= max_batch_size)
                .collect(),
            max_queue_delay_ns: u64::try_from(self.max_queue_delay.as_nanos()).unwrap_or(u64::MAX),
        };
        let policy = if max_batch_size == 0 {
            BatchPolicy::single()
        } else {
            policy
        };
        ModelSettings {
            policy,
            max_batch_size,
            queue_count_max: self.queue_count_max,
            instances: self.instances,
            priority_levels: self.priority_levels,
            default_priority: self.default_priority,
            queue: QueuePolicies::default(),
            response_cache: false,
        }
    }
}

#[cfg(test)]
mod tests;
