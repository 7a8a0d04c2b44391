//! What drives futures on an event loop: a descriptor that the loop watches, and who waits for what.
//! `adjoin._aio` has the loop's side.

use std::os::fd::{AsFd, AsRawFd};

use adjoin_client::Pending;
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::core::Standing;
use crate::future::Future;

/// Runs of one session that are awaited on one event loop. For `adjoin._aio` alone.
#[pyclass(frozen, module = "adjoin._adjoin")]
#[derive(Debug)]
pub(crate) struct Watch {
    inner: Mutex<adjoin_client::Watch>,
    waiting: Mutex<Vec<Waiting>>,
}

/// A future, and the loop's own that is to be done when it is.
#[derive(Debug)]
struct Waiting {
    future: Py<Future>,
    waiter: Py<PyAny>,
}

/// What the loop is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Next {
    /// Sleep until the descriptor is readable.
    Sleep = 0,
    /// Come again after other work: there was something.
    Again = 1,
    /// Come again in a moment: a thread waits for a run that is awaited here as well.
    Later = 2,
    /// The session is over.
    Over = 3,
}

#[pymethods]
impl Watch {
    /// On the session of a run that is under way; None if it is not.
    #[staticmethod]
    fn of(future: &Bound<'_, Future>) -> PyResult<Option<Self>> {
        let Some(watch) = future.get().with_pending(Pending::watch) else {
            return Ok(None);
        };
        Ok(Some(Self {
            inner: Mutex::new(watch?),
            waiting: Mutex::default(),
        }))
    }

    fn fileno(&self) -> i32 {
        self.inner.lock().as_fd().as_raw_fd()
    }

    /// Has `waiter` done when the future is; false if this is no watch on its session.
    fn add(&self, future: Py<Future>, waiter: Py<PyAny>) -> bool {
        let watched = future.get().with_pending(|pending| {
            let inner = self.inner.lock();
            // One that is answered already is found by the next turn.
            inner.is_of(pending).then(|| inner.add(pending))
        });
        // One that is over, or that a thread waits for, belongs anywhere.
        if watched == Some(None) {
            return false;
        }
        self.waiting.lock().push(Waiting { future, waiter });
        true
    }

    /// Does the waiters whose runs are answered, and says what comes next.
    fn turn(&self, py: Python<'_>, is_readable: bool) -> PyResult<u8> {
        let is_over = {
            let mut inner = self.inner.lock();
            if is_readable {
                !inner.read()
            } else {
                inner.look();
                false
            }
        };
        if self.wake(py)? {
            return Ok(Next::Again as u8);
        }
        if is_over {
            return Ok(Next::Over as u8);
        }
        if self.waiting.lock().is_empty() {
            return Ok(Next::Sleep as u8);
        }
        self.inner.lock().arm();
        if self.wake(py)? {
            return Ok(Next::Again as u8);
        }
        let is_elsewhere =
            |waiting: &Waiting| waiting.future.get().standing() == Standing::Elsewhere;
        let is_any_elsewhere = self.waiting.lock().iter().any(is_elsewhere);
        Ok(if is_any_elsewhere {
            Next::Later as u8
        } else {
            Next::Sleep as u8
        })
    }

    /// How many wait.
    fn __len__(&self) -> usize {
        self.waiting.lock().len()
    }
}

impl Watch {
    /// Whether there was anything to do.
    fn wake(&self, py: Python<'_>) -> PyResult<bool> {
        let ready: Vec<Waiting> = {
            let mut waiting = self.waiting.lock();
            let is_ready = |waiting: &mut Waiting| {
                matches!(
                    waiting.future.get().standing(),
                    Standing::Answered | Standing::Idle | Standing::Closed
                )
            };
            waiting.extract_if(.., is_ready).collect()
        };
        for Waiting { waiter, .. } in &ready {
            let waiter = waiter.bind(py);
            if !waiter.call_method0("done")?.is_truthy()? {
                waiter.call_method1("set_result", (py.None(),))?;
            }
        }
        Ok(!ready.is_empty())
    }
}
