//! The life of a worker: lead, run, sleep.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use adjoin_schema::status::Status;
use adjoin_shm::clock::now_ns;
use parking_lot::MutexGuard;
use smallvec::SmallVec;
use tokio::sync::oneshot::Sender;

use super::intake::ring_rejection;
use super::lead::Lead;
use super::steps::EndedStep;
use super::{Command, Engine};
use crate::batch::execute::{self, Executed};
use crate::batch::queue::Ticket;
use crate::model::ModelVersion;
use crate::model::request::{Job, Outcome, Sink, Source};
use crate::model::version::{Batch, Next};
use crate::session::Session;

/// A batch that takes less is run with the lead in hand: waking another worker would take as long.
pub(super) const INLINE_NS: u64 = 50_000;
/// The same while no other session is active: nobody is there whom the wait could hurt.
const INLINE_ALONE_NS: u64 = 1_000_000;
/// How often, at most, a busy leader looks whether sleeping sessions rang.
const POLL_INTERVAL_NS: u64 = 50_000;

enum Turn {
    Run(Arc<ModelVersion>, Batch),
    Sleep { until_ns: u64 },
    Stop,
}

impl Engine {
    /// Works until the engine stops.
    pub(super) fn work(&self) {
        // Timers of the batcher are a few hundred microseconds; the default slack of 50 is too much.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000));
        let mut lead = self.lead.lock();
        loop {
            lead = match self.turn(&mut lead) {
                Turn::Run(version, batch) => self.run(lead, &version, batch),
                Turn::Sleep { until_ns } => self.sleep(lead, until_ns),
                Turn::Stop => return,
            };
        }
    }

    /// Looks for work until there is some, or nothing is left but to sleep.
    fn turn(&self, lead: &mut Lead) -> Turn {
        loop {
            if self.stopping.load(Ordering::Acquire) {
                return Turn::Stop;
            }
            let now_ns = now_ns();
            if self.attention.swap(false, Ordering::AcqRel) {
                self.take_commands(lead, now_ns);
            }
            if lead.has_inactive() && now_ns.saturating_sub(lead.polled_ns) > POLL_INTERVAL_NS {
                lead.polled_ns = now_ns;
                let mut fired = Vec::new();
                self.poller.wait(0, &mut fired);
                for id in fired {
                    lead.activate(id);
                }
            }
            let drained = self.drain_rings(lead, now_ns);
            let until_ns = match self.dispatch(lead, now_ns) {
                Ok((version, batch)) => return Turn::Run(version, batch),
                Err(until_ns) => until_ns,
            };
            if drained > 0
                || self.spin(lead, now_ns, until_ns)
                || self.attention.load(Ordering::Acquire)
            {
                continue;
            }
            if lead.announce_sleep() {
                return Turn::Sleep { until_ns };
            }
        }
    }

    /// Looks at the active rings for a while; true if there is something.
    fn spin(&self, lead: &mut Lead, now_ns: u64, until_ns: u64) -> bool {
        // While a batch runs elsewhere, spinning would only take its cores; before a timer it would be late.
        let is_worthwhile = lead.active_count() > 0 && self.running.load(Ordering::Relaxed) == 0;
        if !is_worthwhile || until_ns.saturating_sub(now_ns) < self.spin_ns {
            return lead.has_entries();
        }
        lead.publish_cpu();
        lead.step_aside(now_ns);
        let mut spin = lead.spin.clone();
        // The clients look at the CPU, and get out of the way if they must.
        let look = || lead.has_entries() || self.attention.load(Ordering::Relaxed);
        let found = spin.spin(look, || false);
        lead.spin = spin;
        found
    }

