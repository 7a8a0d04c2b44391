//! A descriptor for event loops, over as many sessions as its requests happen to be in.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adjoin_client::{InferError, Pending, Watch};
use adjoin_shm::doorbell::EventNotifier;
use rustix::event::epoll;

use crate::call::{Out, ask, call, free};
use crate::error::AdjoinError;
use crate::failure::Failure;
use crate::handle::{self, Handle};
use crate::request::{AdjoinRequest, Held, with_held};
use crate::status::AdjoinStatus;

/// A descriptor for poll, epoll and event loops, by which requests of any number of clients are
/// watched. Any number of threads at a time.
///
///     adjoin_request_set_watch for each request, once
///     submit
///     loop:
///         adjoin_watch_arm
///         for each request in flight: adjoin_request_is_done, and adjoin_request_wait if so
///         if there was one: submit it again or another one, and go back to the beginning
///         sleep until adjoin_watch_fd is readable
///         adjoin_watch_read
#[derive(Debug)]
pub struct AdjoinWatch {
    _opaque: [u8; 0],
}

impl Handle for AdjoinWatch {
    type Value = Arc<Sessions>;
    const NAME: &'static str = "watch";
    const TAG: [u8; 8] = *b"watch   ";
}

/// The sessions that are watched.
#[derive(Debug)]
pub struct Sessions {
    /// Readable when one of them is.
    fd: OwnedFd,
    /// Notified of requests that were answered before they could be watched.
    answered: EventNotifier,
    /// A forked child shares the descriptor, and must not take anything out of it.
    process: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    watches: Vec<Watch>,
    is_armed: bool,
}

impl Sessions {
    fn new() -> Result<Self, Failure> {
        let fd = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|errno| system(&errno))?;
        let answered = EventNotifier::new().map_err(|errno| system(&errno))?;
        let data = epoll::EventData::new_u64(0);
        epoll::add(&fd, &answered, data, epoll::EventFlags::IN).map_err(|errno| system(&errno))?;
        Ok(Self {
            fd,
            answered,
            process: std::process::id(),
            state: Mutex::default(),
        })
    }

    /// The state, in the process that made it. Nothing that may panic is done with it.
    fn state(&self) -> Result<MutexGuard<'_, State>, Failure> {
        if self.process != std::process::id() {
            return Err(InferError::Forked.into());
        }
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sees to it that the session of a request is among those that are watched.
    pub(crate) fn add(&self, pending: &Pending) -> Result<(), Failure> {
        let mut state = self.state()?;
        if let Some(watch) = state.watches.iter().find(|watch| watch.is_of(pending)) {
            self.add_to(watch, pending);
            return Ok(());
        }
        let mut watch = pending.watch().map_err(|error| system(&error))?;
        let data = epoll::EventData::new_u64(0);
        epoll::add(&self.fd, &watch, data, epoll::EventFlags::IN)
            .map_err(|errno| system(&errno))?;
        if state.is_armed {
            watch.arm();
        }
        self.add_to(&watch, pending);
        state.watches.push(watch);
        Ok(())
    }

    fn add_to(&self, watch: &Watch, pending: &Pending) {
        if !watch.add(pending) {
            // It is answered already, perhaps while another thread sleeps on the descriptor.
            self.answered.notify();
        }
    }

    fn arm(&self) -> Result<(), Failure> {
        let mut state = self.state()?;
        state.is_armed = true;
        state.watches.iter_mut().for_each(Watch::arm);
        Ok(())
    }

    fn read(&self) -> Result<(), Failure> {
        let mut state = self.state()?;
        state.is_armed = false;
        self.answered.clear();
        state.watches.retain_mut(|watch| {
            let goes_on = watch.read();
            if !goes_on {
                // Closing would not take it out while the session lives.
                let _ = epoll::delete(&self.fd, &*watch);
            }
            goes_on
        });
        Ok(())
    }
}

fn system(source: &dyn std::fmt::Display) -> Failure {
    let message = format!("watching a session failed: {source}");
    Failure::new(AdjoinStatus::System, message)
}

/// Writes a watch to `watch`, to be freed with adjoin_watch_free; NULL if the call fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_watch_new(
    watch: *mut *mut AdjoinWatch,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let body = || {
        // SAFETY: a place of the caller's.
        let out = unsafe { Out::new(watch, "watch", ptr::null_mut()) }?;
        out.set(handle::give(Arc::new(Sessions::new()?)));
        Ok(())
    };
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}

/// Frees a watch and closes its descriptor. Requests that it watches go on without it. NULL is
/// allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_watch_free(watch: *mut AdjoinWatch) {
    // SAFETY: the caller gives the watch up.
    unsafe { free(watch) };
}

/// The descriptor, for as long as the watch; -1 of NULL. It becomes readable when a request that is
/// watched may be done. Do nothing but poll it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_watch_fd(watch: *const AdjoinWatch) -> c_int {
    // SAFETY: passed on.
    unsafe { ask(watch, -1, |sessions| sessions.fd.as_raw_fd()) }
}

/// Has the descriptor become readable with the next answer. Call it before every sleep, and look at
/// the requests in flight once more after it: what came before is not told.
///
/// While it is armed, each answer costs the server a system call; so a loop that has other work
/// does that first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_watch_arm(
    watch: *const AdjoinWatch,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    // SAFETY: a watch of the caller's.
    let body = || unsafe { handle::shared(watch) }?.arm();
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}

/// Makes the descriptor silent again, after it was readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_watch_read(
    watch: *const AdjoinWatch,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    // SAFETY: a watch of the caller's.
    let body = || unsafe { handle::shared(watch) }?.read();
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}

/// Has all later submissions of a request by adjoin_request_submit watched; by none for NULL. The
/// request may be in flight already: then this one is watched too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_request_set_watch(
    request: *mut AdjoinRequest,
    watch: *const AdjoinWatch,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let set = |held: &mut Held| {
        held.watch = if watch.is_null() {
            None
        } else {
            // SAFETY: a watch of the caller's.
            Some(Arc::downgrade(unsafe { handle::shared(watch) }?))
        };
        held.add_to_watch()
    };
    // SAFETY: passed on.
    unsafe { with_held(request, error, set) }
}
