//! What one model version has to run and what it can run it on: the queue, the free instances, and the rules
//! that bring them together. Pure like [`policy`](super::policy) and [`queue`](super::queue), which it joins with
//! measured times: the clock comes in as an argument.

use smallvec::SmallVec;

use super::admission::Backlog;
use super::arrivals::Arrivals;
use super::policy::{BatchPolicy, Decision, QueueFacts};
use super::queue::{BatchQueue, Ticket};
use super::queue_policy::QueuePolicies;
use crate::model::Timing;

/// The waiting requests `T` and instances `I` of one model version.
#[derive(Debug)]
pub struct Scheduler<T, I> {
    policy: BatchPolicy,
    queue: BatchQueue<T>,
    free: Vec<I>,
    /// In the order in which they were sent off.
    running: SmallVec<[Running; 4]>,
    /// Kept only where a batch may wait for requests to come.
    arrivals: Option<Arrivals>,
    policies: QueuePolicies,
    /// Batches that are computed at once; more of them are only made ready meanwhile.
    computed_at_once: usize,
    /// Batches until one is made larger than pays, to see whether that is still so.
    until_probe: u32,
}

/// So many batches are made no larger than pays, then one is.
const PROBE_INTERVAL: u32 = 1024;

/// What a batch takes to be made ready, copied and launched, is less than its time by this.
const READY_SHARE: u64 = 2;

/// A batch that runs.
#[derive(Clone, Copy, Debug)]
struct Running {
    /// When it will probably end.
    until_ns: u64,
    /// Since when it is computed; `None` while it waits behind others.
    turn_ns: Option<u64>,
}

/// A batch on its way to an instance.
#[derive(Debug)]
pub struct Batch<T, I> {
    /// The instance that will run it; goes back by [`Scheduler::finish`].
    pub instance: I,
    /// What runs, at least one.
    pub jobs: Vec<(Ticket, T)>,
    /// Rows of all jobs.
    pub rows: u32,
    /// When it was formed.
    pub started_ns: u64,
    /// When it will probably end.
    pub until_ns: u64,
}

/// What can be done now.
#[derive(Debug)]
pub enum Next<T, I> {
    /// Run this.
    Run(Batch<T, I>),
    /// Nothing before that time, in ns; `u64::MAX`: nothing until an instance is free.
    WaitUntil(u64),
    /// The queue is empty.
    Idle,
}

/// Why a request was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The queue holds as many requests as it may, in all or of this level.
    QueueFull {
        /// The limit.
        count_max: usize,
    },
    /// It would end after its deadline.
    DeadlineUnreachable {
        /// The end that is predicted, in ns.
        end_ns: u64,
    },
}

impl<T, I> Scheduler<T, I> {
    /// With an empty queue of at most `queue_count_max` requests, and all instances free.
    #[must_use]
    pub fn new(policy: BatchPolicy, queue_count_max: usize, instances: Vec<I>) -> Self {
        let may_wait = policy.max_queue_delay_ns > 0 && policy.max_batch_size > 1;
        Self {
            policy,
            queue: BatchQueue::new(queue_count_max),
            free: instances,
            running: SmallVec::new(),
            arrivals: may_wait.then(Arrivals::default),
            policies: QueuePolicies::default(),
            computed_at_once: usize::MAX,
            until_probe: PROBE_INTERVAL,
        }
    }

    /// With policies for the requests of its levels.
    #[must_use]
    pub fn with_policies(mut self, policies: QueuePolicies) -> Self {
        if policies.is_in_order {
            self.queue.keep_order();
        }
        self.policies = policies;
        self
    }

    /// For instances of which only so many compute at once, while the others make a batch ready.
    #[must_use]
    pub fn computing(mut self, at_once: usize) -> Self {
        self.computed_at_once = at_once;
        self
    }

