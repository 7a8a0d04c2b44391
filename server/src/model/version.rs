//! A loaded model version: its queue, its instances, its state.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use adjoin_backend::{InputAccess, Model, ModelMetadata, TensorMetadata};
use adjoin_model_config::ModelConfig;
use adjoin_oip::Labels;
use adjoin_schema::attach::ModelInfo;
use adjoin_schema::status::Status;
use parking_lot::Mutex;

use super::{InstanceSlot, Signature, Timing};
use crate::batch::policy::BatchPolicy;
use crate::batch::queue::Ticket;
use crate::batch::queue_policy::QueuePolicies;
use crate::batch::scheduler::{self, Refusal, Scheduler};
use crate::ensemble::EnsemblePlan;
use crate::metrics::ModelMetrics;
use crate::model::request::Job;

/// How a model version is served; from configuration.
#[derive(Clone, Debug)]
pub struct ModelSettings {
    /// When and how requests are joined.
    pub policy: BatchPolicy,
    /// Most rows of one execution; 0 if requests are never joined.
    pub max_batch_size: u32,
    /// Most waiting requests.
    pub queue_count_max: usize,
    /// Number of instances.
    pub instances: u32,
    /// Priority levels; 1 is the most urgent.
    pub priority_levels: u16,
    /// Level of requests that ask for none.
    pub default_priority: u16,
    /// How long requests may wait, and how many of a level.
    pub queue: QueuePolicies,
    /// Whether responses are kept to answer equal requests.
    pub response_cache: bool,
}

/// Where a model version is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Being read and warmed up.
    Loading = 0,
    /// Takes requests.
    Ready = 1,
    /// Not found any more; finishes what was resolved before.
    Draining = 2,
    /// Without instances and the engine's model.
    Unloaded = 3,
    /// Takes no requests: the device that it ran on lost its context. Another load of the version takes its place when
    /// the device is back.
    Lost = 4,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Unloaded => "unloaded",
            Self::Lost => "lost",
        })
    }
}

/// A batch on its way to an instance.
pub type Batch = scheduler::Batch<Job, InstanceSlot>;

/// What can be done for a version now.
pub type Next = scheduler::Next<Job, InstanceSlot>;

/// A job that the queue did not take.
#[derive(Debug)]
pub struct NotQueued {
    /// The job.
    pub job: Job,
    /// Why not.
    pub status: Status,
    /// Values of the status.
    pub detail: [u64; 2],
}

/// A loaded model version.
pub struct ModelVersion {
    name: Arc<str>,
    version: u64,
    engine: &'static str,
    signature: Signature,
    settings: ModelSettings,
    config: ModelConfig,
    labels: Vec<Labels>,
    state: AtomicU8,
    /// Why it is lost, if it is.
    loss: Mutex<String>,
    is_on_device: bool,
    /// For each input and each output, whether it may lie on the device.
    on_device: [Vec<bool>; 2],
    slots: u32,
    timing: Timing,
    metrics: ModelMetrics,
    scheduler: Mutex<Scheduler<Job, InstanceSlot>>,
    /// Kept alive for its instances.
    model: Mutex<Option<Box<dyn Model>>>,
    claims: AtomicUsize,
    load_id: u64,
    /// Its steps, if it is an ensemble.
    plan: Option<Arc<EnsemblePlan>>,
}

/// Loads so far.
static LOADS: AtomicU64 = AtomicU64::new(0);

