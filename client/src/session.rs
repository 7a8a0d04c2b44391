//! One session: its memory, its socket, what is in flight, and how it ends.
//!
//! Two locks are taken for a request: one on each ring, each for some tens of nanoseconds, never one
//! inside the other, and none while anyone waits.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use adjoin_schema::descriptor::Rejection;
use adjoin_schema::layout::{MAGIC, RegionKind, SessionLayout, server_state};
use adjoin_shm::doorbell::{EventNotifier, futex_wake_all};
use adjoin_shm::socket::AttachSocket;
use adjoin_shm::{Arena, ClientMemory, ForkGuard, OwnedRange, SpinBudget};
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::error::RegionFull;
use crate::harvest::Completions;
use crate::inbox::Inbox;
use crate::inflight::InFlight;
use crate::submission::Submissions;
use crate::wait::Sleepers;
use crate::{Explanation, InferError, TensorError};

/// How a session ended.
#[derive(Clone, Debug)]
pub(crate) enum SessionEnd {
    /// The server is gone.
    Gone,
    /// The server gave a reason.
    Refused(Rejection),
    /// The server did what the protocol does not allow.
    Violation(Box<str>),
}

impl SessionEnd {
    /// What it means for a request that was out.
    pub(crate) fn in_flight_error(&self) -> InferError {
        match self {
            Self::Gone => InferError::ServerGone { may_have_run: true },
            Self::Refused(reason) => {
                InferError::SessionEnded(Explanation::new(*reason, None, None))
            }
            Self::Violation(what) => InferError::protocol(what.clone()),
        }
    }
}

/// Whether a session takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Serving,
    /// The server finishes what it has and takes nothing new.
    Draining,
    Ended,
}

/// What the handshake settled.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) session_id: u64,
    pub(crate) server_version: String,
    pub(crate) layout: SessionLayout,
    /// What the server understands beside version 1 of the protocol.
    pub(crate) features: u64,
}

/// An open session. Its drop closes it.
pub(crate) struct Session {
    pub(crate) facts: Facts,
    pub(crate) memory: ClientMemory,
    pub(crate) socket: AttachSocket,
    pub(crate) fork: Arc<ForkGuard>,
    pub(crate) inflight: InFlight,
    pub(crate) submissions: Mutex<Submissions>,
    pub(crate) sleepers: Sleepers,
    pub(crate) inbox: Mutex<Inbox>,
    pub(crate) event: EventNotifier,
    spin: Duration,
    tensors: Arena,
    descriptors: Arena,
    pub(crate) completions: Completions,
    ended: AtomicBool,
    end: OnceLock<SessionEnd>,
    #[cfg(feature = "tokio")]
    pub(crate) drivers: Mutex<Vec<tokio::runtime::Id>>,
}

impl Session {
    pub(crate) fn new(
        facts: Facts,
        memory: ClientMemory,
        socket: AttachSocket,
        event: EventNotifier,
        fork: Arc<ForkGuard>,
        spin: Duration,
    ) -> Self {
        let payload = facts.layout.payload(RegionKind::Request);
        // Descriptors have a part of their own, so that the inputs of requests that were made one after
        // another lie side by side, and the server can run them as one batch where they are.
        let payload_bytes = payload.end - payload.start;
        let descriptor_bytes = (payload_bytes / 16)
            .clamp(4 << 10, 1 << 20)
            .min(payload_bytes / 2);
        let middle = payload.start + descriptor_bytes;
        let arena = |range| Arena::new(memory.request().clone(), range);
        Self {
            inflight: InFlight::new(facts.layout.ring_entries(RegionKind::Response)),
            submissions: Mutex::default(),
            sleepers: Sleepers::default(),
            inbox: Mutex::default(),
            event,
            spin,
            tensors: arena(middle..payload.end),
            descriptors: arena(payload.start..middle),
            completions: Completions::default(),
            ended: AtomicBool::new(false),
            end: OnceLock::new(),
            #[cfg(feature = "tokio")]
            drivers: Mutex::default(),
            facts,
            memory,
            socket,
            fork,
        }
    }

    /// Whether this process opened the session.
    pub(crate) fn is_ours(&self) -> bool {
        self.fork.is_same_process()
    }

    /// Whether the next request can go to this session; costs two loads.
    pub(crate) fn standing(&self) -> Standing {
        if self.has_ended() {
            return Standing::Ended;
        }
        match self.memory.server_state().load(Ordering::Relaxed) {
            server_state::DRAINING => Standing::Draining,
            _ => Standing::Serving,
        }
    }

