//! The life of a worker: lead, run, sleep.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use adjoin_schema::status::Status;
use adjoin_shm::clock::now_ns;
use parking_lot::MutexGuard;
use smallvec::SmallVec;

use super::intake::ring_rejection;
use super::lead::Lead;
use super::{Command, Engine};
use crate::batch::execute::{self, Finished};
use crate::batch::queue::Ticket;
use crate::model::ModelVersion;
use crate::model::request::{Job, Sink, Source};
use crate::model::version::{Batch, Next};
use crate::session::Session;

/// A batch that takes less is run with the lead in hand: waking another worker would take as long.
const INLINE_NS: u64 = 50_000;
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
            lead.publish_cpu();
            let now_ns = now_ns();
            if self.attention.swap(false, Ordering::AcqRel) {
                self.take_commands(lead, now_ns);
            }
            if lead.active.len() < lead.intakes.len()
                && now_ns.saturating_sub(lead.polled_ns) > POLL_INTERVAL_NS
            {
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
        let is_worthwhile = !lead.active.is_empty() && self.running.load(Ordering::Relaxed) == 0;
        if !is_worthwhile || until_ns.saturating_sub(now_ns) < self.options.spin_ns {
            return lead.has_entries();
        }
        lead.step_aside(now_ns);
        let mut spin = lead.spin.clone();
        // The clients look at the CPU, and get out of the way if they must.
        let look = || lead.has_entries() || self.attention.load(Ordering::Relaxed);
        let found = spin.spin(look, || false);
        lead.spin = spin;
        found
    }

    /// The next batch of any model, or when to look again.
    fn dispatch(&self, lead: &mut Lead, now_ns: u64) -> Result<(Arc<ModelVersion>, Batch), u64> {
        let mut until_ns = u64::MAX;
        let mut expired = Vec::new();
        let mut found = None;
        let mut index = 0;
        // By turns, so that no model waits for ever behind another; those that are done leave the list.
        let first = lead.turn.checked_rem(lead.busy.len()).unwrap_or(0);
        lead.busy.rotate_left(first);
        lead.turn = 0;
        while index < lead.busy.len() && found.is_none() {
            match lead.busy[index].next(now_ns, true, &mut expired) {
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

    fn take_commands(&self, lead: &mut Lead, now_ns: u64) {
        for id in std::mem::take(&mut *self.fired.lock()) {
            lead.activate(id);
        }
        let commands = std::mem::take(&mut *self.commands.lock());
        for command in commands {
            match command {
                Command::Attach(session) => self.take_session(lead, session),
                Command::Detach(id) => self.drop_session(lead, id),
                Command::Look(id) => lead.activate(id),
                Command::Submit(mut ticket, job) => {
                    ticket.enqueued_ns = ticket.enqueued_ns.min(now_ns);
                    self.enqueue(lead, ticket, *job);
                }
            }
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
        let consumer = adjoin_shm::ring::Consumer::new();
        lead.intakes.insert(
            id,
            super::lead::Intake {
                session,
                consumer,
                is_active: false,
            },
        );
        // The client may have submitted before this point, and the server's word says "awake" at first.
        lead.activate(id);
    }

    fn drop_session(&self, lead: &mut Lead, id: u64) {
        let Some(intake) = lead.intakes.remove(&id) else {
            return;
        };
        lead.active.retain(|&active| active != id);
        self.poller.remove(intake.session.event_fd());
        let mut removed = Vec::new();
        for version in &lead.busy {
            version.remove_flow(id, &mut removed);
        }
        drop(removed);
        drop(intake);
        self.count_sessions();
    }

    fn run<'a>(
        &'a self,
        mut lead: MutexGuard<'a, Lead>,
        version: &Arc<ModelVersion>,
        batch: Batch,
    ) -> MutexGuard<'a, Lead> {
        let expected_ns = version.timing().estimate_ns(batch.rows).unwrap_or(u64::MAX);
        let is_alone = lead.active.len() <= 1;
        if expected_ns < INLINE_NS || (is_alone && expected_ns < INLINE_ALONE_NS) {
            self.publish(execute_batch(version, batch));
            return lead;
        }

        // A long batch: others must be able to drain, cancel and refuse meanwhile.
        self.running.fetch_add(1, Ordering::AcqRel);
        let until_ns = Self::next_timer_ns(&lead);
        if lead.announce_sleep() && lead.has_sleeper {
            self.shorten_sleep(&mut lead, until_ns);
        } else if lead.has_sleeper {
            self.kick.notify();
        } else {
            self.unpark_one();
        }
        drop(lead);
        let finished = execute_batch(version, batch);
        if let Some(mut lead) = self.lead.try_lock() {
            // Before their clients get the answer, so that the next request need not ring.
            for session in sessions_of(&finished) {
                lead.activate(session.id());
            }
            self.running.fetch_sub(1, Ordering::AcqRel);
            self.publish(finished);
            return lead;
        }
        self.publish(finished);
        self.run_waiting(version);
        self.running.fetch_sub(1, Ordering::AcqRel);
        self.lead.lock()
    }

    /// Goes on with what waits for the same model, as long as another worker has the lead.
    fn run_waiting(&self, version: &ModelVersion) {
        let mut expired = Vec::new();
        loop {
            let now_ns = now_ns();
            let next = version.next(now_ns, true, &mut expired);
            self.refuse_expired(&mut expired, now_ns);
            let Next::Run(batch) = next else { return };
            self.publish(execute_batch(version, batch));
        }
    }

    fn refuse_expired(&self, expired: &mut Vec<(Ticket, Job)>, now_ns: u64) {
        for (ticket, job) in expired.drain(..) {
            let detail = [ticket.deadline_ns, now_ns];
            self.refuse_job(&ticket, job, Status::DeadlineExceeded, detail);
        }
    }

    /// When a worker must look at what waits, while this one runs a batch.
    fn next_timer_ns(lead: &Lead) -> u64 {
        let now_ns = now_ns();
        lead.busy
            .iter()
            .map(|version| version.due_ns(now_ns, true))
            .min()
            .unwrap_or(u64::MAX)
    }

    fn shorten_sleep(&self, lead: &mut Lead, until_ns: u64) {
        if until_ns < lead.sleeper_until_ns {
            self.attention.store(true, Ordering::Release);
            self.kick.notify();
        }
    }

    fn sleep<'a>(&'a self, mut lead: MutexGuard<'a, Lead>, until_ns: u64) -> MutexGuard<'a, Lead> {
        if lead.has_sleeper {
            self.shorten_sleep(&mut lead, until_ns);
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

    /// Hands outcomes to those who wait for them.
    pub(super) fn publish(&self, finished: Vec<Finished>) {
        let sessions = sessions_of(&finished);
        for (_, mut job, mut outcome) in finished {
            match (&job.sink, &job.request.source) {
                (Sink::Session { .. }, Source::Session(session)) => {
                    let session = Arc::clone(session);
                    if let Err(error) = session.complete(job, &outcome) {
                        self.fault(&session, ring_rejection(&error));
                    }
                }
                _ => {
                    let sink = std::mem::replace(&mut job.sink, Sink::Session { prepared: None });
                    if let Sink::Reply(reply) = sink {
                        outcome.response = Some(job.response);
                        // Whoever asked may have gone.
                        let _ = reply.send(outcome);
                    }
                }
            }
        }
        for session in sessions {
            if session.ring() {
                self.metrics.client_wakeups.inc();
            }
        }
    }
}

/// Runs a batch and gives its instance back, so that it is free before anyone hears of the outcome.
fn execute_batch(version: &ModelVersion, batch: Batch) -> Vec<Finished> {
    let Batch {
        mut instance, jobs, ..
    } = batch;
    let mut finished = Vec::with_capacity(jobs.len());
    execute::run(version, &mut instance, jobs, &mut finished);
    version.give_back(instance);
    finished
}

fn sessions_of(finished: &[Finished]) -> SmallVec<[Arc<Session>; 8]> {
    let mut sessions: SmallVec<[Arc<Session>; 8]> = SmallVec::new();
    for (_, job, _) in finished {
        if let Source::Session(session) = &job.request.source
            && !sessions.iter().any(|known| known.id() == session.id())
        {
            sessions.push(Arc::clone(session));
        }
    }
    sessions
}