/// Keeps a version from being unloaded: a request that was resolved for it is not in its queue yet.
#[derive(Debug)]
pub struct Claim {
    version: Arc<ModelVersion>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.version.claims.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What is left of a version that was unloaded or lost: to be dropped where that may take its time.
#[derive(Debug)]
pub struct Retired {
    // Before the model that they were made of.
    _instances: Vec<InstanceSlot>,
    _model: Option<Box<dyn Model>>,
}

impl fmt::Debug for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelVersion")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// The parts of a version that loading puts together.
#[derive(Debug)]
pub struct VersionParts {
    /// Name of the model.
    pub name: Arc<str>,
    /// Number of the version.
    pub version: u64,
    /// Name of the engine.
    pub engine: &'static str,
    /// What it takes and gives.
    pub signature: Signature,
    /// How it is served.
    pub settings: ModelSettings,
    /// Its whole configuration, as the protocol shows it.
    pub config: ModelConfig,
    /// Labels of the classes of each output; none where there are none.
    pub labels: Vec<Labels>,
    /// Where it counts.
    pub metrics: ModelMetrics,
    /// The engine's model.
    pub model: Box<dyn Model>,
    /// Its instances, at least one.
    pub instances: Vec<InstanceSlot>,
    /// What warm-up learnt.
    pub timing: Timing,
}

impl ModelVersion {
    /// A version that is ready.
    #[must_use]
    pub fn new(parts: VersionParts) -> Self {
        let is_on_device = parts.model.is_on_device();
        let ModelMetadata { inputs, outputs } = parts.signature.metadata();
        // The batcher itself touches nothing of what is taken, or given, in pieces.
        let in_pieces = |tensor: &TensorMetadata| tensor.access == InputAccess::InPieces;
        let model = &parts.model;
        let takes = |input: &TensorMetadata| in_pieces(input) && model.takes_on_device(&input.name);
        let gives =
            |output: &TensorMetadata| in_pieces(output) && model.gives_on_device(&output.name);
        let on_device = [
            inputs.iter().map(takes).collect(),
            outputs.iter().map(gives).collect(),
        ];
        let slots = u32::try_from(parts.instances.len()).unwrap_or(u32::MAX);
        let scheduler = Scheduler::new(
            parts.settings.policy.clone(),
            parts.settings.queue_count_max,
            parts.instances,
        );
        let mut scheduler = scheduler.with_policies(parts.settings.queue.clone());
        if slots > parts.settings.instances {
            scheduler = scheduler.computing(parts.settings.instances as usize);
        }
        Self {
            name: parts.name,
            version: parts.version,
            engine: parts.engine,
            signature: parts.signature,
            settings: parts.settings,
            config: parts.config,
            labels: parts.labels,
            state: AtomicU8::new(State::Ready as u8),
            loss: Mutex::default(),
            is_on_device,
            on_device,
            slots,
            timing: parts.timing,
            metrics: parts.metrics,
            scheduler: Mutex::new(scheduler),
            model: Mutex::new(Some(parts.model)),
            claims: AtomicUsize::new(0),
            load_id: LOADS.fetch_add(1, Ordering::Relaxed),
            plan: None,
        }
    }

    /// The same, run by the steps of an ensemble.
    #[must_use]
    pub(crate) fn with_plan(self, plan: Arc<EnsemblePlan>) -> Self {
        Self {
            plan: Some(plan),
            ..self
        }
    }

    /// The steps, if it is an ensemble: its batches go to [`Run`](crate::ensemble::Run), not to an instance.
    pub fn plan(&self) -> Option<&Arc<EnsemblePlan>> {
        self.plan.as_ref()
    }

    /// Name of the model.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// A number that no other load has, of this or another version.
    pub fn load_id(&self) -> u64 {
        self.load_id
    }

    /// Number of the version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Name of the engine.
    pub fn engine(&self) -> &'static str {
        self.engine
    }

    /// What it takes and gives.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// How it is served.
    pub fn settings(&self) -> &ModelSettings {
        &self.settings
    }

    /// Its whole configuration, as the protocol shows it.
    pub fn model_config(&self) -> &ModelConfig {
        &self.config
    }

    /// Labels of the classes of an output, by index; none if there are none.
    pub fn labels(&self, output: usize) -> &[String] {
        self.labels.get(output).map_or(&[], |labels| labels)
    }

    /// Where it counts.
    pub fn metrics(&self) -> &ModelMetrics {
        &self.metrics
    }

