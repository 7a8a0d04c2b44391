//! What the leader holds: the sessions' rings, which of them are active, which models have work.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use adjoin_schema::layout::wait;
use adjoin_shm::ring::Consumer;
use adjoin_shm::{SpinBudget, doorbell};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::thread::{sched_getaffinity, sched_setaffinity};

use crate::model::ModelVersion;
use crate::session::Session;

/// Number of the server's own event descriptor among the polled ones.
pub(super) const KICK: u64 = u64::MAX;

/// How often, at most, the leader moves out of its client's way.
const MOVE_INTERVAL_NS: u64 = 20_000_000;

/// Events taken from one `epoll_wait`.
const EVENTS_MAX: usize = 64;

/// The submission side of a session.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) session: Arc<Session>,
    pub(super) consumer: Consumer,
    /// Whether its ring is being looked at, so that the client need not ring.
    pub(super) is_active: bool,
}

/// The state that goes with the lead.
#[derive(Debug)]
pub(super) struct Lead {
    pub(super) intakes: std::collections::HashMap<u64, Intake>,
    /// Numbers of the active sessions.
    pub(super) active: Vec<u64>,
    /// Versions that may have waiting requests.
    pub(super) busy: Vec<Arc<ModelVersion>>,
    /// Whose turn it is among them.
    pub(super) turn: usize,
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
            intakes: std::collections::HashMap::new(),
            active: Vec::new(),
            busy: Vec::new(),
            turn: 0,
            spin: SpinBudget::new(spin_ns),
            has_sleeper: false,
            sleeper_until_ns: u64::MAX,
            polled_ns: 0,
            cpu: 0,
            moved_ns: 0,
            descriptor: Vec::new(),
        }
    }

    /// Looks at a session's ring from now on; its client need not ring.
    pub(super) fn activate(&mut self, session_id: u64) {
        let Some(intake) = self.intakes.get_mut(&session_id) else {
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
            self.active.push(session_id);
        }
    }

    /// Says in every active session on which CPU its ring is being looked at, if that changed.
    pub(super) fn publish_cpu(&mut self) {
        let cpu = doorbell::this_cpu();
        if cpu == self.cpu {
            return;
        }
        self.cpu = cpu;
        for intake in self.active.iter().filter_map(|id| self.intakes.get(id)) {
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
        let Some(intake) = self.intakes.get(only) else {
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
        self.active
            .iter()
            .filter_map(|id| self.intakes.get(id))
            .any(|intake| {
                let ring = intake.session.memory().submission_ring();
                !matches!(intake.consumer.available(&ring), Ok(0))
            })
    }

    /// Says in every active session that the server sleeps, and looks once more. False if there is
    /// something after all: then all are as active as before.
    pub(super) fn announce_sleep(&mut self) -> bool {
        let set = |lead: &Self, how: fn(&Session)| {
            for intake in lead.active.iter().filter_map(|id| lead.intakes.get(id)) {
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
        for id in std::mem::take(&mut self.active) {
            if let Some(intake) = self.intakes.get_mut(&id) {
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
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout_ns / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(timeout_ns % 1_000_000_000).unwrap_or(0),
        };
        let timeout = (timeout_ns != u64::MAX).then_some(&timeout);
        let mut events = Vec::with_capacity(EVENTS_MAX);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            timeout,
        ) {
            // An interruption is as good as no event: the caller looks again.
            Ok(_) | Err(Errno::INTR) => {}
            // A sandbox that lacks `epoll_pwait2` (Linux 5.11) must not make this a busy loop.
            Err(_) => std::thread::sleep(Duration::from_nanos(timeout_ns.min(1_000_000))),
        }
        fired.extend(
            events
                .iter()
                .map(|event| event.data.u64())
                .filter(|&number| number != KICK),
        );
    }
}
