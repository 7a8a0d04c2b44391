//! What a model version counts, by the names that all versions share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use adjoin_schema::status::Status;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::distribution::Distribution;

/// Labels of everything that a model version counts. They come from the repository, never from a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModelLabels {
    model: String,
    version: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    model: String,
    version: u64,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PathLabels {
    model: String,
    version: u64,
    path: &'static str,
}

/// Why payload bytes were copied by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum CopyPath {
    /// Inputs of several requests joined into one batch.
    Gather,
    /// Rows of a batch's outputs handed back to their requests.
    Scatter,
    /// Inputs whose values may steer memory accesses, before the engine looks at them.
    CopyFirst,
    /// Outputs whose size only the run has shown.
    DynamicOutput,
    /// Inputs that the engine takes only as values of its own.
    EngineInput,
    /// Outputs that the engine gives only as values of its own.
    EngineOutput,
    /// Inputs that came in a message, to where the engine may read them.
    MessageBody,
    /// Outputs of an ensemble, from the step that made them to where they are wanted.
    StepOutput,
    /// Inputs that became the model's own on their way into the batch.
    Transform,
}

impl CopyPath {
    pub(super) const ALL: [(Self, &'static str); 9] = [
        (Self::Gather, "gather"),
        (Self::Scatter, "scatter"),
        (Self::CopyFirst, "copy_first"),
        (Self::DynamicOutput, "dynamic_output"),
        (Self::EngineInput, "engine_input"),
        (Self::EngineOutput, "engine_output"),
        (Self::MessageBody, "message_body"),
        (Self::StepOutput, "step_output"),
        (Self::Transform, "transform"),
    ];
}

/// A value for each model version, under each name.
#[derive(Debug)]
pub(super) struct Families {
    requests: Family<StatusLabels, Counter>,
    rows: Family<ModelLabels, Counter>,
    executions: Family<ModelLabels, Counter>,
    in_place: Family<ModelLabels, Counter>,
    cache_hits: Family<ModelLabels, Counter>,
    cache_misses: Family<ModelLabels, Counter>,
    bytes_copied: Family<PathLabels, Counter>,
    queue_depth: Family<ModelLabels, Gauge>,
    ready: Family<ModelLabels, Gauge>,
    batch_size: Family<ModelLabels, Distribution, fn() -> Distribution>,
    duration: Family<ModelLabels, Distribution, fn() -> Distribution>,
    queue: Family<ModelLabels, Distribution, fn() -> Distribution>,
    gather: Family<ModelLabels, Distribution, fn() -> Distribution>,
    execute: Family<ModelLabels, Distribution, fn() -> Distribution>,
    scatter: Family<ModelLabels, Distribution, fn() -> Distribution>,
}

impl Default for Families {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            rows: Family::default(),
            executions: Family::default(),
            in_place: Family::default(),
            cache_hits: Family::default(),
            cache_misses: Family::default(),
            bytes_copied: Family::default(),
            queue_depth: Family::default(),
            ready: Family::default(),
            batch_size: Family::new_with_constructor(Distribution::of_rows),
            duration: Family::new_with_constructor(Distribution::of_times),
            queue: Family::new_with_constructor(Distribution::of_times),
            gather: Family::new_with_constructor(Distribution::of_times),
            execute: Family::new_with_constructor(Distribution::of_times),
            scatter: Family::new_with_constructor(Distribution::of_times),
        }
    }
}

