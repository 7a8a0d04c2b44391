//! Being told of completions by a descriptor, for event loops of any kind.
//!
//! As long as a [`Watch`] is armed, the server sends a packet on the attach socket with each completion,
//! which costs a system call on either side. So a loop arms it only before it would sleep, and looks by
//! itself while there is other work: under load no packet is sent at all.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use crate::Pending;
use crate::session::Session;
use crate::wait::Wake;

/// A descriptor that becomes readable when a session has something to tell. It does not keep the session
/// open; when that is over, the descriptor is readable for good.
///
/// ```text
/// loop:  look; take the pending requests that are answered; if there were some, go on with other work
///        arm; if a pending request is answered now, go back
///        sleep until the descriptor is readable; read
/// ```
pub struct Watch {
    socket: OwnedFd,
    session: Weak<Session>,
    is_armed: bool,
}

impl Watch {
    fn new(session: &Arc<Session>) -> io::Result<Self> {
        Ok(Self {
            // Of its own, as other loops may watch the same socket.
            socket: session.socket.as_fd().try_clone_to_owned()?,
            session: Arc::downgrade(session),
            is_armed: false,
        })
    }

    /// Takes completions, so that [`Pending::is_answered`] knows of them. Disarms.
    pub fn look(&mut self) {
        if let Some(session) = self.session() {
            self.disarm(&session);
            session.harvest();
        }
    }

    /// As [`Watch::look`], after the descriptor was readable: also takes what is in the socket. False when the
    /// session is over, and there is nothing more to watch.
    pub fn read(&mut self) -> bool {
        let Some(session) = self.session() else {
            return false;
        };
        self.disarm(&session);
        session.read_socket();
        session.harvest();
        session.end().is_none()
    }

    /// Asks the server for a packet with the next completion, and takes those that came before it heard of
    /// that: the caller looks at its pending requests once more before it sleeps.
    pub fn arm(&mut self) {
        if let Some(session) = self.session() {
            if !self.is_armed {
                session
                    .sleepers
                    .enter(session.memory.client_wait(), Wake::Task);
                self.is_armed = true;
            }
            session.harvest();
        }
    }

    /// Whether it tells of that request.
    #[must_use]
    pub fn is_of(&self, pending: &Pending) -> bool {
        std::ptr::eq(self.session.as_ptr(), Arc::as_ptr(pending.session()))
    }

    /// The session, in the process that opened it.
    fn session(&self) -> Option<Arc<Session>> {
        self.session.upgrade().filter(|session| session.is_ours())
    }

    fn disarm(&mut self, session: &Session) {
        if std::mem::take(&mut self.is_armed) {
            session
                .sleepers
                .leave(session.memory.client_wait(), Wake::Task);
        }
    }
}

impl Pending {
    /// A watch on the session that the request is in.
    ///
    /// # Errors
    /// The system's, when no descriptors are left.
    pub fn watch(&self) -> io::Result<Watch> {
        Watch::new(self.session())
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
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
            .field("socket", &self.socket)
            .field("is_armed", &self.is_armed)
            .finish_non_exhaustive()
    }
}
