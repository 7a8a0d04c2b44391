//! Sleeping until the other side has published something, without ever missing it.
//!
//! The one that wants to sleep says so in its *wait word* (in its own region) and then looks once
//! more at the other side's index. The one that publishes writes its index and then looks at the wait
//! word. A sequentially consistent fence stands between the two steps on either side, so at least one
//! of them sees the other: a wake-up is never lost, and while the peer is awake none is sent.

use crate::sync::{AtomicU32, Ordering, fence};

/// Says in `wait_word` how this side wants to be woken. The caller must look for work once more
/// before it sleeps.
#[inline]
pub fn announce(wait_word: &AtomicU32, how: u32) {
    wait_word.store(how, Ordering::Relaxed);
    // SYNC: pairs with the fence in `wanted`.
    fence(Ordering::SeqCst);
}

/// Says that this side is awake again and needs no wake-up.
#[inline]
pub fn withdraw(wait_word: &AtomicU32) {
    wait_word.store(0, Ordering::Relaxed);
}

/// After something was published: how the peer wants to be woken; 0 if it is awake.
#[inline]
#[must_use]
pub fn wanted(wait_word: &AtomicU32) -> u32 {
    // SYNC: pairs with the fence in `announce`.
    fence(Ordering::SeqCst);
    wait_word.load(Ordering::Relaxed)
}

#[cfg(not(loom))]
pub use system::{EventNotifier, futex_wait, futex_wake_all, this_cpu};

#[cfg(not(loom))]
mod system {
    //! The system calls behind a doorbell.

    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::time::Duration;

    use rustix::event::EventfdFlags;
    use rustix::io::Errno;
    use rustix::thread::futex;
    use rustix::time::Timespec;

    use crate::sync::AtomicU32;

    /// The CPU that this thread is on, as it is published: the number plus 1.
    #[must_use]
    pub fn this_cpu() -> u32 {
        u32::try_from(rustix::thread::sched_getcpu()).map_or(0, |cpu| cpu.wrapping_add(1))
    }

    /// Sleeps until someone wakes the word, it differs from `seen`, or the time is up. May also return
    /// for no reason.
    pub fn futex_wait(word: &AtomicU32, seen: u32, at_most: Duration) {
        let timeout = Timespec {
            tv_sec: i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(at_most.subsec_nanos()),
        };
        // Whatever the outcome, the caller looks again; not PRIVATE, the waker is another process.
        let _ = futex::wait(word, futex::Flags::empty(), seen, Some(&timeout));
    }

    /// Wakes all that sleep on the word.
    pub fn futex_wake_all(word: &AtomicU32) {
        let _ = futex::wake(word, futex::Flags::empty(), i32::MAX.unsigned_abs());
    }

    /// The client's means to wake a sleeping server: an event descriptor that the server only polls,
    /// edge-triggered. The server never reads or writes it: blocking mode and counter belong to the
    /// shared description, so a hostile client could make either call hang. Within one process it wakes
    /// event loops.
    #[derive(Debug)]
    pub struct EventNotifier {
        fd: OwnedFd,
    }

    impl EventNotifier {
        /// A fresh event descriptor.
        ///
        /// # Errors
        /// The system's, as when no descriptors are left.
        pub fn new() -> Result<Self, Errno> {
            let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            Ok(Self { fd })
        }

        /// One that came over a socket.
        #[must_use]
        pub fn from_fd(fd: OwnedFd) -> Self {
            Self { fd }
        }

        /// Wakes whoever polls it.
        pub fn notify(&self) {
            // The counter is nearly full after 2^64 - 2 of these; EAGAIN then still means "readable".
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }

        /// Makes it silent again. Only for one that no peer shares.
        pub fn clear(&self) {
            let _ = rustix::io::read(&self.fd, &mut [0; 8]);
        }
    }

    impl AsFd for EventNotifier {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.fd.as_fd()
        }
    }
}
