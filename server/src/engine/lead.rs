//! What the leader holds: the sessions' rings, which of them are active, which models have work.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use adjoin_schema::layout::wait;
use adjoin_shm::ring::Consumer;
use adjoin_shm::{SpinBudget, doorbell};
use rustc_hash::FxHashMap;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use rustix::thread::{sched_getaffinity, sched_setaffinity};

use crate::model::ModelVersion;
use crate::model::version::Batch;
use crate::session::Session;

/// Number of the server's own event descriptor among the polled ones.
pub(super) const KICK: u64 = u64::MAX;

/// How often, at most, the leader moves out of its client's way.
const MOVE_INTERVAL_NS: u64 = 20_000_000;

/// A look that does not wait.
const NO_TIME: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Events taken from one `epoll_wait`.
const EVENTS_MAX: usize = 64;

/// The submission side of a session.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) session: Arc<Session>,
    pub(super) consumer: Consumer,
    /// Whether its ring is being looked at, so that the client need not ring.
    is_active: bool,
}

/// The state that goes with the lead.
#[derive(Debug)]
pub(super) struct Lead {
    /// By place; a place is free for another session after this one.
    intakes: Vec<Option<Intake>>,
    /// Place of a session by its number.
    places: FxHashMap<u64, usize>,
    /// Places of the active sessions.
    active: Vec<usize>,
    /// Versions that may have waiting requests.
    pub(super) busy: Vec<Arc<ModelVersion>>,
    /// Whose turn it is among them.
    pub(super) turn: usize,
    /// Batches that were formed by a thread which does not run them.
    pub(super) picked: Vec<(Arc<ModelVersion>, Batch)>,
    pub(super) spin: SpinBudget,
    /// Whether a worker is in `epoll_wait`, or on its way out of it.
    pub(super) has_sleeper: bool,
    /// When that worker wakes by itself.
    pub(super) sleeper_until_ns: u64,
    /// When the event descriptors were last looked at.
    pub(super) polled_ns: u64,
    /// The CPU that was last published.
    cpu: u32,
    /// When this side last moved to another CPU.
    moved_ns: u64,
    /// Scratch for descriptors.
    pub(super) descriptor: Vec<u8>,
}

impl Lead {
    pub(super) fn new(spin_ns: u64) -> Self {
        Self {
            intakes: Vec::new(),
            places: FxHashMap::default(),
            active: Vec::new(),
            busy: Vec::new(),
            turn: 0,
            picked: Vec::new(),
            spin: SpinBudget::new(spin_ns),
            has_sleeper: false,
            sleeper_until_ns: u64::MAX,
            polled_ns: 0,
            cpu: 0,
            moved_ns: 0,
            descriptor: Vec::new(),
        }
    }

    /// Takes a session in.
    pub(super) fn insert(&mut self, session: Arc<Session>) {
        let id = session.id();
        let intake = Intake {
            session,
            consumer: Consumer::new(),
            is_active: false,
        };
        let free = self.intakes.iter().position(Option::is_none);
        let place = free.unwrap_or_else(|| {
            self.intakes.push(None);
            self.intakes.len() - 1
        });
        self.intakes[place] = Some(intake);
        self.places.insert(id, place);
    }

    /// Forgets a session.
    pub(super) fn remove(&mut self, session_id: u64) -> Option<Arc<Session>> {
        let place = self.places.remove(&session_id)?;
        self.active.retain(|&active| active != place);
        Some(self.intakes[place].take()?.session)
    }

    /// Number of active sessions.
    pub(super) fn active_count(&self) -> usize {
        self.active.len()
    }

    /// Whether there are sessions whose rings are not being looked at.
    pub(super) fn has_inactive(&self) -> bool {
        self.active.len() < self.places.len()
    }

    /// The `index`-th active session, taken out so that its entries can change the rest of the lead.
    pub(super) fn take_active(&mut self, index: usize) -> Option<Intake> {
        self.intakes[*self.active.get(index)?].take()
    }

    /// Puts back what [`Lead::take_active`] gave. One that `is_done` is not active any more.
    pub(super) fn put_back(&mut self, index: usize, mut intake: Intake, is_done: bool) {
        let place = self.active[index];
        if is_done {
            intake.is_active = false;
            self.active.swap_remove(index);
        }
        self.intakes[place] = Some(intake);
    }

    fn active_intakes(&self) -> impl Iterator<Item = &Intake> {
        self.active
            .iter()
            .filter_map(|&place| self.intakes[place].as_ref())
    }

    /// Looks at a session's ring from now on; its client need not ring.
    pub(super) fn activate(&mut self, session_id: u64) {
        let Some(&place) = self.places.get(&session_id) else {
            return;
        };
        let Some(intake) = &mut self.intakes[place] else {
            return;
        };
        if !intake.is_active {
            intake.is_active = true;
            intake
                .session
                .memory()
                .server_cpu()
                .store(self.cpu, Ordering::Relaxed);
            doorbell::withdraw(intake.session.memory().server_wait());
            self.active.push(place);
        }
    }