    /// How long its executions take.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// Where it is in its life.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Loading,
            1 => State::Ready,
            2 => State::Draining,
            3 => State::Unloaded,
            _ => State::Lost,
        }
    }

    /// Whether it takes requests.
    pub fn is_ready(&self) -> bool {
        self.state() == State::Ready
    }

    /// Whether it runs on the server's device.
    pub fn is_on_device(&self) -> bool {
        self.is_on_device
    }

    /// Whether an input may lie on the device.
    pub fn takes_on_device(&self, input: usize) -> bool {
        self.on_device[0].get(input) == Some(&true)
    }

    /// Whether an output may go to memory on the device.
    pub fn gives_on_device(&self, output: usize) -> bool {
        self.on_device[1].get(output) == Some(&true)
    }

    /// How many batches run at once: for each instance of the configuration as many as its model works on.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Whether something waits that can be worked on beside what runs on the same instance.
    pub fn has_batch_to_overlap(&self) -> bool {
        self.slots > self.settings.instances && self.waiting() > 0
    }

    /// Finishes what it has from now on. Nothing must find it any more: what is resolved for it is still taken. One that is
    /// lost stays so, and takes nothing.
    pub fn drain(&self) {
        self.change_state(State::Ready, State::Draining);
    }

    /// Takes no requests from now on, because its device has lost its context; true if it took some before. What waits is
    /// to be taken out by [`ModelVersion::take_waiting`], what runs ends by itself.
    pub(super) fn lose(&self, reason: &str) -> bool {
        if !self.is_on_device {
            return false;
        }
        // The reason first: whoever sees the state finds it.
        let mut loss = self.loss.lock();
        if !self.change_state(State::Ready, State::Lost) {
            return false;
        }
        reason.clone_into(&mut loss);
        true
    }

    /// Why it is lost; nothing if it is not.
    pub fn loss(&self) -> Option<String> {
        let loss = self.loss.lock();
        (self.state() == State::Lost).then(|| loss.clone())
    }

    /// Says anew why it is lost.
    pub(crate) fn explain_loss(&self, reason: &str) {
        reason.clone_into(&mut self.loss.lock());
    }

    /// Gives up the instances and the engine's model of a version that is lost, if nothing runs on them any more; they
    /// have to be dropped before the device is brought back.
    pub(crate) fn strip(&self) -> Option<Retired> {
        let mut scheduler = self.scheduler.lock();
        if self.state() != State::Lost || scheduler.is_running() {
            return None;
        }
        Some(Retired {
            _instances: scheduler.take_instances(),
            _model: self.model.lock().take(),
        })
    }

    fn change_state(&self, from: State, to: State) -> bool {
        let order = (Ordering::SeqCst, Ordering::SeqCst);
        let changed = self
            .state
            .compare_exchange(from as u8, to as u8, order.0, order.1);
        changed.is_ok()
    }

    /// Keeps it from being unloaded; `None` if that has happened.
    pub fn claim(self: &Arc<Self>) -> Option<Claim> {
        self.claims.fetch_add(1, Ordering::SeqCst);
        let claim = Claim {
            version: Arc::clone(self),
        };
        // After the count: either this sees the end, or `retire` sees the count.
        (self.state.load(Ordering::SeqCst) != State::Unloaded as u8).then_some(claim)
    }

    /// Whether a request that was resolved for it is on its way, in its queue, or not yet answered, by another way
    /// than a ring.
    pub fn is_claimed(&self) -> bool {
        self.claims.load(Ordering::SeqCst) > 0
    }

    /// Unloads a version that drains or is lost, if nothing waits, runs or may still come; its description stays for those
    /// who hold it. To be called with the lead in hand: the requests of sessions are resolved and queued under it.
    pub fn retire(&self) -> Option<Retired> {
        let mut scheduler = self.scheduler.lock();
        let state = self.state();
        if !scheduler.is_idle() || !matches!(state, State::Draining | State::Lost) {
            return None;
        }
        self.state.store(State::Unloaded as u8, Ordering::SeqCst);
        if self.is_claimed() {
            self.state.store(state as u8, Ordering::SeqCst);
            return None;
        }
        Some(Retired {
            _instances: scheduler.take_instances(),
            _model: self.model.lock().take(),
        })
    }

    /// Its description for clients.
    pub fn info(&self, query_id: u64, ready_versions: Vec<u64>) -> ModelInfo {
        let metadata = self.signature.metadata();
        ModelInfo {
            query_id,
            model: self.name.to_string(),
            version: self.version,
            ready_versions,
            engine: self.engine.to_owned(),
            max_batch_size: self.signature.max_batch_size(),
            inputs: metadata.inputs.iter().map(TensorMetadata::spec).collect(),
            outputs: metadata.outputs.iter().map(TensorMetadata::spec).collect(),
        }
    }

    /// Takes a job into the queue.
    ///
    /// # Errors
    /// The job and why not: the queue is full, its deadline cannot be met, or the version takes none any more.
    pub fn enqueue(&self, ticket: Ticket, job: Job, now_ns: u64) -> Result<(), Box<NotQueued>> {
        if matches!(self.state(), State::Unloaded | State::Lost) {
            return Err(Box::new(NotQueued {
                job,
                status: Status::ModelNotReady,
                detail: [0; 2],
            }));
        }
        let mut scheduler = self.scheduler.lock();
        let outcome = scheduler.enqueue(ticket, job, now_ns, &self.timing);
        self.metrics.queue_depth(scheduler.waiting());
        outcome.map_err(|(job, refusal)| {
            let (status, detail) = match refusal {
                Refusal::QueueFull { count_max } => (Status::QueueFull, [count_max as u64, 0]),
                Refusal::DeadlineUnreachable { end_ns } => {
                    (Status::DeadlineUnreachable, [ticket.deadline_ns, end_ns])
                }
            };
            Box::new(NotQueued {
                job,
                status,
                detail,
            })
        })
    }

    /// The next batch, if an instance is free and the policy says so. Jobs that cannot meet their deadline go to
    /// `expired` on the way, whether an instance is free or not.
    pub fn next(&self, now_ns: u64, expired: &mut Vec<(Ticket, Job)>) -> Next {
        let mut scheduler = self.scheduler.lock();
        if self.state() == State::Lost {
            // What waits is on its way out, and nothing is to be run.
            return Next::Idle;
        }
        let next = scheduler.next(now_ns, &self.timing, expired);
        self.metrics.queue_depth(scheduler.waiting());
        next
    }

    /// When something is to be done for what waits, in ns: a batch may be due now, or a deadline passes later.
    pub fn due_ns(&self, now_ns: u64) -> u64 {
        self.scheduler.lock().due_ns(now_ns, &self.timing)
    }

    /// Takes an instance back after its batch, which was to end at `until_ns` and had a request of each of
    /// these flows. Returns since when it was computed; 0 if that is not known.
    pub fn finish(&self, instance: InstanceSlot, until_ns: u64, flows: &[u64], now_ns: u64) -> u64 {
        let mut scheduler = self.scheduler.lock();
        scheduler.finish(instance, until_ns, flows, now_ns)
    }

    /// Takes a waiting job out.
    pub fn cancel(&self, flow: u64, request_id: u64, now_ns: u64) -> Option<(Ticket, Job)> {
        self.scheduler.lock().cancel(flow, request_id, now_ns)
    }

    /// Takes all waiting jobs of a session out, which is over.
    pub fn remove_flow(&self, flow: u64, removed: &mut Vec<(Ticket, Job)>) {
        let mut scheduler = self.scheduler.lock();
        scheduler.remove_flow(flow, removed);
        self.metrics.queue_depth(scheduler.waiting());
    }

    /// Takes all waiting jobs out.
    pub fn take_waiting(&self, taken: &mut Vec<(Ticket, Job)>) {
        let mut scheduler = self.scheduler.lock();
        scheduler.take_waiting(taken);
        self.metrics.queue_depth(scheduler.waiting());
    }

    /// Number of waiting requests.
    pub fn waiting(&self) -> usize {
        self.scheduler.lock().waiting()
    }

    /// Whether nothing waits and nothing runs.
    pub fn is_idle(&self) -> bool {
        self.scheduler.lock().is_idle()
    }
}
