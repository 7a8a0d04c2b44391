//! The requests of a session that are with the server: one slot each, from submission until whoever
//! submitted it has taken the completion.
//!
//! There are as many slots as the completion ring has places, so a session can never have more
//! requests out than the server has room to answer. A slot is handed from thread to thread by its
//! state word alone; no lock is held while anyone waits. The number that travels as `request_id` is
//! the slot's index and a generation, so a completion that nobody waits for is found out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use adjoin_schema::layout::{CompletionEntry, ENTRY_WORDS};
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::reclaim::Orphan;

/// Phases of a slot, in the lower half of its state word; the upper half is the generation.
mod phase {
    /// Nobody uses it.
    pub(super) const FREE: u32 = 0;
    /// The server has the request.
    pub(super) const WAITING: u32 = 1;
    /// As `WAITING`, and at least one task wants to be woken.
    pub(super) const WAITING_WITH_WAKER: u32 = 2;
    /// The server has the request, and nobody here waits any more.
    pub(super) const ABANDONED: u32 = 3;
    /// The completion is in the slot.
    pub(super) const DONE: u32 = 4;
}

/// Those that want to be woken of one completion: mostly one, and a place for it without allocation. A request may be
/// watched by several event loops.
pub(crate) type Wakers = SmallVec<[Waker; 1]>;

/// A claim on a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    index: u32,
    generation: u32,
}

impl Ticket {
    /// The number that travels.
    pub(crate) fn request_id(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    fn state(self, phase: u32) -> u64 {
        u64::from(self.generation) << 32 | u64::from(phase)
    }
}

fn phase_of(state: u64) -> u32 {
    let [low, _] = halves(state);
    low
}

fn halves(word: u64) -> [u32; 2] {
    let low = word & u64::from(u32::MAX);
    // Neither half can truncate.
    [low, word >> 32].map(|half| u32::try_from(half).unwrap_or(0))
}

/// Two cache lines, so that threads that wait on neighbouring slots do not disturb each other.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Slot {
    state: AtomicU64,
    completion: [AtomicU64; ENTRY_WORDS],
    wakers: Mutex<Wakers>,
    orphan: Mutex<Option<Box<Orphan>>>,
}

impl Slot {
    fn completion(&self) -> CompletionEntry {
        let words = std::array::from_fn(|index| self.completion[index].load(Ordering::Relaxed));
        CompletionEntry::from_words(words)
    }
}

/// What the delivery of a completion asks its deliverer to do.
#[derive(Debug)]
pub(crate) enum Delivered {
    /// Nothing; whoever waits looks at the slot.
    Quietly,
    /// Wake these tasks.
    Wake(Wakers),
    /// Clean up behind a request that nobody waits for.
    Orphan(Box<Orphan>),
}

/// A completion for a request that is not out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnknownRequest(pub(crate) u64);

/// All slots of a session.
#[derive(Debug)]
pub(crate) struct InFlight {
    slots: Box<[Slot]>,
    /// One bit for each slot, set while it is free. The lowest is taken first: its cache lines are warm.
    free: Box<[AtomicU64]>,
}

impl InFlight {
    pub(crate) fn new(count: u32) -> Self {
        let slots = (0..count).map(|_| Slot::default()).collect();
        let free = (0..count.div_ceil(64))
            .map(|word| match count - word * 64 {
                rest @ 0..64 => AtomicU64::new((1 << rest) - 1),
                _ => AtomicU64::new(u64::MAX),
            })
            .collect();
        Self { slots, free }
    }

    /// How many requests may be out at once.
    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Takes a free slot; `None` if as many requests are out as there may be.
    pub(crate) fn claim(&self) -> Option<Ticket> {
        for (base, word) in (0u32..).step_by(64).zip(&self.free) {
            let mut bits = word.load(Ordering::Relaxed);
            while bits != 0 {
                let place = bits.trailing_zeros();
                // SYNC: pairs with the Release in `free`.
                bits = word.fetch_and(!(1 << place), Ordering::Acquire);
                if bits & 1 << place != 0 {
                    return Some(self.begin(base + place));
                }
            }
        }
        None
    }

    fn begin(&self, index: u32) -> Ticket {
        let slot = self.slot(index);
        let [_, generation] = halves(slot.state.load(Ordering::Relaxed));
        // Generation 0 is left out, so that an entry of zeros never names a request.
        let generation = generation.wrapping_add(1).max(1);
        let ticket = Ticket { index, generation };
        // The way to the harvesting thread leads through the server and both rings, which order this.
        slot.state
            .store(ticket.state(phase::WAITING), Ordering::Relaxed);
        ticket
    }

    /// Gives a slot back whose request was never submitted.
    pub(crate) fn unclaim(&self, ticket: Ticket) {
        self.free(ticket);
    }

