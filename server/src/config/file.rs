//! The configuration file as it is written (TOML). Every key is optional; unknown keys are refused.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::access::AccessSection;
use crate::devices::DeviceSettings;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigFile {
    /// The server as a whole.
    pub server: ServerSection,
    /// Quotas of sessions.
    pub limits: LimitsSection,
    /// Who may do what.
    pub access: AccessSection,
    /// Traces of requests.
    pub trace: TraceSection,
    /// The GPU. Without this section it is opened when an engine wants it.
    pub cuda: Option<CudaSection>,
    /// What holds for models that do not say otherwise.
    pub defaults: ModelSection,
    /// Models by name.
    pub models: BTreeMap<String, ModelSection>,
}

/// `[server]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSection {
    /// Longest look at the rings before a worker sleeps, in microseconds; 0 never spins. Default 50.
    pub spin_us: u64,
    /// Longest wait for requests in flight when the server ends, in milliseconds. Default 30000.
    pub drain_timeout_ms: u64,
    /// Permission bits of the sockets that clients reach, octal. Default "660".
    pub socket_mode: String,
    /// Users that may open sessions; none (the default): all who can reach the socket.
    pub allow_uids: Vec<u32>,
}

/// `[limits]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSection {
    /// Sessions at once. Default 256.
    pub sessions: usize,
    /// Region bytes of one session. Default 1 GiB.
    pub session_bytes: u64,
    /// Region bytes of one user's sessions. Default 4 GiB.
    pub user_bytes: u64,
    /// Region bytes of all sessions. Default 8 GiB.
    pub total_bytes: u64,
    /// Hundredths of the control group's memory limit up to which sessions are opened; 0 does not look at it. Default 90.
    pub memory_percent: u8,
    /// Bytes of answers that are kept for models with a response cache, of calls of the Open Inference Protocol. Default
    /// 64 MiB.
    pub response_cache_bytes: u64,
    /// Named shared-memory regions of all callers. Default 4096.
    pub named_regions: usize,
    /// The same of one caller. Default 1024.
    pub user_named_regions: usize,
    /// Bytes that one call may have copied from named regions. Default 256 MiB.
    pub named_call_bytes: u64,
    /// Connections of each listener at once, sessions aside. Default 1024.
    pub connections: usize,
    /// Bytes of the messages of all calls over gRPC and HTTP that are being sent or worked on. Default 1 GiB.
    pub message_bytes: u64,
}

/// `[trace]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceSection {
    /// A collector that takes OTLP over gRPC, such as `http://127.0.0.1:4317`. Default: none, and no traces.
    pub otlp_endpoint: Option<String>,
    /// One request of so many is traced, beside those whose callers want it; 0: only these. Default 1000.
    pub rate: u32,
}

/// `[cuda]`, of a server that is built with the feature `cuda`: it does not start without the device.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CudaSection {
    /// Number of the device, from 0, in the driver's order. Default 0.
    pub device: u32,
    /// Bytes of sessions' regions that are pinned for it; those of further sessions are staged. Default 4 GiB.
    pub registered_bytes: u64,
    /// Bytes of pinned memory for what is not registered. Default 256 MiB.
    pub staging_bytes: usize,
    /// How often a device that was lost is brought back, until it has worked for ten minutes; 0: never. Default 5.
    pub recovery_attempts: u32,
    /// For how many microseconds, at most, a worker looks at the end of a batch before it sleeps until the driver wakes it;
    /// 0 sleeps at once. Default 200.
    pub spin_us: u64,
    /// Regions on the device that a session may share; 0: none. Default 64.
    pub shared_regions: u32,
    /// Bytes of device memory that a session may share. Default 8 GiB.
    pub shared_session_bytes: u64,
    /// Bytes of device memory that all sessions of a user may share. Default 16 GiB.
    pub shared_user_bytes: u64,
    /// Where engines are kept that ONNX Runtime builds of models with TensorRT. Default: `adjoin/engines` in the cache
    /// directory of the service or the user.
    pub engine_cache_dir: Option<PathBuf>,
}

