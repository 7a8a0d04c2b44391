//! The data plane: worker threads that drain rings, form batches and run them.
//!
//! Leader and followers. One worker at a time holds the *lead*: it looks at the submission rings, puts
//! requests into the queues of their models, and takes the next batch. A short batch it runs itself
//! with the lead in hand; for a long one it gives the lead up first. So the thread that finds work is the one
//! that runs it, and no request pays for a hand-over between threads. There is one worker more than there
//! are instances: one is always free to drain, cancel and refuse.
//!
//! Nobody burns a core for nothing: a leader without work looks at the rings of the sessions that were
//! active just now for some microseconds, then says in every such session that it sleeps, looks once more,
//! and sleeps in `epoll_wait` on the sessions' event descriptors, without holding the lead.

mod help;
mod intake;
mod lead;
mod steps;
mod worker;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, ThreadId};

use adjoin_backend::BindingKey;
use adjoin_schema::attach::{AttachMessage, Refusal};
use adjoin_schema::descriptor::Rejection;
use adjoin_schema::layout::server_state;
use adjoin_schema::status::Status;
use adjoin_shm::doorbell::EventNotifier;
use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use crate::batch::queue::Ticket;
use crate::devices::Devices;
use crate::ensemble::Runs;
use crate::log_limit::LogLimit;
use crate::metrics::{MemoryValues, Metrics};
use crate::model::request::Job;
use crate::model::{ModelVersion, Models, Retired};
use crate::session::Session;
use crate::session::budget::MemoryBudget;
use crate::session::table::{SessionLimits, SessionTable};
use crate::trace::Traces;
use lead::{Lead, Poller};

pub(crate) use intake::{owned_request, ticket};

/// How the data plane behaves.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Longest look at the rings before a worker sleeps, in ns; 0 never spins.
    pub spin_ns: u64,
    /// Quotas of sessions.
    pub limits: SessionLimits,
    /// What the control group lets sessions have.
    pub memory: MemoryBudget,
}

/// What other threads ask of the leader.
#[derive(Debug)]
enum Command {
    Attach(Arc<Session>),
    Detach(u64),
    /// A request that came by another way than a ring.
    Submit(Ticket, Box<Job>),
    /// Something was published in this session's ring, says the portable doorbell.
    Look(u64),
    /// Nobody waits any more for this request, which came by another way than a ring.
    Cancel {
        flow: u64,
        request_id: u64,
    },
    /// A connection is over whose requests came by another way than a ring.
    Forget(u64),
    /// Answer what waits for these versions, which are lost.
    Lost(Vec<Arc<ModelVersion>>),
    /// Unload this version, if nothing of it is left.
    Retire(Arc<ModelVersion>, Sender<Option<Retired>>),
}

#[derive(Debug, Default)]
struct Parking {
    tokens: usize,
}

/// The data plane of a server.
#[derive(Debug)]
pub struct Engine {
    sessions: SessionTable,
    models: Arc<Models>,
    metrics: Arc<Metrics>,
    traces: Traces,
    /// Longest look at the rings before a worker sleeps, in ns.
    spin_ns: u64,
    lead: Mutex<Lead>,
    poller: Poller,
    kick: EventNotifier,
    commands: Mutex<Vec<Command>>,
    /// Sessions whose event descriptor fired while another worker had the lead.
    fired: Mutex<Vec<u64>>,
    attention: AtomicBool,
    running: AtomicU32,
    handed_over: AtomicBool,
    draining: AtomicBool,
    stopping: AtomicBool,
    parking: Mutex<Parking>,
    unpark: Condvar,
    workers: Mutex<Vec<JoinHandle<()>>>,
    binding_keys: AtomicU64,
    request_ids: AtomicU64,
    /// Requests of ensembles that are on their way.
    runs: Runs,
    /// The thread that calls [`Engine::help`].
    helper: OnceLock<ThreadId>,
    devices: OnceLock<Devices>,
    device_loss: DeviceLoss,
}

/// Who is told that the device is lost, and whether it is for good.
#[derive(Default)]
struct DeviceLoss {
    told: OnceLock<Box<dyn Fn() + Send + Sync>>,
    is_final: AtomicBool,
}

