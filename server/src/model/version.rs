//! A loaded model version: its queue, its instances, its state.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use adjoin_backend::Model;
use adjoin_schema::attach::ModelInfo;
use adjoin_schema::status::Status;
use parking_lot::Mutex;

use super::{InstanceSlot, Signature, Timing};
use crate::batch::policy::{BatchPolicy, Decision};
use crate::batch::queue::{BatchQueue, Ticket};
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
}

/// Where a model version is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Being read and warmed up.
    Loading = 0,
    /// Takes requests.
    Ready = 1,
    /// Finishes what it has.
    Draining = 2,
    /// Gone.
    Unloaded = 3,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Unloaded => "unloaded",
        })
    }
}

struct Shared {
    queue: BatchQueue<Job>,
    free: Vec<InstanceSlot>,
}

/// A batch on its way to an instance.
#[derive(Debug)]
pub struct Batch {
    /// The instance that will run it; goes back by [`ModelVersion::give_back`].
    pub instance: InstanceSlot,
    /// What runs, at least one.
    pub jobs: Vec<(Ticket, Job)>,
    /// Rows of all jobs.
    pub rows: u32,
}

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

/// What can be done for a version now.
#[derive(Debug)]
pub enum Next {
    /// Run this.
    Run(Batch),
    /// Nothing before that time, in ns; `u64::MAX`: nothing until an instance is free.
    WaitUntil(u64),
    /// The queue is empty.
    Idle,
}

/// A loaded model version.
pub struct ModelVersion {
    name: Arc<str>,
    version: u64,
    engine: &'static str,
    signature: Signature,
    settings: ModelSettings,
    state: AtomicU8,
    timing: Timing,
    metrics: ModelMetrics,
    shared: Mutex<Shared>,
    running: AtomicU32,
    /// Kept alive for its instances.
    _model: Box<dyn Model>,
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
        let queue = BatchQueue::new(parts.settings.queue_count_max);
        Self {
            name: parts.name,
            version: parts.version,
            engine: parts.engine,
            signature: parts.signature,
            settings: parts.settings,
            state: AtomicU8::new(State::Ready as u8),
            timing: parts.timing,
            metrics: parts.metrics,
            shared: Mutex::new(Shared {
                queue,
                free: parts.instances,
            }),
            running: AtomicU32::new(0),
            _model: parts.model,
        }
    }

    /// Name of the model.
    pub fn name(&self) -> &Arc<str> {
        &self.name
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
            _ => State::Unloaded,
        }
    }

    /// Moves on in its life.
    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
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
            inputs: metadata
                .inputs
                .iter()
                .map(adjoin_backend::TensorMetadata::spec)
                .collect(),
            outputs: metadata
                .outputs
                .iter()
                .map(adjoin_backend::TensorMetadata::spec)
                .collect(),
        }
    }

    /// Takes a job into the queue.
    ///
    /// # Errors
    /// The job and why not: the queue is full, or the version takes none any more.
    pub fn enqueue(&self, ticket: Ticket, job: Job) -> Result<(), Box<NotQueued>> {
        if self.state() != State::Ready {
            return Err(Box::new(NotQueued {
                job,
                status: Status::ModelNotReady,
                detail: [0; 2],
            }));
        }
        let mut shared = self.shared.lock();
        let count_max = shared.queue.count_max() as u64;
        let outcome = shared.queue.push(ticket, job);
        self.metrics.queue_depth(shared.queue.len());
        outcome.map_err(|job| {
            Box::new(NotQueued {
                job,
                status: Status::QueueFull,
                detail: [count_max, 0],
            })
        })
    }

    /// The next batch, if an instance is free and the policy says so. Jobs past their deadline go to
    /// `expired` on the way, whether an instance is free or not.
    pub fn next(&self, now_ns: u64, can_grow: bool, expired: &mut Vec<(Ticket, Job)>) -> Next {
        let mut shared = self.shared.lock();
        let Shared { queue, free } = &mut *shared;
        queue.expire(now_ns, expired);
        if !expired.is_empty() {
            self.metrics.queue_depth(queue.len());
        }
        if queue.is_empty() {
            return Next::Idle;
        }
        let Some(instance) = free.pop() else {
            return Next::WaitUntil(queue.next_deadline_ns());
        };
        let policy = &self.settings.policy;
        let rows_max = match policy.decide(now_ns, queue.facts(policy.max_batch_size, can_grow)) {
            Decision::Dispatch { rows_max } => rows_max,
            decision => {
                free.push(instance);
                let at_ns = if let Decision::WaitUntil { at_ns } = decision {
                    at_ns
                } else {
                    u64::MAX
                };
                return Next::WaitUntil(at_ns.min(queue.next_deadline_ns()));
            }
        };
        let mut jobs = Vec::with_capacity(1);
        queue.take(rows_max, &mut jobs);
        self.metrics.queue_depth(queue.len());
        // Under the lock: whoever drains must see these jobs in the queue or running at any moment.
        self.running.fetch_add(1, Ordering::AcqRel);
        drop(shared);
        let rows = jobs.iter().map(|(ticket, _)| ticket.rows).sum();
        Next::Run(Batch {
            instance,
            jobs,
            rows,
        })
    }

    /// When something is to be done for what waits, in ns: a batch may be due now, or a deadline passes later.
    pub fn due_ns(&self, now_ns: u64, can_grow: bool) -> u64 {
        let shared = self.shared.lock();
        let deadline_ns = shared.queue.next_deadline_ns();
        if shared.free.is_empty() {
            return deadline_ns;
        }
        let policy = &self.settings.policy;
        match policy.decide(now_ns, shared.queue.facts(policy.max_batch_size, can_grow)) {
            Decision::Idle => deadline_ns,
            Decision::Dispatch { .. } => now_ns,
            Decision::WaitUntil { at_ns } => at_ns.min(deadline_ns),
        }
    }

    /// Returns an instance after its batch.
    pub fn give_back(&self, instance: InstanceSlot) {
        self.shared.lock().free.push(instance);
        self.running.fetch_sub(1, Ordering::AcqRel);
    }

    /// Takes a waiting job out.
    pub fn cancel(&self, flow: u64, request_id: u64) -> Option<(Ticket, Job)> {
        self.shared.lock().queue.cancel(flow, request_id)
    }

    /// Takes all waiting jobs of a session out.
    pub fn remove_flow(&self, flow: u64, removed: &mut Vec<(Ticket, Job)>) {
        let mut shared = self.shared.lock();
        shared.queue.remove_flow(flow, removed);
        self.metrics.queue_depth(shared.queue.len());
    }

    /// Whether nothing waits and nothing runs.
    pub fn is_idle(&self) -> bool {
        let shared = self.shared.lock();
        shared.queue.is_empty() && self.running.load(Ordering::Acquire) == 0
    }
}