    /// As [`Session::standing`]. A sleeping server has to be woken by a system call in any case; then another one
    /// tells whether it is still there, and a restart while this side was idle costs no failed request.
    pub(crate) fn standing_before_submission(&self) -> Standing {
        if self.server_sleeps() {
            self.standing_by_socket()
        } else {
            self.standing()
        }
    }

    /// As [`Session::standing`], after a look at the socket.
    pub(crate) fn standing_by_socket(&self) -> Standing {
        self.look_for_end();
        self.standing()
    }

    /// A fresh budget for the waits of one request.
    pub(crate) fn spin_budget(&self) -> SpinBudget {
        SpinBudget::new(u64::try_from(self.spin.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Room for the inputs of one request, in order.
    pub(crate) fn allocate_inputs(
        &self,
        byte_sizes: impl Iterator<Item = u64> + Clone,
    ) -> Result<SmallVec<[OwnedRange; 2]>, RegionFull> {
        let ranges = byte_sizes
            .clone()
            .map(|byte_size| self.tensors.allocate(byte_size));
        ranges.collect::<Option<_>>().ok_or_else(|| RegionFull {
            needed: byte_sizes.sum(),
            free: self.tensors.free_bytes(),
            capacity: self.tensors.capacity(),
        })
    }

    /// Room for a descriptor.
    pub(crate) fn allocate_descriptor(&self, byte_size: u64) -> Result<OwnedRange, RegionFull> {
        let range = self.descriptors.allocate(byte_size);
        range
            .or_else(|| self.tensors.allocate(byte_size))
            .ok_or_else(|| RegionFull {
                needed: byte_size,
                free: self.tensors.free_bytes(),
                capacity: self.tensors.capacity(),
            })
    }

    /// Whether the server took the memory of this session back, as it does when it closes it: pages
    /// then read as zeros, from the first one on.
    pub(crate) fn is_memory_taken_back(&self, kind: RegionKind) -> bool {
        let region = match kind {
            RegionKind::Request => self.memory.request(),
            RegionKind::Response => self.memory.response(),
        };
        region.header().magic != MAGIC
    }

    /// Whether outputs of this session can be looked at.
    pub(crate) fn check_outputs(&self) -> Result<(), TensorError> {
        if !self.is_ours() {
            return Err(TensorError::Forked);
        }
        // Zeros in place of outputs would be worse than no outputs.
        if self.is_memory_taken_back(RegionKind::Response) {
            return Err(TensorError::Lost);
        }
        Ok(())
    }

    /// Whether the session is over, for looks that may be late.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Whether what was read from the response region may be what a server leaves that closes a session.
    pub(crate) fn memory_end_is_near(&self) -> bool {
        let is_taken_back = self.is_memory_taken_back(RegionKind::Response);
        self.look_for_end();
        is_taken_back || matches!(self.end(), Some(SessionEnd::Gone))
    }

    /// Looks whether the server is still there, and draws the conclusions.
    pub(crate) fn look_for_end(&self) {
        if !self.has_ended() && self.socket.is_hung_up() {
            self.read_socket();
            // An end without an end of file in the queue, as after a reset.
            self.finish(SessionEnd::Gone);
        }
    }

    /// Ends the session because of something that the server did.
    pub(crate) fn fail(&self, what: impl Into<Box<str>>) {
        // A server that closes a session takes its memory back, and all rings are at zero then.
        if self.is_memory_taken_back(RegionKind::Response) || self.socket.is_hung_up() {
            self.read_socket();
            return self.finish(SessionEnd::Gone);
        }
        let what = what.into();
        tracing::warn!(session = self.facts.session_id, %what, "left session: the server broke the protocol");
        self.finish(SessionEnd::Violation(what));
    }

    /// Ends the session, once, and wakes all that wait in it.
    pub(crate) fn finish(&self, end: SessionEnd) {
        if self.end.set(end).is_err() {
            return;
        }
        // SYNC: pairs with the Acquire in `end`.
        self.ended.store(true, Ordering::Release);
        self.socket.shut_down();
        self.wake_all();
    }

    /// Wakes every thread and task that waits in this session.
    pub(crate) fn wake_all(&self) {
        futex_wake_all(self.memory.completion_ring().tail);
        let wakers = self.inflight.take_wakers();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How the session ended, if it did.
    pub(crate) fn end(&self) -> Option<&SessionEnd> {
        // SYNC: pairs with the Release in `finish`.
        if self.ended.load(Ordering::Acquire) {
            self.end.get()
        } else {
            None
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("facts", &self.facts)
            .field("end", &self.end.get())
            .finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A forked child closes its copy of the socket, which lives on in the parent.
        if self.is_ours() {
            self.socket.shut_down();
        }
    }
}
