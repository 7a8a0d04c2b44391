//! What is counted, by whom, under which name. The only module that names the metrics library.

mod device;
mod distribution;
pub mod endpoint;
mod memory;
mod model;
mod triton;

use std::collections::BTreeMap;
use std::sync::Arc;

use adjoin_schema::status::Status;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use device::DeviceMetrics;
pub use memory::{MemoryGauges, MemoryValues};
use model::Families;
pub use model::{BatchSum, BatchTimes, CopyPath, ModelMetrics, ModelStatistics, RequestCount};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// Everything that the server counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Names of others, without our prefix.
    foreign: Mutex<Registry>,
    families: Families,
    /// Attached clients.
    pub sessions: Gauge,
    /// Bytes of all session regions.
    pub region_bytes: Gauge,
    /// What the memory limit of the control group comes to; families without a value where there is none.
    pub memory: MemoryGauges,
    /// Sessions opened so far.
    pub sessions_opened: Counter,
    session_faults: Family<ReasonLabels, Counter>,
    sessions_refused: Family<ReasonLabels, Counter>,
    /// Times that a worker woke from sleep.
    pub wakeups: Counter,
    /// Wake-ups sent to sleeping clients.
    pub client_wakeups: Counter,
    /// One for each version that was ever loaded.
    models: Arc<Mutex<BTreeMap<(String, u64), ModelMetrics>>>,
    /// Traces that a collector took.
    pub traces_sent: Counter,
    /// Traces that found no room or no collector.
    pub traces_dropped: Counter,
    /// What goes between sessions and a device.
    pub device: DeviceMetrics,
    /// What callers send over gRPC and HTTP.
    pub messages: MessageMetrics,
}

/// Messages over gRPC and HTTP, and their budget.
#[derive(Clone, Debug, Default)]
pub struct MessageMetrics {
    /// Bytes that are being sent or worked on.
    pub bytes: Gauge,
    /// Messages that found no room in the budget.
    pub refused: Counter,
}

impl Metrics {
    /// All metrics at zero.
    #[must_use]
    pub fn new(version: &'static str) -> Self {
        let models = Arc::default();
        let mut foreign = Registry::default();
        foreign.register_collector(Box::new(triton::Names::new(Arc::clone(&models))));
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("adjoin")),
            foreign: Mutex::new(foreign),
            families: Families::default(),
            sessions: Gauge::default(),
            region_bytes: Gauge::default(),
            memory: MemoryGauges::default(),
            sessions_opened: Counter::default(),
            session_faults: Family::default(),
            sessions_refused: Family::default(),
            wakeups: Counter::default(),
            client_wakeups: Counter::default(),
            models,
            traces_sent: Counter::default(),
            traces_dropped: Counter::default(),
            device: DeviceMetrics::default(),
            messages: MessageMetrics::default(),
        };
        metrics.register(version);
        metrics
    }

    fn register(&self, version: &'static str) {
        let mut registry = self.registry.lock();
        registry.register(
            "build",
            "Release of the server",
            Info::new([("version", version)]),
        );
        self.families.register(&mut registry);
        registry.register("sessions", "Attached clients", self.sessions.clone());
        registry.register(
            "region_bytes",
            "Bytes of all session regions",
            self.region_bytes.clone(),
        );
        registry.register_collector(Box::new(self.memory.clone()));
        registry.register_collector(Box::new(self.device.clone()));
        registry.register(
            "sessions_opened",
            "Sessions opened",
            self.sessions_opened.clone(),
        );
        registry.register(
            "session_faults",
            "Sessions ended for breaking the protocol, by reason",
            self.session_faults.clone(),
        );
        registry.register(
            "sessions_refused",
            "Handshakes refused, by reason",
            self.sessions_refused.clone(),
        );
        registry.register(
            "wakeups",
            "Times that a worker woke from sleep",
            self.wakeups.clone(),
        );
        registry.register(
            "client_wakeups",
            "Wake-ups sent to sleeping clients",
            self.client_wakeups.clone(),
        );
        registry.register(
            "message_bytes",
            "Bytes of the messages over gRPC and HTTP that are being sent or worked on",
            self.messages.bytes.clone(),
        );
        registry.register(
            "messages_refused",
            "Messages over gRPC and HTTP that found no room in limits.message_bytes",
            self.messages.refused.clone(),
        );
        registry.register(
            "traces_sent",
            "Traces that the collector took",
            self.traces_sent.clone(),
        );
        registry.register(
            "traces_dropped",
            "Traces that found no room, or that the collector did not take",
            self.traces_dropped.clone(),
        );
    }

    /// The handles of one model version. A version that is loaded again goes on counting where it stopped.
    pub fn model(&self, name: &str, version: u64) -> ModelMetrics {
        let mut models = self.models.lock();
        let handles = models.entry((name.to_owned(), version));
        let fresh = || self.families.handles(name, version);
        handles.or_insert_with(fresh).clone()
    }

    /// A session ended for breaking the protocol.
    pub fn session_fault(&self, status: Status) {
        self.session_faults
            .get_or_create(&ReasonLabels {
                reason: status.name(),
            })
            .inc();
    }

    /// A handshake was refused.
    pub fn session_refused(&self, status: Status) {
        self.sessions_refused
            .get_or_create(&ReasonLabels {
                reason: status.name(),
            })
            .inc();
    }

    /// All metrics in the text format.
    ///
    /// # Errors
    /// The formatter's, which do not occur when writing to a string.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry.lock())?;
        encode_registry(&mut text, &self.foreign.lock())?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}
