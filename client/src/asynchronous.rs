//! Awaiting a [`Pending`] on a tokio runtime.
//!
//! Tasks do not sleep on the futex: the wait word asks the server for a packet on the attach socket,
//! and one small task for each runtime (a driver) reads it, takes what the completion ring holds, and
//! wakes those tasks whose answers came. So any number of futures costs one descriptor.

use std::future::{Future, IntoFuture};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use adjoin_shm::Readiness;
use rustix::io::Errno;
use tokio::runtime::{Handle, Id};

use crate::pending::conclude;
use crate::session::Session;
use crate::wait::Wake;
use crate::{ConnectError, FailedRequest, InferError, Pending, Response};

impl IntoFuture for Pending {
    type Output = Result<Response, FailedRequest>;
    type IntoFuture = PendingFuture;

    /// A future of the answer. It has to be awaited on a tokio runtime with I/O enabled, and panics
    /// elsewhere. Dropping it cancels the request.
    fn into_future(self) -> PendingFuture {
        PendingFuture {
            announcement: None,
            waker: None,
            pending: Some(self),
        }
    }
}

/// The answer to a submitted request, once it is there. Made by awaiting a [`Pending`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct PendingFuture {
    announcement: Option<Announcement>,
    /// Of the last poll: a task is to be woken only where the future was polled last.
    waker: Option<Waker>,
    pending: Option<Pending>,
}

impl Future for PendingFuture {
    type Output = Result<Response, FailedRequest>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let pending = this
            .pending
            .as_mut()
            .expect("a future is not polled again after it gave its answer");
        let outcome = match poll_pending(pending, &mut this.announcement, &mut this.waker, context)
        {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(outcome) => outcome,
        };
        this.announcement = None;
        let pending = this.pending.take();
        let exchange = pending
            .expect("it was there at the beginning of this poll")
            .exchange;
        Poll::Ready(conclude(exchange, outcome))
    }
}

fn poll_pending(
    pending: &mut Pending,
    announcement: &mut Option<Announcement>,
    waker: &mut Option<Waker>,
    context: &Context<'_>,
) -> Poll<Result<(), InferError>> {
    loop {
        if let Some(outcome) = pending.look() {
            return Poll::Ready(outcome);
        }
        let exchange = &pending.exchange;
        let Some(ticket) = exchange.ticket() else {
            continue;
        };
        let session = &exchange.session;
        let former = waker
            .as_ref()
            .filter(|waker| !waker.will_wake(context.waker()));
        if !session.inflight.register(ticket, context.waker(), former) {
            continue;
        }
        match waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => *waker = Some(context.waker().clone()),
        }
        if let Err(error) = drive(session) {
            return Poll::Ready(Err(error));
        }
        if announcement.is_none() {
            *announcement = Some(Announcement::new(Arc::clone(session)));
        }
        // The last look: what is published after it finds the announcement, and a session that ends after
        // it finds the waker.
        match session.look(ticket) {
            None => return Poll::Pending,
            Some(_) => continue,
        }
    }
}

/// As long as it lives, the server is asked for a packet with each completion.
#[derive(Debug)]
struct Announcement {
    session: Arc<Session>,
}

impl Announcement {
    fn new(session: Arc<Session>) -> Self {
        let word = session.memory.client_wait();
        session.sleepers.enter(word, Wake::Task);
        Self { session }
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        if self.session.is_ours() {
            let word = self.session.memory.client_wait();
            self.session.sleepers.leave(word, Wake::Task);
        }
    }
}

/// Sees to it that this runtime has a driver for the session.
fn drive(session: &Arc<Session>) -> Result<(), InferError> {
    let runtime = Handle::current();
    let driver = {
        let mut drivers = session.drivers.lock();
        if drivers.contains(&runtime.id()) {
            return Ok(());
        }
        let driver = Driver::new(session, runtime.id()).map_err(|source| ConnectError::System {
            what: "watching the attach socket",
            source,
        })?;
        drivers.push(runtime.id());
        driver
    };
    // Without the lock: a runtime that shuts down drops the task here and now.
    runtime.spawn(driver.run());
    Ok(())
}

/// Reads the socket of a session on one runtime. It does not keep the session: when that is dropped,
/// the socket is shut down, and the driver sees its end.
#[derive(Debug)]
struct Driver {
    /// Of a descriptor of its own, as another runtime may watch the same socket.
    socket: Readiness,
    session: Weak<Session>,
    runtime: Id,
}

impl Driver {
    fn new(session: &Arc<Session>, runtime: Id) -> io::Result<Self> {
        Ok(Self {
            socket: Readiness::new(&session.socket)?,
            session: Arc::downgrade(session),
            runtime,
        })
    }

    async fn run(self) {
        let read = || match self.session.upgrade() {
            Some(session) => {
                session.read_socket();
                match session.end() {
                    Some(_) => Ok(()),
                    // All packets were read.
                    None => Err(Errno::AGAIN),
                }
            }
            None => Ok(()),
        };
        // Either way there is nothing left to do: the session is over, or the runtime is.
        let _ = self.socket.read_with(read).await;
    }
}

impl Drop for Driver {
    /// Also when its runtime shuts down while tasks of another one wait: they are woken, and the first of
    /// them starts a driver there.
    fn drop(&mut self) {
        if let Some(session) = self.session.upgrade() {
            session.drivers.lock().retain(|id| *id != self.runtime);
            session.wake_all();
        }
    }
}