/// `[defaults]` and `[models.NAME]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSection {
    /// `onnxruntime`, `rten` or `tensorrt`. Default: ONNX Runtime where its library is found, else rten.
    pub engine: Option<String>,
    /// Instances, each running one batch at a time. Default 1.
    pub instances: Option<u32>,
    /// Threads of one instance for one operator. Default: the cores, divided by the instances.
    pub intra_op_threads: Option<usize>,
    /// Most rows of one execution; 0 never joins requests. Default 32 where all inputs and outputs share a
    /// named first dimension, else 0.
    pub max_batch_size: Option<u32>,
    /// Sizes at which a batch goes off before the delay is over.
    pub preferred_batch_sizes: Option<Vec<u32>>,
    /// How long the oldest request may wait for others, in microseconds. Default 0.
    pub max_queue_delay_us: Option<u64>,
    /// Most waiting requests. Default 4096.
    pub queue_limit: Option<usize>,
    /// Priority levels, 1 being the most urgent. Requests that ask for a level beyond get the last. Default 1: all requests
    /// are equal, so that no client can push itself before others.
    pub priority_levels: Option<u16>,
    /// Level of requests that ask for none. Default: the last.
    pub default_priority: Option<u16>,
    /// `"all"`, `{ latest = N }` or `{ specific = [1, 3] }`. Default `{ latest = 1 }`.
    pub version_policy: Option<VersionPolicySection>,
    /// Version labels, such as `{ stable = 3 }`.
    pub labels: Option<BTreeMap<String, u64>>,
    /// Whether to run the model before it is ready. Default true.
    pub warm_up: Option<bool>,
    /// Inputs of floats, channels first, that clients send as bytes, channels last. Not in `[defaults]`.
    pub input_transforms: Option<BTreeMap<String, InputTransformSection>>,
}

/// `[models.NAME.input_transforms.INPUT]`: each byte becomes (byte * scale - mean) / std.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InputTransformSection {
    /// What each byte is multiplied with. Default 1/255.
    pub scale: Option<f32>,
    /// One number for all channels, or one for each. Default 0.
    pub mean: Option<Vec<f32>>,
    /// As `mean`. Default 1.
    pub std: Option<Vec<f32>>,
}

/// Which versions of a model are served.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionPolicySection {
    /// Every version in the repository.
    All,
    /// The newest so many.
    Latest(usize),
    /// These.
    Specific(Vec<u64>),
}

impl Default for ServerSection {
    fn default() -> Self {
        Self {
            spin_us: 50,
            drain_timeout_ms: 30_000,
            socket_mode: "660".into(),
            allow_uids: Vec::new(),
        }
    }
}

impl Default for CudaSection {
    fn default() -> Self {
        let DeviceSettings {
            device,
            registered_bytes,
            staging_bytes,
            recovery_attempts,
            spin,
            shared_regions,
            shared_session_bytes,
            shared_user_bytes,
        } = DeviceSettings::default();
        Self {
            device,
            registered_bytes,
            staging_bytes,
            recovery_attempts,
            spin_us: u64::try_from(spin.as_micros()).unwrap_or(u64::MAX),
            shared_regions,
            shared_session_bytes,
            shared_user_bytes,
            engine_cache_dir: None,
        }
    }
}

impl From<&CudaSection> for DeviceSettings {
    fn from(section: &CudaSection) -> Self {
        Self {
            device: section.device,
            registered_bytes: section.registered_bytes,
            staging_bytes: section.staging_bytes,
            recovery_attempts: section.recovery_attempts,
            spin: Duration::from_micros(section.spin_us),
            shared_regions: section.shared_regions,
            shared_session_bytes: section.shared_session_bytes,
            shared_user_bytes: section.shared_user_bytes,
        }
    }
}

impl Default for TraceSection {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            rate: 1000,
        }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            sessions: 256,
            session_bytes: 1 << 30,
            user_bytes: 4 << 30,
            total_bytes: 8 << 30,
            memory_percent: 90,
            response_cache_bytes: 64 << 20,
            named_regions: 4096,
            user_named_regions: 1024,
            named_call_bytes: 256 << 20,
            connections: 1024,
            message_bytes: 1 << 30,
        }
    }
}

impl ModelSection {
    /// This section, with the values of `defaults` where it has none.
    #[must_use]
    pub fn over(self, defaults: &Self) -> Self {
        let defaults = defaults.clone();
        Self {
            engine: self.engine.or(defaults.engine),
            instances: self.instances.or(defaults.instances),
            intra_op_threads: self.intra_op_threads.or(defaults.intra_op_threads),
            max_batch_size: self.max_batch_size.or(defaults.max_batch_size),
            preferred_batch_sizes: self
                .preferred_batch_sizes
                .or(defaults.preferred_batch_sizes),
            max_queue_delay_us: self.max_queue_delay_us.or(defaults.max_queue_delay_us),
            queue_limit: self.queue_limit.or(defaults.queue_limit),
            priority_levels: self.priority_levels.or(defaults.priority_levels),
            default_priority: self.default_priority.or(defaults.default_priority),
            version_policy: self.version_policy.or(defaults.version_policy),
            labels: self.labels.or(defaults.labels),
            warm_up: self.warm_up.or(defaults.warm_up),
            input_transforms: self.input_transforms.or(defaults.input_transforms),
        }
    }
}