    /// The same slot for another round to the server, after its completion was looked at.
    pub(crate) fn reissue(&self, ticket: Ticket) -> Ticket {
        self.begin(ticket.index)
    }

    /// Whether the completion is there.
    pub(crate) fn is_done(&self, ticket: Ticket) -> bool {
        // SYNC: pairs with the Release of the swap in `deliver`.
        let state = self.slot(ticket.index).state.load(Ordering::Acquire);
        state == ticket.state(phase::DONE)
    }

    /// The completion, while the slot stays taken.
    pub(crate) fn peek(&self, ticket: Ticket) -> CompletionEntry {
        self.slot(ticket.index).completion()
    }

    /// Ends the claim on a slot whose completion was looked at.
    pub(crate) fn free(&self, ticket: Ticket) {
        let state = ticket.state(phase::FREE);
        self.slot(ticket.index)
            .state
            .store(state, Ordering::Relaxed);
        let bit = 1 << (ticket.index % 64);
        // SYNC: pairs with the Acquire in `claim`: the next owner finds the state written above.
        self.free[ticket.index as usize / 64].fetch_or(bit, Ordering::Release);
    }

    /// Puts a completion into its slot.
    pub(crate) fn deliver(
        &self,
        completion: &CompletionEntry,
    ) -> Result<Delivered, UnknownRequest> {
        let unknown = UnknownRequest(completion.request_id);
        let [index, generation] = halves(completion.request_id);
        let slot = self.slots.get(index as usize).ok_or(unknown)?;
        let ticket = Ticket { index, generation };
        let state = slot.state.load(Ordering::Relaxed);
        let is_out = matches!(
            phase_of(state),
            phase::WAITING | phase::WAITING_WITH_WAKER | phase::ABANDONED
        );
        if !is_out || state != ticket.state(phase_of(state)) {
            return Err(unknown);
        }
        for (cell, word) in slot.completion.iter().zip(completion.to_words()) {
            cell.store(word, Ordering::Relaxed);
        }
        // SYNC: the Release pairs with the Acquire in `is_done`; the Acquire with the Release in
        // `abandon`, which puts something into the slot first.
        let before = slot.state.swap(ticket.state(phase::DONE), Ordering::AcqRel);
        Ok(match phase_of(before) {
            phase::WAITING_WITH_WAKER => Delivered::Wake(std::mem::take(&mut *slot.wakers.lock())),
            phase::ABANDONED => {
                let orphan = slot.orphan.lock().take();
                self.free(ticket);
                orphan.map_or(Delivered::Quietly, Delivered::Orphan)
            }
            _ => Delivered::Quietly,
        })
    }

    /// Leaves the memory of a request that nobody waits for in its slot until the completion comes.
    /// Gives it back if the completion is there already.
    pub(crate) fn abandon(&self, ticket: Ticket, orphan: Box<Orphan>) -> Result<(), Box<Orphan>> {
        let slot = self.slot(ticket.index);
        *slot.orphan.lock() = Some(orphan);
        slot.wakers.lock().clear();
        // SYNC: pairs with the Acquire of the swap in `deliver`.
        if self.leave_waiting(ticket, phase::ABANDONED) {
            return Ok(());
        }
        slot.orphan.lock().take().map_or(Ok(()), Err)
    }

    /// Has `waker` woken when the completion comes, beside those that were registered before; false if it is
    /// there already. `former` is a waker of the same task that is of no use any more.
    pub(crate) fn register(&self, ticket: Ticket, waker: &Waker, former: Option<&Waker>) -> bool {
        let slot = self.slot(ticket.index);
        // Held over both steps: a deliverer that sees the phase finds the waker, and a slot whose completion is
        // there gets none, which its next owner would inherit.
        let mut wakers = slot.wakers.lock();
        if !self.leave_waiting(ticket, phase::WAITING_WITH_WAKER) {
            return false;
        }
        if let Some(former) = former {
            wakers.retain(|present| !present.will_wake(former));
        }
        if !wakers.iter().any(|present| present.will_wake(waker)) {
            wakers.push(waker.clone());
        }
        true
    }

    /// From either waiting phase to another one; false if the completion came first. Nobody but the
    /// owner of the ticket moves between waiting phases, or others under the lock of the wakers while they
    /// borrow it from the owner, so one of the two exchanges meets.
    fn leave_waiting(&self, ticket: Ticket, to: u32) -> bool {
        let state = &self.slot(ticket.index).state;
        [phase::WAITING, phase::WAITING_WITH_WAKER]
            .into_iter()
            .any(|from| {
                let (from, to) = (ticket.state(from), ticket.state(to));
                state
                    .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
                    .is_ok()
            })
    }

    /// All tasks that wait, to be woken because the session is over.
    pub(crate) fn take_wakers(&self) -> Vec<Waker> {
        let wakers = self.slots.iter();
        wakers
            .flat_map(|slot| std::mem::take(&mut *slot.wakers.lock()))
            .collect()
    }