impl Families {
    /// Gives everything its name.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "inference_requests",
            "Requests by outcome",
            self.requests.clone(),
        );
        registry.register(
            "inference_rows",
            "Rows of the requests that ran",
            self.rows.clone(),
        );
        registry.register("executions", "Batches that ran", self.executions.clone());
        registry.register(
            "requests_in_place",
            "Requests that ran without a copy of any payload byte",
            self.in_place.clone(),
        );
        registry.register(
            "cache_hits",
            "Requests whose answer was in the response cache",
            self.cache_hits.clone(),
        );
        registry.register(
            "cache_misses",
            "Requests whose answer was put into the response cache",
            self.cache_misses.clone(),
        );
        registry.register(
            "bytes_copied",
            "Payload bytes copied by the server, by the reason for it",
            self.bytes_copied.clone(),
        );
        registry.register("queue_depth", "Waiting requests", self.queue_depth.clone());
        registry.register(
            "model_ready",
            "1 while the version takes requests",
            self.ready.clone(),
        );
        registry.register(
            "batch_size",
            "Rows of the batches that ran",
            self.batch_size.clone(),
        );
        let mut time =
            |name: &str,
             help: &str,
             family: &Family<ModelLabels, Distribution, fn() -> Distribution>| {
                registry.register_with_unit(name, help, Unit::Seconds, family.clone());
            };
        time(
            "inference_duration",
            "From intake of a request to its completion",
            &self.duration,
        );
        time(
            "queue_duration",
            "From intake of a request to the start of its batch",
            &self.queue,
        );
        time(
            "gather_duration",
            "Joining the inputs of a batch",
            &self.gather,
        );
        time("execute_duration", "A batch in the engine", &self.execute);
        time(
            "scatter_duration",
            "Handing the outputs of a batch back",
            &self.scatter,
        );
    }

    /// The handles of one model version.
    pub(super) fn handles(&self, name: &str, version: u64) -> ModelMetrics {
        let labels = ModelLabels {
            model: name.to_owned(),
            version,
        };
        let copied = CopyPath::ALL.map(|(_, path)| {
            let labels = PathLabels {
                model: name.to_owned(),
                version,
                path,
            };
            self.bytes_copied.get_or_create(&labels).clone()
        });
        let ok = StatusLabels {
            model: name.to_owned(),
            version,
            status: Status::Ok.name(),
        };
        let handles = Handles {
            ok: self.requests.get_or_create(&ok).clone(),
            requests: self.requests.clone(),
            rows: self.rows.get_or_create(&labels).clone(),
            executions: self.executions.get_or_create(&labels).clone(),
            in_place: self.in_place.get_or_create(&labels).clone(),
            cache_hits: self.cache_hits.get_or_create(&labels).clone(),
            cache_misses: self.cache_misses.get_or_create(&labels).clone(),
            copied,
            queue_depth: self.queue_depth.get_or_create(&labels).clone(),
            ready: self.ready.get_or_create(&labels).clone(),
            batch_size: self.batch_size.get_or_create(&labels).clone(),
            duration: self.duration.get_or_create(&labels).clone(),
            queue: self.queue.get_or_create(&labels).clone(),
            gather: self.gather.get_or_create(&labels).clone(),
            execute: self.execute.get_or_create(&labels).clone(),
            scatter: self.scatter.get_or_create(&labels).clone(),
            failed: AtomicU64::new(0),
            rows_max: AtomicU32::new(0),
            last_end_ns: AtomicU64::new(0),
            cache_hit_ns: AtomicU64::new(0),
            batches: Mutex::default(),
            labels,
        };
        ModelMetrics {
            handles: Arc::new(handles),
        }
    }
}

#[derive(Debug)]
struct Handles {
    labels: ModelLabels,
    requests: Family<StatusLabels, Counter>,
    ok: Counter,
    rows: Counter,
    executions: Counter,
    in_place: Counter,
    cache_hits: Counter,
    cache_misses: Counter,
    copied: [Counter; CopyPath::ALL.len()],
    queue_depth: Gauge,
    ready: Gauge,
    batch_size: Distribution,
    duration: Distribution,
    queue: Distribution,
    gather: Distribution,
    execute: Distribution,
    scatter: Distribution,
    // What the control API tells beside.
    failed: AtomicU64,
    rows_max: AtomicU32,
    last_end_ns: AtomicU64,
    cache_hit_ns: AtomicU64,
    batches: Mutex<Batches>,
}

/// Sums over batches, for those who ask for more than histograms tell.
#[derive(Clone, Debug, Default)]
struct Batches {
    by_rows: BTreeMap<u32, BatchSum>,
    of_requests: BatchTimes,
}

/// The handles of one model version; clones count together.
#[derive(Clone, Debug)]
pub struct ModelMetrics {
    handles: Arc<Handles>,
}

/// Batches of one size.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchSum {
    /// How many there were.
    pub count: u64,
    /// What they took in all.
    pub times: BatchTimes,
}

/// What one batch took, or several in all.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchTimes {
    /// Joining inputs, in ns; 0 if nothing was joined.
    pub gather_ns: u64,
    /// In the engine, in ns.
    pub execute_ns: u64,
    /// Handing outputs back, in ns; 0 if they were written in place.
    pub scatter_ns: u64,
}

impl BatchTimes {
    /// Adds `times` as often as `count` says.
    fn add(&mut self, times: Self, count: u64) {
        self.gather_ns += times.gather_ns * count;
        self.execute_ns += times.execute_ns * count;
        self.scatter_ns += times.scatter_ns * count;
    }
}

/// What is counted of one request that ran.
#[derive(Clone, Copy, Debug)]
pub struct RequestCount {
    /// Its rows.
    pub rows: u32,
    /// Whether nothing of it was copied.
    pub in_place: bool,
    /// From its intake to the start of its batch, in ns.
    pub queue_ns: u64,
    /// From its intake to the end of its batch, in ns.
    pub duration_ns: u64,
}

