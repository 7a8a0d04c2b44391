//! Taking completions from their ring into the slots of those who wait for them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Waker;

use adjoin_schema::layout::CompletionEntry;
use adjoin_shm::ring::Consumer;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::inflight::Delivered;
use crate::reclaim::Orphan;
use crate::session::Session;

/// State of the consuming side of the completion ring.
#[derive(Debug, Default)]
pub(crate) struct Completions {
    consumer: Mutex<Consumer>,
    /// The consumer's position, for looks without the lock.
    harvested: AtomicU32,
}

impl Session {
    /// Takes everything from the completion ring, unless another thread is doing so.
    pub(crate) fn try_harvest(&self) {
        if let Some(consumer) = self.completions.consumer.try_lock() {
            self.harvest_or_fail(consumer);
        }
    }

    /// Takes everything from the completion ring. What was published before the call is in its slot
    /// afterwards, whichever thread put it there.
    pub(crate) fn harvest(&self) {
        self.harvest_or_fail(self.completions.consumer.lock());
    }

    fn harvest_or_fail(&self, consumer: MutexGuard<'_, Consumer>) {
        if let Err(what) = self.harvest_locked(consumer) {
            self.fail(what);
        }
    }

    /// Up to where the completion ring was taken, for a look without the lock.
    pub(crate) fn harvested(&self) -> u32 {
        self.completions.harvested.load(Ordering::Relaxed)
    }

    /// The last look at the ring of a server that is gone. What is impossible there is of no interest
    /// any more: a server that closes a session leaves zeros.
    pub(crate) fn harvest_last(&self) {
        let consumer = self.completions.consumer.lock();
        let _ = self.harvest_locked(consumer);
    }

    // A call of its own, so that its instructions can be counted (`benches/instructions.py`).
    #[inline(never)]
    fn harvest_locked(&self, mut consumer: MutexGuard<'_, Consumer>) -> Result<(), String> {
        let mut wakers: SmallVec<[Waker; 2]> = SmallVec::new();
        let mut orphans: SmallVec<[(Box<Orphan>, CompletionEntry); 1]> = SmallVec::new();
        let outcome = self.harvest_into(&mut consumer, |delivered, completion| match delivered {
            Delivered::Quietly => {}
            Delivered::Wake(woken) => wakers.extend(woken),
            Delivered::Orphan(orphan) => orphans.push((orphan, completion)),
        });
        drop(consumer);
        for (orphan, completion) in orphans {
            self.bury(&orphan, &completion);
        }
        wakers.into_iter().for_each(Waker::wake);
        outcome
    }

    fn harvest_into(
        &self,
        consumer: &mut Consumer,
        mut deliver: impl FnMut(Delivered, CompletionEntry),
    ) -> Result<(), String> {
        if self.has_ended() {
            return Ok(());
        }
        let ring = self.memory.completion_ring();
        let count = consumer.available(&ring).map_err(|e| e.to_string())?;
        for _ in 0..count {
            let completion = CompletionEntry::from_words(consumer.peek(&ring, 0));
            // The place is given back before the slot is: whoever submits next because of this
            // completion has told the server that there is a place for the answer.
            consumer.advance(&ring, 1);
            let delivered = self.inflight.deliver(&completion);
            self.completions
                .harvested
                .store(consumer.position(), Ordering::Relaxed);
            match delivered {
                Ok(delivered) => deliver(delivered, completion),
                Err(unknown) => {
                    return Err(format!(
                        "a completion for request {:#x}, which is not out",
                        unknown.0
                    ));
                }
            }
        }
        Ok(())
    }
}