    /// The next batch of any model, or when to look again.
    // A call of its own, so that its instructions can be counted (`benches/instructions.py`).
    #[inline(never)]
    pub(super) fn dispatch(
        &self,
        lead: &mut Lead,
        now_ns: u64,
    ) -> Result<(Arc<ModelVersion>, Batch), u64> {
        if let Some(picked) = lead.picked.pop() {
            return Ok(picked);
        }
        let mut until_ns = u64::MAX;
        let mut expired = Vec::new();
        let mut found = None;
        let mut index = 0;
        // By turns, so that no model waits for ever behind another; those that are done leave the list.
        let first = lead.turn.checked_rem(lead.busy.len()).unwrap_or(0);
        lead.busy.rotate_left(first);
        lead.turn = 0;
        while index < lead.busy.len() && found.is_none() {
            match lead.busy[index].next(now_ns, &mut expired) {
                Next::Run(batch) => {
                    found = Some((Arc::clone(&lead.busy[index]), batch));
                    lead.turn = index + 1;
                }
                Next::WaitUntil(at_ns) => {
                    until_ns = until_ns.min(at_ns);
                    index += 1;
                }
                Next::Idle => drop(lead.busy.remove(index)),
            }
        }
        self.refuse_expired(&mut expired, now_ns);
        found.ok_or(until_ns)
    }

    pub(super) fn take_commands(&self, lead: &mut Lead, now_ns: u64) {
        for id in std::mem::take(&mut *self.fired.lock()) {
            lead.activate(id);
        }
        let commands = std::mem::take(&mut *self.commands.lock());
        for command in commands {
            match command {
                Command::Attach(session) => self.take_session(lead, session),
                Command::Detach(id) => self.drop_session(lead, id),
                Command::Look(id) => lead.activate(id),
                Command::Cancel { flow, request_id } => {
                    self.cancel_waiting(lead, flow, request_id, now_ns);
                }
                Command::Forget(flow) => self.remove_flow(lead, flow),
                Command::Lost(versions) => self.refuse_lost(&versions),
                // Whoever asked may have gone; then what is left is dropped here.
                Command::Retire(version, answer) => drop(answer.send(version.retire())),
                Command::Submit(mut ticket, job) => {
                    ticket.enqueued_ns = ticket.enqueued_ns.min(now_ns);
                    self.enqueue(lead, ticket, *job, now_ns);
                }
            }
        }
    }

    /// Answers what waits for versions that run no more. With the lead in hand nothing more comes to their queues.
    fn refuse_lost(&self, versions: &[Arc<ModelVersion>]) {
        let mut waiting = Vec::new();
        for version in versions {
            version.take_waiting(&mut waiting);
        }
        for (ticket, job) in waiting {
            self.refuse_job(&ticket, job, Status::ModelNotReady, [0; 2]);
        }
    }

    fn take_session(&self, lead: &mut Lead, session: Arc<Session>) {
        let id = session.id();
        if session.is_closed() {
            return;
        }
        if let Err(error) = self.poller.add(session.event_fd(), id) {
            tracing::error!(session = id, %error, "cannot poll the session's event descriptor");
            self.fault(&session, Status::SessionUnavailable.into());
            return;
        }
        lead.insert(session);
        // The client may have submitted before this point, and the server's word says "awake" at first.
        lead.activate(id);
    }

    fn drop_session(&self, lead: &mut Lead, id: u64) {
        let Some(session) = lead.remove(id) else {
            return;
        };
        self.poller.remove(session.event_fd());
        self.remove_flow(lead, id);
        drop(session);
        self.count_sessions();
    }

    /// Drops what waits of a flow whose sender has gone: nobody is told.
    fn remove_flow(&self, lead: &mut Lead, flow: u64) {
        let mut removed = Vec::new();
        for version in self.models.all().iter().chain(&lead.busy) {
            version.remove_flow(flow, &mut removed);
        }
        self.runs.cancel_flow(flow);
        self.drop_steps(lead, removed);
    }