/// Counters of a version for the control API.
#[derive(Clone, Debug, Default)]
pub struct ModelStatistics {
    /// Requests times rows.
    pub inference_count: u64,
    /// Batches.
    pub execution_count: u64,
    /// Requests that ran.
    pub request_count: u64,
    /// Requests that failed or were refused.
    pub failed_request_count: u64,
    /// Requests that ran without a copy.
    pub in_place_count: u64,
    /// Bytes by [`CopyPath`].
    pub copied: [u64; CopyPath::ALL.len()],
    /// Rows of the largest batch.
    pub max_batch_rows: u32,
    /// Time in the queue over all requests.
    pub queue_ns: u64,
    /// From intake to the end of the batch over all requests.
    pub duration_ns: u64,
    /// Time in the engine over all batches.
    pub execute_ns: u64,
    /// Batches by rows.
    pub executions_by_rows: BTreeMap<u32, BatchSum>,
    /// What the batches of all requests took: a batch of three counts three times.
    pub times_of_requests: BatchTimes,
    /// When the last batch ended, in ns; 0 if none did.
    pub last_end_ns: u64,
    /// Requests whose answer was in the response cache; they are none of those above.
    pub cache_hits: u64,
    /// What they took in all.
    pub cache_hit_ns: u64,
    /// Requests whose answer went into it.
    pub cache_misses: u64,
}

impl ModelMetrics {
    /// The labels of the version.
    pub(super) fn labels(&self) -> &ModelLabels {
        &self.handles.labels
    }

    /// Waiting requests, as was told last.
    pub(super) fn waiting(&self) -> u64 {
        u64::try_from(self.handles.queue_depth.get()).unwrap_or(0)
    }

    /// The version's readiness.
    pub fn set_ready(&self, ready: bool) {
        self.handles.ready.set(i64::from(ready));
    }

    /// Waiting requests.
    pub fn queue_depth(&self, count: usize) {
        self.handles
            .queue_depth
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Payload bytes that were copied.
    pub fn copied(&self, path: CopyPath, byte_size: u64) {
        if byte_size > 0 {
            self.handles.copied[path as usize].inc_by(byte_size);
        }
    }

    /// A batch of so many rows and requests ran.
    pub fn batch(&self, rows: u32, requests: u32, times: BatchTimes, end_ns: u64) {
        let h = &self.handles;
        h.executions.inc();
        h.batch_size.observe(u64::from(rows));
        h.execute.observe(times.execute_ns);
        if times.gather_ns > 0 {
            h.gather.observe(times.gather_ns);
        }
        if times.scatter_ns > 0 {
            h.scatter.observe(times.scatter_ns);
        }
        h.rows_max.fetch_max(rows, Ordering::Relaxed);
        h.last_end_ns.store(end_ns, Ordering::Relaxed);
        let mut batches = h.batches.lock();
        batches.of_requests.add(times, u64::from(requests));
        let of_size = batches.by_rows.entry(rows).or_default();
        of_size.count += 1;
        of_size.times.add(times, 1);
    }

    /// A request ran.
    pub fn request(&self, request: RequestCount) {
        let h = &self.handles;
        h.ok.inc();
        h.rows.inc_by(u64::from(request.rows));
        if request.in_place {
            h.in_place.inc();
        }
        h.queue.observe(request.queue_ns);
        h.duration.observe(request.duration_ns);
    }

    /// A request was answered from the response cache.
    pub fn cache_hit(&self, duration_ns: u64) {
        self.handles.cache_hits.inc();
        let total_ns = &self.handles.cache_hit_ns;
        total_ns.fetch_add(duration_ns, Ordering::Relaxed);
    }

    /// The answer of a request went into the response cache.
    pub fn cache_miss(&self) {
        self.handles.cache_misses.inc();
    }

    /// A request did not run, or failed.
    pub fn refused(&self, status: Status) {
        let h = &self.handles;
        let labels = StatusLabels {
            model: h.labels.model.clone(),
            version: h.labels.version,
            status: status.name(),
        };
        h.requests.get_or_create(&labels).inc();
        h.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters.
    pub fn statistics(&self) -> ModelStatistics {
        let h = &self.handles;
        let batches = h.batches.lock().clone();
        ModelStatistics {
            inference_count: h.rows.get(),
            execution_count: h.executions.get(),
            request_count: h.ok.get(),
            failed_request_count: h.failed.load(Ordering::Relaxed),
            in_place_count: h.in_place.get(),
            copied: CopyPath::ALL.map(|(path, _)| h.copied[path as usize].get()),
            max_batch_rows: h.rows_max.load(Ordering::Relaxed),
            queue_ns: h.queue.sum(),
            duration_ns: h.duration.sum(),
            execute_ns: h.execute.sum(),
            executions_by_rows: batches.by_rows,
            times_of_requests: batches.of_requests,
            last_end_ns: h.last_end_ns.load(Ordering::Relaxed),
            cache_hits: h.cache_hits.get(),
            cache_hit_ns: h.cache_hit_ns.load(Ordering::Relaxed),
            cache_misses: h.cache_misses.get(),
        }
    }
}