    fn slot(&self, index: u32) -> &Slot {
        // A ticket is only made for a slot that exists.
        &self.slots[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::AtomicUsize;
    use std::sync::{Arc, Barrier};

    use adjoin_schema::status::Status;

    use super::*;
    use crate::reclaim::{Extents, Preparation};

    fn orphan() -> Box<Orphan> {
        Box::new(Orphan {
            extents: Extents::default(),
            preparation: Preparation::Off,
        })
    }

    fn completion(ticket: Ticket) -> CompletionEntry {
        CompletionEntry::failure(ticket.request_id(), Status::QueueFull, [7, 8])
    }

    #[test]
    fn as_many_are_out_as_there_are_places_each_with_its_own_number() {
        for count in [8, 64, 100, 128] {
            let inflight = InFlight::new(count);
            let tickets: Vec<Ticket> = std::iter::from_fn(|| inflight.claim()).collect();
            let ids: HashSet<u64> = tickets.iter().map(|ticket| ticket.request_id()).collect();
            assert_eq!((tickets.len(), ids.len()), (count as usize, count as usize));
            assert!(!ids.contains(&0));
            inflight.unclaim(tickets[5]);
            let again = inflight.claim().unwrap();
            assert!(!ids.contains(&again.request_id()));
            assert!(inflight.claim().is_none());
        }
    }

    #[test]
    fn completion_is_taken_once_and_by_its_own_ticket() {
        let inflight = InFlight::new(8);
        let ticket = inflight.claim().unwrap();
        assert!(!inflight.is_done(ticket));
        let entry = completion(ticket);
        assert!(matches!(inflight.deliver(&entry), Ok(Delivered::Quietly)));
        assert!(inflight.is_done(ticket));
        assert_eq!(inflight.peek(ticket), entry);
        assert!(inflight.deliver(&entry).is_err(), "twice");
        let again = inflight.reissue(ticket);
        assert!(!inflight.is_done(again) && !inflight.is_done(ticket));
        assert!(inflight.deliver(&entry).is_err(), "of the last round");
        inflight.deliver(&completion(again)).unwrap();
        inflight.free(again);
        assert!(inflight.deliver(&completion(again)).is_err(), "of nobody");
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn all_who_wait_for_a_completion_are_woken_once() {
        let inflight = InFlight::new(8);
        let counts: [Arc<Count>; 4] = std::array::from_fn(|_| Arc::default());
        let [first, second, moved, late] =
            counts.each_ref().map(|count| Waker::from(count.clone()));
        let ticket = inflight.claim().unwrap();
        for waker in [&first, &second, &first] {
            assert!(inflight.register(ticket, waker, None));
        }
        // A task that is polled elsewhere now.
        assert!(inflight.register(ticket, &first, None));
        assert!(inflight.register(ticket, &moved, Some(&first)));
        let Ok(Delivered::Wake(woken)) = inflight.deliver(&completion(ticket)) else {
            panic!("nobody to wake");
        };
        woken.into_iter().for_each(Waker::wake);
        assert!(!inflight.register(ticket, &late, None));
        inflight.free(ticket);
        // The next request of the slot has inherited nothing.
        let next = inflight.claim().unwrap();
        assert_eq!(next.index, ticket.index);
        assert!(inflight.register(next, &second, None));
        let all = inflight.take_wakers();
        assert_eq!(all.len(), 1);
        let woken = counts
            .each_ref()
            .map(|count| count.0.load(Ordering::Relaxed));
        assert_eq!(woken, [0, 1, 1, 0]);
    }

    #[test]
    fn orphans_are_found_by_exactly_one_side() {
        const ROUNDS: usize = 20_000;
        let inflight = InFlight::new(8);
        let (start, end) = (Barrier::new(2), Barrier::new(2));
        let current = AtomicU64::new(0);
        let found = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    start.wait();
                    let request_id = current.load(Ordering::Relaxed);
                    let entry = CompletionEntry::failure(request_id, Status::Ok, [0; 2]);
                    if let Ok(Delivered::Orphan(_)) = inflight.deliver(&entry) {
                        found.fetch_add(1, Ordering::Relaxed);
                    }
                    end.wait();
                }
            });
            for _ in 0..ROUNDS {
                let ticket = inflight.claim().unwrap();
                current.store(ticket.request_id(), Ordering::Relaxed);
                start.wait();
                if inflight.abandon(ticket, orphan()).is_err() {
                    assert!(inflight.is_done(ticket));
                    inflight.free(ticket);
                    found.fetch_add(1, Ordering::Relaxed);
                }
                end.wait();
            }
        });
        assert_eq!(found.into_inner(), ROUNDS);
        assert_eq!(std::iter::from_fn(|| inflight.claim()).count(), 8);
    }
}