    /// Number of waiting requests.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits and nothing runs.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running.is_empty()
    }

    /// Whether anything runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// The request, and why not.
    pub fn enqueue(
        &mut self,
        ticket: Ticket,
        item: T,
        now_ns: u64,
        timing: &Timing,
    ) -> Result<(), (T, Refusal)> {
        if !self.queue.is_full()
            && ticket.deadline_ns != u64::MAX
            && let Err(end_ns) = self.admit(&ticket, now_ns, timing)
        {
            return Err((item, Refusal::DeadlineUnreachable { end_ns }));
        }
        let count_max = self.policies.of(ticket.priority).count_max;
        if count_max < usize::MAX && self.queue.waiting_at(ticket.priority) >= count_max {
            return Err((item, Refusal::QueueFull { count_max }));
        }
        self.queue.push(ticket, item).map_err(|item| {
            let count_max = self.queue.count_max();
            (item, Refusal::QueueFull { count_max })
        })?;
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.arrived(ticket.flow, now_ns);
        }
        Ok(())
    }

    fn admit(&self, ticket: &Ticket, now_ns: u64, timing: &Timing) -> Result<(), u64> {
        // With nothing before it, it is tried whatever was measured: a measurement can only be corrected by
        // another one.
        if self.is_idle() {
            return Ok(());
        }
        let running = self.running.iter();
        let running = running.map(|running| running.until_ns.max(now_ns));
        let free = self.free.iter().map(|_| now_ns);
        let mut free_ns: SmallVec<[u64; 4]> = running.chain(free).collect();
        // Those that end first are followed by those that run behind them.
        free_ns.sort_unstable_by(|a, b| b.cmp(a));
        free_ns.truncate(self.computed_at_once);
        let backlog = Backlog {
            free_ns,
            rows_max: self.policy.max_batch_size,
            estimate: |rows| timing.estimate(rows).unwrap_or_default(),
        };
        let (waiting, before) = self.queue.order_with(ticket);
        backlog.admit(ticket, waiting, before)
    }

    /// The next batch, if an instance is free and the policy says so. Requests that cannot meet their deadlines
    /// any more go to `expired` on the way, whether an instance is free or not.
    pub fn next(
        &mut self,
        now_ns: u64,
        timing: &Timing,
        expired: &mut Vec<(Ticket, T)>,
    ) -> Next<T, I> {
        self.expire(now_ns, timing, expired);
        if self.queue.is_empty() {
            return Next::Idle;
        }
        if !self.may_run() {
            return Next::WaitUntil(self.queue.next_deadline_ns());
        }
        let facts = self.facts(now_ns, timing);
        let held_until_ns = self.held_until_ns(facts, timing);
        if held_until_ns > now_ns {
            return Next::WaitUntil(held_until_ns.min(self.queue.next_deadline_ns()));
        }
        let rows_max = match self.policy.decide(now_ns, facts) {
            Decision::Dispatch { rows_max } => rows_max,
            Decision::WaitUntil { at_ns } => {
                return Next::WaitUntil(at_ns.min(self.queue.next_deadline_ns()));
            }
            Decision::Idle => return Next::Idle,
        };
        let Some(instance) = self.free.pop() else {
            return Next::WaitUntil(u64::MAX);
        };
        let rows_max = rows_max.min(self.rows_that_pay(facts.rows, timing));
        let mut jobs = Vec::with_capacity(self.queue.len().min(rows_max as usize));
        // While more waits than a batch takes, a short batch for one that is nearly late would make all others late.
        let is_backlogged = facts.rows >= self.policy.max_batch_size;
        let fits = |rows, deadline_ns| {
            if is_backlogged {
                return true;
            }
            let estimate = timing.estimate(rows).unwrap_or_default();
            now_ns.saturating_add(estimate.mean_ns) <= deadline_ns
        };
        self.queue.take(rows_max, fits, &mut jobs);
        let rows = jobs.iter().map(|(ticket, _)| ticket.rows).sum();
        let estimate = timing.estimate(rows).unwrap_or_default();
        let has_turn = self.running.len() < self.computed_at_once;
        let first_end_ns = self.first_end_ns().unwrap_or(now_ns).max(now_ns);
        let from_ns = if has_turn { now_ns } else { first_end_ns };
        let until_ns = from_ns.saturating_add(estimate.mean_ns);
        self.running.push(Running {
            until_ns,
            turn_ns: has_turn.then_some(now_ns),
        });
        Next::Run(Batch {
            instance,
            jobs,
            rows,
            started_ns: now_ns,
            until_ns,
        })
    }

    /// Most rows of a batch for it to pay, of those that wait. Who has configured when to send a batch off, or of what
    /// size, gets that.
    fn rows_that_pay(&mut self, waiting: u32, timing: &Timing) -> u32 {
        let BatchPolicy {
            max_batch_size,
            preferred_batch_sizes,
            max_queue_delay_ns,
        } = &self.policy;
        if waiting < 2 || *max_queue_delay_ns > 0 || !preferred_batch_sizes.is_empty() {
            return u32::MAX;
        }
        let waiting = waiting.min(*max_batch_size);
        let rows = timing.rows_that_pay(waiting);
        if rows >= waiting {
            return u32::MAX;
        }
        self.until_probe -= 1;
        if self.until_probe == 0 {
            self.until_probe = PROBE_INTERVAL;
            return u32::MAX;
        }
        rows
    }

    /// Takes out what is past its deadline. While others wait for the instance that is free, also what would
    /// end after it.
    fn expire(&mut self, now_ns: u64, timing: &Timing, expired: &mut Vec<(Ticket, T)>) {
        let first = expired.len();
        let least_ns = if self.free.is_empty() || self.queue.len() < 2 {
            0
        } else {
            timing.estimate(1).unwrap_or_default().mean_ns
        };
        let start_ns = now_ns.saturating_add(least_ns);
        self.queue.expire(now_ns, start_ns, expired);
        if let Some(arrivals) = &mut self.arrivals {
            for (ticket, _) in &expired[first..] {
                arrivals.left(ticket.flow, now_ns);
            }
        }
    }

    /// Whether a batch may run beside what runs. In order only one does: two might end the other way round.
    fn may_run(&self) -> bool {
        let waits_for_others = self.policies.is_in_order && !self.running.is_empty();
        !self.free.is_empty() && !waits_for_others
    }

    fn facts(&self, now_ns: u64, timing: &Timing) -> QueueFacts {
        let mut facts = self.queue.facts(self.policy.max_batch_size);
        // Only a batch that may wait needs to know how long it should.
        if let Some(arrivals) = &self.arrivals
            && facts.rows < self.policy.max_batch_size
        {
            let estimate = timing.estimate(facts.rows).unwrap_or_default();
            // Who comes just after a batch has started waits for its end. Who waits for him waits with all rows.
            let gain_ns = estimate.mean_ns / u64::from(facts.rows.max(1));
            let worthwhile_ns = now_ns.saturating_add(gain_ns);
            let until_ns = self.policy.due_ns(&facts).min(worthwhile_ns);
            facts.grows_until_ns = arrivals.grows_until_ns(now_ns, until_ns);
            if facts.deadline_ns != u64::MAX {
                facts.start_by_ns = facts.deadline_ns.saturating_sub(estimate.bound_ns());
            }
        }
        facts
    }

    /// Until when a batch gains nothing by being sent off, in ns: while others are computed it would only wait behind them,
    /// where nobody joins it any more. It goes early enough to be ready when they end. Who has configured when to send a
    /// batch off, or of what size, gets that.
    fn held_until_ns(&self, facts: QueueFacts, timing: &Timing) -> u64 {
        let BatchPolicy {
            max_batch_size,
            preferred_batch_sizes,
            max_queue_delay_ns,
        } = &self.policy;
        let is_configured = *max_queue_delay_ns > 0 || !preferred_batch_sizes.is_empty();
        let is_full = facts.rows >= *max_batch_size;
        let has_turn = self.running.len() < self.computed_at_once;
        if has_turn || is_full || is_configured {
            return 0;
        }
        let Some(first_end_ns) = self.first_end_ns() else {
            return 0;
        };
        let estimate = timing.estimate(facts.rows).unwrap_or_default();
        let ready_ns = first_end_ns.saturating_sub(estimate.mean_ns / READY_SHARE);
        // Nothing is to be late, or given up by its timeout, for the sake of others that may come.
        if self.queue.next_deadline_ns() <= ready_ns {
            return 0;
        }
        match facts.deadline_ns {
            u64::MAX => ready_ns,
            deadline_ns => ready_ns.min(deadline_ns.saturating_sub(estimate.bound_ns())),
        }
    }

    /// When something is to be done for what waits, in ns: a batch may be due now, or a deadline passes later.
    #[must_use]
    pub fn due_ns(&self, now_ns: u64, timing: &Timing) -> u64 {
        let deadline_ns = self.queue.next_deadline_ns();
        if !self.may_run() {
            return deadline_ns;
        }
        let facts = self.facts(now_ns, timing);
        let held_until_ns = self.held_until_ns(facts, timing);
        if held_until_ns > now_ns {
            return held_until_ns.min(deadline_ns);
        }
        match self.policy.decide(now_ns, facts) {
            Decision::Idle => deadline_ns,
            Decision::Dispatch { .. } => now_ns,
            Decision::WaitUntil { at_ns } => at_ns.min(deadline_ns),
        }
    }

    /// When the first of the running batches will probably end.
    fn first_end_ns(&self) -> Option<u64> {
        self.running.iter().map(|running| running.until_ns).min()
    }

    /// Takes an instance back after its batch, which was to end at `until_ns` and had a request of each of
    /// these flows. Returns since when it was computed; 0 if that is not known.
    pub fn finish(&mut self, instance: I, until_ns: u64, flows: &[u64], now_ns: u64) -> u64 {
        self.free.push(instance);
        let mut running = self.running.iter();
        let index = running.position(|running| running.until_ns == until_ns);
        let ended = index.map(|index| self.running.remove(index));
        // Its place is that of the one that waits for the longest time.
        let mut waiting = self.running.iter_mut();
        if let Some(next) = waiting.find(|running| running.turn_ns.is_none()) {
            next.turn_ns = Some(now_ns);
        }
        if let Some(arrivals) = &mut self.arrivals {
            flows.iter().for_each(|&flow| arrivals.left(flow, now_ns));
        }
        ended.and_then(|ended| ended.turn_ns).unwrap_or(0)
    }

    /// Takes all free instances out: nothing runs any more.
    pub fn take_instances(&mut self) -> Vec<I> {
        std::mem::take(&mut self.free)
    }

    /// Takes a waiting request out.
    pub fn cancel(&mut self, flow: u64, request_id: u64, now_ns: u64) -> Option<(Ticket, T)> {
        let cancelled = self.queue.cancel(flow, request_id)?;
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.left(flow, now_ns);
        }
        Some(cancelled)
    }

    /// Takes all waiting requests out.
    pub fn take_waiting(&mut self, taken: &mut Vec<(Ticket, T)>) {
        self.queue.take_all(taken);
    }

    /// Takes all waiting requests of a flow out, which sends no more.
    pub fn remove_flow(&mut self, flow: u64, removed: &mut Vec<(Ticket, T)>) {
        self.queue.remove_flow(flow, removed);
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.remove(flow);
        }
    }
}

#[cfg(test)]
mod tests;
