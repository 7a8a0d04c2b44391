//! One descriptor that tells of two things: packets on a socket, and a bell that this process rings.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::doorbell::EventNotifier;

/// A descriptor that is readable while its socket is, or after the bell was rung.
#[derive(Debug)]
pub struct Bell {
    both: OwnedFd,
    event: EventNotifier,
    /// A copy, so that the end of the connection is still told when the other one is closed.
    _socket: OwnedFd,
}

impl Bell {
    /// A bell beside a socket.
    ///
    /// # Errors
    /// The system's, when no descriptors are left.
    pub fn beside(socket: impl AsFd) -> std::io::Result<Self> {
        let socket = socket.as_fd().try_clone_to_owned()?;
        let event = EventNotifier::new()?;
        let both = epoll::create(CreateFlags::CLOEXEC)?;
        let data = EventData::new_u64(0);
        epoll::add(&both, &socket, data, EventFlags::IN | EventFlags::RDHUP)?;
        epoll::add(&both, &event, data, EventFlags::IN)?;
        Ok(Self {
            both,
            event,
            _socket: socket,
        })
    }

    /// Makes the descriptor readable.
    pub fn ring(&self) {
        self.event.notify();
    }

    /// Ends the ringing.
    pub fn hush(&self) {
        self.event.clear();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.both.as_fd()
    }
}