    fn run<'a>(
        &'a self,
        mut lead: MutexGuard<'a, Lead>,
        version: &Arc<ModelVersion>,
        batch: Batch,
    ) -> MutexGuard<'a, Lead> {
        let expected_ns = Self::expected_ns(version, &batch);
        let is_alone = lead.active_count() <= 1;
        // A session that has sent more than one request may have the next batch copied while this one is computed.
        let is_short = expected_ns < INLINE_NS
            || (is_alone && expected_ns < INLINE_ALONE_NS && !version.has_batch_to_overlap());
        if is_short || version.plan().is_some() {
            self.run_leading(&mut lead, version, batch);
            return lead;
        }

        // A long batch: others must be able to drain, cancel and refuse meanwhile.
        self.running.fetch_add(1, Ordering::AcqRel);
        let until_ns = Self::next_timer_ns(&lead);
        if lead.announce_sleep() && lead.has_sleeper {
            self.shorten_sleep(&lead, until_ns);
        } else if lead.has_sleeper {
            self.kick.notify();
        } else {
            self.unpark_one();
        }
        drop(lead);
        let Batch {
            mut instance,
            jobs,
            until_ns,
            started_ns,
            ..
        } = batch;
        let mut finished = Vec::with_capacity(jobs.len());
        let keep = |ticket, job, outcome| finished.push((ticket, job, outcome));
        let executed = execute::run(version, &mut instance, jobs, keep);
        let lead = self.lead.try_lock();
        let mut lead = lead.map(|mut lead| {
            // Before their clients get the answer, so that the next request need not ring.
            for (ticket, _, _) in &finished {
                lead.activate(ticket.flow);
            }
            self.running.fetch_sub(1, Ordering::AcqRel);
            lead
        });
        let mut told = Told::default();
        for (ticket, job, outcome) in finished {
            self.tell(ticket, job, outcome, &mut told);
        }
        let turn_ns = version.finish(instance, until_ns, &told.flows, executed.end_ns);
        let turn_ns = started_ns.max(turn_ns);
        self.conclude(lead.as_deref_mut(), version, &executed, turn_ns, told);
        if let Some(lead) = lead {
            return lead;
        }
        self.run_waiting(version);
        self.running.fetch_sub(1, Ordering::AcqRel);
        self.lead.lock()
    }

    /// How long a batch is expected to run, in ns; without end before anything like it has run.
    pub(super) fn expected_ns(version: &ModelVersion, batch: &Batch) -> u64 {
        let timing = version.timing();
        if !timing.holds_for(batch.rows, || execute::input_bytes(&batch.jobs)) {
            return u64::MAX;
        }
        let estimate = timing.estimate(batch.rows);
        estimate.map_or(u64::MAX, |estimate| estimate.mean_ns)
    }

    /// Runs a batch with the lead in hand.
    pub(super) fn run_leading(&self, lead: &mut Lead, version: &Arc<ModelVersion>, batch: Batch) {
        match version.plan() {
            Some(plan) => self.begin_run(lead, version, plan, batch),
            None => self.run_and_tell(Some(lead), version, batch),
        }
    }

    /// Goes on with what waits for the same model, as long as another worker has the lead.
    fn run_waiting(&self, version: &ModelVersion) {
        let mut expired = Vec::new();
        loop {
            let now_ns = now_ns();
            let next = version.next(now_ns, &mut expired);
            self.refuse_expired(&mut expired, now_ns);
            let Next::Run(batch) = next else { return };
            self.run_and_tell(None, version, batch);
        }
    }

    fn refuse_expired(&self, expired: &mut Vec<(Ticket, Job)>, now_ns: u64) {
        for (ticket, job) in expired.drain(..) {
            let detail = [ticket.deadline_ns.min(ticket.timeout_ns), now_ns];
            self.refuse_job(&ticket, job, Status::DeadlineExceeded, detail);
        }
    }

    /// When a worker must look at what waits, while this one runs a batch.
    fn next_timer_ns(lead: &Lead) -> u64 {
        let now_ns = now_ns();
        lead.busy
            .iter()
            .map(|version| version.due_ns(now_ns))
            .min()
            .unwrap_or(u64::MAX)
    }

    pub(super) fn shorten_sleep(&self, lead: &Lead, until_ns: u64) {
        if until_ns < lead.sleeper_until_ns {
            self.attention.store(true, Ordering::Release);
            self.kick.notify();
        }
    }

    fn sleep<'a>(&'a self, mut lead: MutexGuard<'a, Lead>, until_ns: u64) -> MutexGuard<'a, Lead> {
        if lead.has_sleeper {
            self.shorten_sleep(&lead, until_ns);
            drop(lead);
            self.park();
            return self.lead.lock();
        }
        lead.has_sleeper = true;
        lead.sleeper_until_ns = until_ns;
        drop(lead);
        let mut fired = Vec::new();
        let timeout_ns = if until_ns == u64::MAX {
            u64::MAX
        } else {
            until_ns.saturating_sub(now_ns())
        };
        let asleep_ns = now_ns();
        self.poller.wait(timeout_ns, &mut fired);
        self.metrics.wakeups.inc();
        if !fired.is_empty() {
            self.fired.lock().extend(fired);
            self.attention.store(true, Ordering::Release);
        }
        let mut lead = self.lead.lock();
        lead.has_sleeper = false;
        lead.sleeper_until_ns = u64::MAX;
        lead.spin.slept(now_ns() - asleep_ns);
        lead
    }

    /// Runs a batch. Clients that look at their rings see each outcome first; then the instance goes back and
    /// everything is counted; then those who sleep are woken.
    fn run_and_tell(&self, lead: Option<&mut Lead>, version: &ModelVersion, batch: Batch) {
        let Batch {
            mut instance,
            jobs,
            until_ns,
            started_ns,
            ..
        } = batch;
        let mut told = Told::default();
        let executed = execute::run(version, &mut instance, jobs, |ticket, job, outcome| {
            self.tell(ticket, job, outcome, &mut told);
        });
        let turn_ns = version.finish(instance, until_ns, &told.flows, executed.end_ns);
        self.conclude(lead, version, &executed, started_ns.max(turn_ns), told);
    }

    /// What is left once the rings have the outcomes and the instance is back.
    // A call of its own, so that its instructions can be counted (`benches/instructions.py`).
    #[inline(never)]
    fn conclude(
        &self,
        lead: Option<&mut Lead>,
        version: &ModelVersion,
        executed: &Executed,
        turn_ns: u64,
        told: Told,
    ) {
        executed.count(version);
        self.wake(lead, told);
        executed.learn(version, turn_ns);
        if let Some(reason) = &executed.device_loss {
            self.device_lost(reason);
        }
    }

    /// Tells one that a job did not run.
    pub(super) fn tell_alone(&self, ticket: Ticket, job: Job, outcome: Outcome) {
        let mut told = Told::default();
        self.tell(ticket, job, outcome, &mut told);
        self.wake(None, told);
    }

    /// Puts a completion into its ring. Who must be woken for it is noted.
    // A call of its own, so that its instructions can be counted (`benches/instructions.py`).
    #[inline(never)]
    pub(super) fn tell(&self, ticket: Ticket, mut job: Job, mut outcome: Outcome, told: &mut Told) {
        told.flows.push(ticket.flow);
        match (&mut job.sink, &job.request.source) {
            (Sink::Session { .. }, Source::Session(session)) => {
                if self.traces.is_sampling() {
                    self.traces.told(&ticket, &job, &outcome);
                }
                let session = Arc::clone(session);
                if let Err(error) = session.complete(job, &outcome) {
                    self.fault(&session, ring_rejection(&error));
                }
                if !told
                    .sessions
                    .iter()
                    .any(|known| Arc::ptr_eq(known, &session))
                {
                    told.sessions.push(session);
                }
            }
            (Sink::Session { .. }, Source::Owned(_) | Source::Steps(_)) => {}
            (Sink::Reply(reply), _) => {
                let reply = reply.take();
                outcome.response = Some(job.response);
                told.replies.extend(reply.map(|reply| (reply, outcome)));
            }
            (Sink::Step(sink), _) => {
                let sink = sink.clone();
                outcome.response = Some(job.response);
                told.steps.push((sink, job.request, outcome));
            }
        }
    }

    /// Wakes those who sleep, and goes on with the runs whose steps were told.
    pub(super) fn wake(&self, lead: Option<&mut Lead>, told: Told) {
        for (reply, outcome) in told.replies {
            // Whoever asked may have gone.
            let _ = reply.send(outcome);
        }
        for session in told.sessions {
            if session.ring() {
                self.metrics.client_wakeups.inc();
            }
        }
        self.end_steps(lead, told.steps);
    }
}

/// Whose outcomes were told.
#[derive(Default)]
pub(super) struct Told {
    /// One for each outcome.
    flows: SmallVec<[u64; 8]>,
    sessions: SmallVec<[Arc<Session>; 4]>,
    replies: SmallVec<[(Sender<Outcome>, Outcome); 1]>,
    pub(super) steps: Vec<EndedStep>,
}
