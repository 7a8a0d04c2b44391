//! The control thread lends a hand. A request that came by a message is parsed on the thread of the control plane; to
//! have a worker run it costs two wake-ups, which for a small model take longer than all the rest. So that thread, once
//! it has nothing left to parse and before it would sleep, leads for a moment itself: what came meanwhile is queued
//! together, batched, and run there if it is short. What is long, or due later, goes to a worker.

use std::sync::atomic::Ordering;
use std::thread;

use adjoin_shm::clock::now_ns;

use super::lead::Lead;
use super::{Command, Engine};

/// A batch that takes less is run by the helping thread: to wake a worker and be woken by it takes as long. One that
/// takes longer is better run beside it, while it parses what comes next.
const HELP_NS: u64 = super::worker::INLINE_NS;
/// So long the helping thread goes on. Then a worker takes over, so that it gets back to its callers.
const TURN_NS: u64 = 1_000_000;
/// With so many requests on their way the helping thread may not come to an end with parsing for a while.
const WAITING_MAX: usize = 32;

impl Engine {
    /// Makes the calling thread the one that helps: from now on it calls [`Engine::help`] each time before it
    /// sleeps. Only the first call counts.
    pub fn helps_from_here(&self) {
        let _ = self.helper.set(thread::current().id());
    }

    /// Runs what waits and is short, unless a worker is at it.
    pub fn help(&self) {
        if !self.attention.load(Ordering::Acquire) {
            return;
        }
        let Some(mut lead) = self.lead.try_lock() else {
            // Whoever leads may have looked for the last time before it sleeps.
            self.kick.notify();
            return;
        };
        let until_ns = self.help_with(&mut lead);
        if until_ns < u64::MAX {
            self.summon(&lead, until_ns);
        }
    }

    /// Until nothing is left that is short; when a worker must take over, which may be never.
    fn help_with(&self, lead: &mut Lead) -> u64 {
        let mut began_ns = None;
        loop {
            let now_ns = now_ns();
            if now_ns.saturating_sub(*began_ns.get_or_insert(now_ns)) > TURN_NS {
                return 0;
            }
            if self.attention.swap(false, Ordering::AcqRel) {
                self.take_commands(lead, now_ns);
            }
            match self.dispatch(lead, now_ns) {
                Ok((version, batch)) => {
                    if version.plan().is_none() && Self::expected_ns(&version, &batch) > HELP_NS {
                        lead.picked.push((version, batch));
                        return 0;
                    }
                    self.run_leading(lead, &version, batch);
                }
                // Rings that are looked at need somebody who looks.
                Err(_) if lead.active_count() > 0 => return 0,
                Err(until_ns) if !self.attention.load(Ordering::Acquire) => return until_ns,
                Err(_) => {}
            }
        }
    }

    /// Has a worker take the lead by then.
    fn summon(&self, lead: &Lead, until_ns: u64) {
        if lead.has_sleeper {
            self.shorten_sleep(lead, until_ns);
        } else {
            self.unpark_one();
        }
    }

    /// A command that [`Engine::help`] finds before long, where it comes from the helping thread.
    pub(super) fn command_soon(&self, command: Command) {
        let is_helper = self.helper.get() == Some(&thread::current().id());
        let waiting = {
            let mut commands = self.commands.lock();
            commands.push(command);
            commands.len()
        };
        self.attention.store(true, Ordering::Release);
        if !is_helper || waiting >= WAITING_MAX {
            self.kick.notify();
        }
    }
}

#[cfg(test)]
mod tests;