    /// Says in every active session on which CPU its ring is being looked at, if that changed.
    pub(super) fn publish_cpu(&mut self) {
        let cpu = doorbell::this_cpu();
        if cpu == self.cpu {
            return;
        }
        self.cpu = cpu;
        for intake in self.active_intakes() {
            intake
                .session
                .memory()
                .server_cpu()
                .store(cpu, Ordering::Relaxed);
        }
    }

    /// Moves this thread off the CPU that the only active client waits on, if there is another one. Not every
    /// kernel does that by itself: where it sees no cache that two CPUs share (many virtual machines), a woken
    /// client stays where it was, and both sides work by turns on one CPU while another one idles.
    pub(super) fn step_aside(&mut self, now_ns: u64) {
        let [only] = self.active.as_slice() else {
            return;
        };
        let Some(intake) = &self.intakes[*only] else {
            return;
        };
        // What a client says here is a hint; one that lies moves a thread of ours some times a second.
        let client_cpu = intake.session.memory().client_cpu().load(Ordering::Relaxed);
        if client_cpu != self.cpu
            || self.cpu == 0
            || now_ns.saturating_sub(self.moved_ns) < MOVE_INTERVAL_NS
        {
            return;
        }
        self.moved_ns = now_ns;
        let Ok(allowed) = sched_getaffinity(None) else {
            return;
        };
        let mut others = allowed;
        others.unset(self.cpu as usize - 1);
        if others.count() > 0 && sched_setaffinity(None, &others).is_ok() {
            // It has moved; where it goes from here is the kernel's business again.
            let _ = sched_setaffinity(None, &allowed);
            self.publish_cpu();
        }
    }

    /// Whether any active session has something for us, valid or not.
    pub(super) fn has_entries(&self) -> bool {
        self.active_intakes().any(|intake| {
            let ring = intake.session.memory().submission_ring();
            !matches!(intake.consumer.available(&ring), Ok(0))
        })
    }

    /// Says in every active session that the server sleeps, and looks once more. False if there is
    /// something after all: then all are as active as before.
    pub(super) fn announce_sleep(&mut self) -> bool {
        let set = |lead: &Self, how: fn(&Session)| {
            for intake in lead.active_intakes() {
                how(&intake.session);
            }
        };
        set(self, |session| {
            doorbell::announce(session.memory().server_wait(), wait::ASLEEP)
        });
        if self.has_entries() {
            set(self, |session| {
                doorbell::withdraw(session.memory().server_wait())
            });
            return false;
        }
        for place in self.active.drain(..) {
            if let Some(intake) = &mut self.intakes[place] {
                intake.is_active = false;
            }
        }
        true
    }

    /// Notes that a version has waiting requests.
    pub(super) fn note_busy(&mut self, version: &Arc<ModelVersion>) {
        if !self.busy.iter().any(|busy| Arc::ptr_eq(busy, version)) {
            self.busy.push(Arc::clone(version));
        }
    }
}

/// The event descriptors of all sessions. They are polled edge-triggered and never read: a client owns
/// their blocking mode and their counter.
#[derive(Debug)]
pub(super) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub(super) fn new() -> Result<Self, Errno> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        })
    }

    pub(super) fn add(&self, fd: impl AsFd, number: u64) -> Result<(), Errno> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(number), flags)
    }

    pub(super) fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// The numbers of what fired within `timeout_ns` (`u64::MAX`: however long it takes).
    pub(super) fn wait(&self, timeout_ns: u64, fired: &mut Vec<u64>) {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        match self.wait_for(timeout_ns, &mut events) {
            // An interruption is as good as no event: the caller looks again.
            Ok(()) | Err(Errno::INTR) => {}
            // Nothing that is known to happen, but it must not make this a busy loop.
            Err(_) => std::thread::sleep(Duration::from_nanos(timeout_ns.min(1_000_000))),
        }
        fired.extend(
            events
                .iter()
                .map(|event| event.data.u64())
                .filter(|&number| number != KICK),
        );
    }

    fn wait_for(&self, timeout_ns: u64, events: &mut Vec<epoll::Event>) -> Result<(), Errno> {
        let mut timeout = Some(&NO_TIME);
        if timeout_ns == u64::MAX {
            timeout = None;
        } else if timeout_ns > 0 {
            // `epoll_wait` counts milliseconds, and `epoll_pwait2` is newer than what some sandboxes let through.
            let until = Timespec {
                tv_sec: i64::try_from(timeout_ns / 1_000_000_000).unwrap_or(i64::MAX),
                tv_nsec: i64::try_from(timeout_ns % 1_000_000_000).unwrap_or(0),
            };
            let mut epoll = [PollFd::new(&self.epoll, PollFlags::IN)];
            poll(&mut epoll, Some(&until))?;
        }
        epoll::wait(&self.epoll, spare_capacity(events), timeout).map(|_| ())
    }
}
