//! Being told of completions by a descriptor, for event loops of any kind.
//!
//! As long as a [`Watch`] is armed, the server sends a packet on the attach socket with each completion,
//! which costs a system call on either side. So a loop arms it only before it would sleep, and looks by
//! itself while there is other work: under load no packet is sent at all.
//!
//! Several loops, and threads that wait, may share a session. Whoever takes a completion, or reads the packet
//! that tells of it, rings the bell of the watch that it is for.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Weak};
use std::task::{Wake as TaskWake, Waker};

use adjoin_shm::Bell;

use crate::Pending;
use crate::session::Session;
use crate::wait::Wake;

/// A descriptor that becomes readable when there is something to look at in a session. It does not keep the session
/// open; when that is over, the descriptor is readable for good.
///
/// ```text
/// loop:  look; take those pending requests that are answered; if there were some, go on with other work
///        arm; if a pending request is answered now, go back
///        sleep until the descriptor is readable; read
/// ```
pub struct Watch {
    ringer: Arc<Ringer>,
    session: Weak<Session>,
    /// Whether the server is asked for packets.
    is_announced: bool,
}

/// What the slots of watched requests have.
struct Ringer {
    bell: Bell,
    is_armed: AtomicBool,
}

impl TaskWake for Ringer {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // SYNC: pairs with the fence in `arm`: either this side sees that it is armed, or that side the answer.
        fence(Ordering::SeqCst);
        if self.is_armed.swap(false, Ordering::Relaxed) {
            self.bell.ring();
        }
    }
}

impl Watch {
    fn new(session: &Arc<Session>) -> io::Result<Self> {
        let ringer = Ringer {
            bell: Bell::beside(&session.socket)?,
            is_armed: AtomicBool::new(false),
        };
        Ok(Self {
            ringer: Arc::new(ringer),
            session: Arc::downgrade(session),
            is_announced: false,
        })
    }

    /// Watches a request of the session from now on; false if it is answered already, or another session's.
    pub fn add(&self, pending: &Pending) -> bool {
        self.is_of(pending) && pending.register(&Waker::from(Arc::clone(&self.ringer)))
    }

    /// Takes completions, so that [`Pending::is_answered`] knows of them. Disarms.
    pub fn look(&mut self) {
        if let Some(session) = self.session() {
            self.disarm(&session);
            session.harvest();
        }
    }

    /// As [`Watch::look`], after the descriptor was readable. False when the session is over, and there is nothing more
    /// to watch.
    pub fn read(&mut self) -> bool {
        let Some(session) = self.session() else {
            return false;
        };
        self.disarm(&session);
        self.ringer.bell.hush();
        session.read_socket();
        session.harvest();
        session.end().is_none()
    }

    /// Asks to be told of the next completion, and takes those that came before. The caller looks at its
    /// pending requests once more before it sleeps.
    pub fn arm(&mut self) {
        let Some(session) = self.session() else {
            return;
        };
        self.ringer.is_armed.store(true, Ordering::Relaxed);
        // SYNC: pairs with the fence in `Ringer::wake_by_ref`.
        fence(Ordering::SeqCst);
        if !self.is_announced {
            let word = session.memory.client_wait();
            session.sleepers.enter(word, Wake::Task);
            self.is_announced = true;
        }
        session.harvest();
    }

    /// Whether it is on the session of that request.
    #[must_use]
    pub fn is_of(&self, pending: &Pending) -> bool {
        std::ptr::eq(self.session.as_ptr(), Arc::as_ptr(pending.session()))
    }

    /// The session, in the process that opened it.
    fn session(&self) -> Option<Arc<Session>> {
        self.session.upgrade().filter(|session| session.is_ours())
    }

    fn disarm(&mut self, session: &Session) {
        self.ringer.is_armed.store(false, Ordering::Relaxed);
        if std::mem::take(&mut self.is_announced) {
            let word = session.memory.client_wait();
            session.sleepers.leave(word, Wake::Task);
        }
    }
}

impl Pending {
    /// A watch on the session that the request is in. It watches no request yet.
    ///
    /// # Errors
    /// The system's, when no descriptors are left.
    pub fn watch(&self) -> io::Result<Watch> {
        Watch::new(self.session())
    }

    /// Has `waker` woken when the answer comes; false if it is there.
    fn register(&self, waker: &Waker) -> bool {
        let ticket = self.exchange.ticket();
        ticket.is_some_and(|ticket| self.session().inflight.register(ticket, waker, None))
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ringer.bell.as_fd()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(session) = self.session() {
            self.disarm(&session);
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("bell", &self.ringer.bell)
            .field("is_announced", &self.is_announced)
            .finish_non_exhaustive()
    }
}
