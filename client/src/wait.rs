//! Waiting for a completion on a thread: look for a while, then sleep, and never miss the death of the
//! server.
//!
//! A thread that waits takes whatever completions are there, its own and those of others. A futex does
//! not see the end of a connection, so a sleeper looks at its socket every 50 ms.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use adjoin_schema::layout::wait;
use adjoin_schema::limits::CLIENT_SLEEP_MS_MAX;
use adjoin_shm::clock::now_ns;
use adjoin_shm::{SpinBudget, doorbell};
use parking_lot::Mutex;

use crate::inflight::Ticket;
use crate::session::Session;

const SLEEP_MAX: Duration = Duration::from_millis(CLIENT_SLEEP_MS_MAX);

/// How a wait came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// The completion is in the slot.
    Done,
    /// The session is over and the completion did not come.
    Ended,
    /// The caller's time is up.
    TimedOut,
}

/// How one that waits wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// By the futex.
    Thread,
    /// By a packet on the attach socket.
    Task,
}

/// Counts of those that wait, behind the one wait word that the server looks at.
#[derive(Debug, Default)]
pub(crate) struct Sleepers {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    threads: usize,
    tasks: usize,
}

impl Counts {
    fn of(&mut self, wake: Wake) -> &mut usize {
        match wake {
            Wake::Thread => &mut self.threads,
            Wake::Task => &mut self.tasks,
        }
    }

    fn bits(&self) -> u32 {
        let thread = if self.threads > 0 { wait::ASLEEP } else { 0 };
        let task = if self.tasks > 0 { wait::SOCKET } else { 0 };
        thread | task
    }
}

impl Sleepers {
    /// Says that one more waits. The caller must look for completions once more before it sleeps.
    pub(crate) fn enter(&self, word: &AtomicU32, wake: Wake) {
        let mut counts = self.counts.lock();
        *counts.of(wake) += 1;
        // Also where the bit is set already: the fence orders this thread's next look.
        doorbell::announce(word, counts.bits());
    }

    /// Says that one does not wait any more.
    pub(crate) fn leave(&self, word: &AtomicU32, wake: Wake) {
        let mut counts = self.counts.lock();
        *counts.of(wake) -= 1;
        word.store(counts.bits(), Ordering::Relaxed);
    }
}

impl Session {
    /// Waits for the completion of a request; `until` is the caller's limit.
    pub(crate) fn wait(
        &self,
        ticket: Ticket,
        budget: &mut SpinBudget,
        until: Option<Instant>,
    ) -> Waited {
        let tail = self.memory.completion_ring().tail;
        let server_cpu = self.memory.server_cpu();
        let client_cpu = self.memory.client_cpu();
        let is_futile = || {
            let cpu = doorbell::this_cpu();
            // The word shares its cache line with one that the server reads: written when it changes only.
            if client_cpu.load(Ordering::Relaxed) != cpu {
                client_cpu.store(cpu, Ordering::Relaxed);
            }
            server_cpu.load(Ordering::Relaxed) == cpu
        };
        let look = || {
            if self.inflight.is_done(ticket) {
                return true;
            }
            if tail.load(Ordering::Relaxed) == self.harvested() {
                return false;
            }
            self.try_harvest();
            self.inflight.is_done(ticket)
        };
        if budget.spin(look, is_futile) {
            return Waited::Done;
        }
        self.wait_asleep(ticket, budget, until, tail)
    }

    #[cold]
    fn wait_asleep(
        &self,
        ticket: Ticket,
        budget: &mut SpinBudget,
        until: Option<Instant>,
        tail: &AtomicU32,
    ) -> Waited {
        let began_ns = now_ns();
        loop {
            // The tail is read before the last look: what is published after this changes it, and then
            // the futex does not sleep.
            let seen = tail.load(Ordering::Acquire);
            if let Some(outcome) = self.look(ticket) {
                budget.slept(now_ns() - began_ns);
                return outcome;
            }
            let rest = until.map(|until| until.saturating_duration_since(Instant::now()));
            if rest == Some(Duration::ZERO) {
                return Waited::TimedOut;
            }
            let word = self.memory.client_wait();
            self.sleepers.enter(word, Wake::Thread);
            if self.look(ticket).is_none() {
                doorbell::futex_wait(tail, seen, SLEEP_MAX.min(rest.unwrap_or(SLEEP_MAX)));
            }
            self.sleepers.leave(word, Wake::Thread);
            self.look_for_end();
        }
    }

    /// Takes what is there; how the wait ended, if it did.
    pub(crate) fn look(&self, ticket: Ticket) -> Option<Waited> {
        self.harvest();
        // In this order: the last harvest of a session comes before its end is made known.
        let is_over = self.end().is_some();
        if self.inflight.is_done(ticket) {
            Some(Waited::Done)
        } else {
            is_over.then_some(Waited::Ended)
        }
    }
}