impl fmt::Debug for DeviceLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceLoss")
            .field("is_final", &self.is_final)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// A data plane without workers; see [`Engine::ensure_workers`].
    ///
    /// # Errors
    /// The system's, when it has no descriptors left.
    pub fn new(
        models: Arc<Models>,
        metrics: Arc<Metrics>,
        options: EngineOptions,
    ) -> Result<Arc<Self>, Errno> {
        let kick = EventNotifier::new()?;
        let poller = Poller::new()?;
        poller.add(&kick, lead::KICK)?;
        Ok(Arc::new(Self {
            sessions: SessionTable::new(options.limits, options.memory),
            models,
            metrics,
            traces: Traces::default(),
            spin_ns: options.spin_ns,
            lead: Mutex::new(Lead::new(options.spin_ns)),
            poller,
            kick,
            commands: Mutex::default(),
            fired: Mutex::default(),
            attention: AtomicBool::new(false),
            running: AtomicU32::new(0),
            handed_over: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            parking: Mutex::default(),
            unpark: Condvar::new(),
            workers: Mutex::default(),
            binding_keys: AtomicU64::new(1),
            request_ids: AtomicU64::new(1),
            runs: Runs::default(),
            helper: OnceLock::new(),
            devices: OnceLock::new(),
            device_loss: DeviceLoss::default(),
        }))
    }

    /// All sessions.
    pub fn sessions(&self) -> &SessionTable {
        &self.sessions
    }

    /// All models.
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Traces of requests.
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Starts workers until there is one more than `instances`. They stay when there are fewer instances later.
    ///
    /// # Errors
    /// The system's, when it cannot start a thread.
    pub fn ensure_workers(self: &Arc<Self>, instances: usize) -> std::io::Result<()> {
        let mut workers = self.workers.lock();
        if self.stopping.load(Ordering::Acquire) {
            return Ok(());
        }
        while workers.len() <= instances {
            let engine = Arc::clone(self);
            let name = format!("worker-{}", workers.len());
            workers.push(
                std::thread::Builder::new()
                    .name(name)
                    .spawn(move || engine.work())?,
            );
        }
        Ok(())
    }

    /// Has the memory of sessions that come from now on registered with these. Only the first call counts.
    pub fn use_devices(&self, devices: Devices) {
        self.metrics.device.tell_of(devices.clone());
        let _ = self.devices.set(devices);
    }

    /// The devices, if there may be any.
    pub fn devices(&self) -> Option<&Devices> {
        self.devices.get()
    }

    /// Has `told` called, on whatever thread, when the device is lost. Only the first call counts.
    pub fn on_device_loss(&self, told: impl Fn() + Send + Sync + 'static) {
        let _ = self.device_loss.told.set(Box::new(told));
    }

    /// If the device has lost its context, versions that run on it take no requests from now on, and what waits for them is
    /// answered with `ModelNotReady`. Others go on. May be called for each batch that fails by it.
    pub fn device_lost(&self, reason: &str) {
        // One that is back already was lost to others, who have been told.
        if !self.devices().is_some_and(Devices::is_lost) {
            return;
        }
        let text = format!("the device is lost, and is being brought back: {reason}");
        let lost = self.models.lose_device(&text);
        if !lost.is_empty() {
            tracing::error!(
                reason,
                models = lost.len(),
                "the device is lost; its models take no requests until it is back"
            );
            for version in &lost {
                version.metrics().set_ready(false);
            }
            self.command(Command::Lost(lost));
        }
        if let Some(told) = self.device_loss.told.get() {
            told();
        }
    }

    /// Says whether the device is given up.
    pub(crate) fn give_device_up(&self, is_final: bool) {
        self.device_loss.is_final.store(is_final, Ordering::Release);
    }

    /// Whether the device was lost and could not be brought back, as often as that was tried.
    pub fn is_device_given_up(&self) -> bool {
        self.device_loss.is_final.load(Ordering::Acquire)
    }

    /// Takes a fresh session in.
    pub fn attach(&self, session: Arc<Session>) {
        let devices = self.devices.get();
        if let Some(registered) = devices.and_then(|devices| devices.register(session.memory())) {
            session.set_registered(registered);
        }
        self.metrics.sessions_opened.inc();
        self.sessions.insert(Arc::clone(&session));
        if !self.is_serving() {
            session
                .memory()
                .server_state()
                .store(server_state::DRAINING, Ordering::Release);
        }
        self.count_sessions();
        self.command(Command::Attach(session));
    }

    /// Ends a session: its waiting requests are dropped, its memory goes when the last run that touches
    /// it has ended.
    pub fn detach(&self, id: u64) {
        let Some(session) = self.sessions.remove(id) else {
            return;
        };
        session.close();
        self.count_sessions();
        self.command(Command::Detach(id));
    }

    /// Ends a session that broke the protocol: tells the client why, counts, logs once.
    pub fn fault(&self, session: &Session, rejection: Rejection) {
        if session.is_closed() {
            return;
        }
        self.metrics.session_fault(rejection.status);
        static LIMIT: LogLimit = LogLimit::per_second(10);
        if LIMIT.admits() {
            tracing::warn!(
                session = session.id(),
                uid = session.peer().uid,
                reason = %rejection.status,
                detail = ?rejection.detail,
                "closed session that broke the protocol"
            );
        }
        let refusal = Refusal {
            query_id: 0,
            status: rejection.status as u16,
            detail: rejection.detail,
        };
        let _ = session
            .socket()
            .send(&AttachMessage::Refusal(refusal).encode(), &[]);
        session.socket().shut_down();
        self.detach(session.id());
    }

    /// Brings sessions and bytes in the metrics up to date.
    pub fn count_sessions(&self) {
        let (sessions, bytes) = self.sessions.held();
        self.metrics
            .sessions
            .set(i64::try_from(sessions).unwrap_or(i64::MAX));
        self.metrics
            .region_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Brings the memory limit in the metrics up to date. Reads files of the control group.
    pub fn count_memory(&self) {
        let values = self.sessions.budget().map(|(account, left)| MemoryValues {
            limit: account.limit.bytes,
            used: account.limit.used,
            left,
        });
        self.metrics.memory.set(values);
    }

    /// Queues a request that came by another way than a ring.
    pub fn submit(&self, ticket: Ticket, job: Job) {
        self.command_soon(Command::Submit(ticket, Box::new(job)));
    }

    /// Takes a waiting request of [`Self::submit`] out of its queue. One that runs is run to its end.
    pub fn cancel(&self, flow: u64, request_id: u64) {
        self.command_soon(Command::Cancel { flow, request_id });
    }

    /// Forgets a flow whose requests came by another way than a ring: none will follow.
    pub fn forget(&self, flow: u64) {
        self.command_soon(Command::Forget(flow));
    }

    /// A number for a request that comes by another way than a ring.
    pub fn fresh_request_id(&self) -> u64 {
        self.request_ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Looks at a session's ring: its client has no other way to wake the server.
    pub fn look_at(&self, session_id: u64) {
        self.command(Command::Look(session_id));
    }

    /// Has a version that drains unloaded if nothing of it waits, runs or may still come. The answer has what is left
    /// of it, or nothing if it is too early; there is none when the engine stops.
    pub fn retire(&self, version: &Arc<ModelVersion>) -> Receiver<Option<Retired>> {
        let (sender, answer) = channel();
        // The leader does it, so that no request is between its look-up and its queue.
        self.command(Command::Retire(Arc::clone(version), sender));
        answer
    }

    /// Has clients look for another server at their next request. What they send here until then is run.
    pub fn hand_over(&self) {
        self.handed_over.store(true, Ordering::Release);
        self.send_clients_away();
    }

    fn send_clients_away(&self) {
        for session in self.sessions.all() {
            session
                .memory()
                .server_state()
                .store(server_state::DRAINING, Ordering::Release);
        }
    }

    /// Refuses new requests from now on. Every ring is looked at once more, so that what stands in it is answered
    /// and its client knows that it did not run.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.send_clients_away();
        for session in self.sessions.all() {
            self.command(Command::Look(session.id()));
        }
    }

    /// Whether new requests are refused.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether this is the server that new clients are meant for.
    pub fn is_serving(&self) -> bool {
        !self.is_draining() && !self.handed_over.load(Ordering::Acquire)
    }

    /// Requests that were taken and are not answered.
    pub fn in_flight(&self) -> u32 {
        self.sessions
            .all()
            .iter()
            .map(|session| session.in_flight())
            .sum()
    }

    /// Whether no request waits or runs anywhere.
    pub fn is_idle(&self) -> bool {
        self.commands.lock().is_empty()
            && self.models.all().iter().all(|version| version.is_idle())
            && self.in_flight() == 0
    }

    /// Ends all workers, after what they run.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.attention.store(true, Ordering::Release);
        self.kick.notify();
        let workers = std::mem::take(&mut *self.workers.lock());
        self.parking.lock().tokens = workers.len();
        self.unpark.notify_all();
        for worker in workers {
            if worker.join().is_err() {
                tracing::error!("a worker ended by a panic");
            }
        }
    }

    fn command(&self, command: Command) {
        self.commands.lock().push(command);
        // The leader takes the flag before the commands, so one that is pushed later is seen in its next turn.
        self.attention.store(true, Ordering::Release);
        self.kick.notify();
    }

    fn fresh_key(&self) -> BindingKey {
        BindingKey(self.binding_keys.fetch_add(1, Ordering::Relaxed))
    }

    fn park(&self) {
        let mut parking = self.parking.lock();
        while parking.tokens == 0 {
            self.unpark.wait(&mut parking);
        }
        parking.tokens -= 1;
    }

    fn unpark_one(&self) {
        let mut parking = self.parking.lock();
        // One is enough: whoever takes the lead finds all the work there is.
        parking.tokens = parking.tokens.max(1);
        self.unpark.notify_one();
    }

    /// Tells who sent a job what became of it.
    fn refuse_job(&self, ticket: &Ticket, job: Job, status: Status, detail: [u64; 2]) {
        job.request.version.metrics().refused(status);
        let outcome = crate::model::request::Outcome::refused(status, detail);
        self.tell_alone(*ticket, job, outcome);
    }
}
