//! `adjoin.Future`: a run that was submitted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use adjoin_client::Pending;
use parking_lot::Mutex;
use pyo3::call::PyCallArgs;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyModule;

use crate::connection::{Connection, Room};
use crate::core::{Core, Flight, Standing};
use crate::fault::{self, Fault};
use crate::hold::Hold;
use crate::options::{Patience, RunOptions, seconds};
use crate::pool::Pool;
use crate::quick;
use crate::result::Result;

/// Longest wait for another thread that waits for the same run, before a look whether a signal came.
const SLICE: Duration = Duration::from_millis(50);

/// A run that was submitted, by `Model.submit` or `Request.submit`. Dropping it cancels the run.
///
/// It can be awaited, as often as one likes.
#[pyclass(frozen, generic, module = "adjoin")]
#[derive(Debug)]
pub(crate) struct Future {
    run: Arc<Run>,
}

/// The run behind a future.
#[derive(Debug)]
pub(crate) struct Run {
    connection: Arc<Connection>,
    /// Until the outcome was taken: after that a future holds nothing else.
    core: Mutex<Option<Arc<Core>>>,
    form: Form,
    options: RunOptions,
    /// Nobody wants the outcome any more.
    is_unwanted: AtomicBool,
    /// Not with the server, until others have given room.
    is_parked: AtomicBool,
    /// An exception here is never raised itself: its traceback would have the frames that have the future.
    outcome: Mutex<Option<PyResult<Py<PyAny>>>>,
}

/// What a run gives.
#[derive(Debug)]
enum Form {
    /// A `Result`; the request is the program's.
    Result,
    /// Arrays that own their data; the request goes to the pool, if there is one.
    Values(Option<Arc<Pool>>),
}

impl Form {
    fn is_values(&self) -> bool {
        matches!(self, Self::Values(_))
    }
}

impl Run {
    /// Whether the outcome was taken.
    pub(crate) fn is_settled(&self) -> bool {
        self.outcome.lock().is_some()
    }

    /// Whether the server or a thread has the run.
    pub(crate) fn is_under_way(&self) -> bool {
        let standing = self.core().map(|core| core.glance());
        !matches!(standing, None | Some(Standing::Idle | Standing::Closed))
    }

    /// Takes the outcome if it is there; whether it was taken, now or before. Never waits.
    pub(crate) fn try_settle(&self, py: Python<'_>) -> bool {
        let Some(core) = self.core() else {
            return true;
        };
        match core.look() {
            _ if self.is_parked.load(Ordering::Relaxed) => self.start_again(py, &core),
            Standing::Answered => {
                if let Some(flight) = core.take_flight() {
                    self.settle(py, core, flight);
                }
            }
            Standing::Closed => {
                let is_closed = self.connection.check();
                let fault = is_closed.err().unwrap_or(Fault::Closed);
                self.conclude(Err(fault.into()));
            }
            Standing::Idle | Standing::UnderWay | Standing::Elsewhere => {}
        }
        self.is_settled()
    }

    /// The request that runs; none once the outcome was taken.
    fn core(&self) -> Option<Arc<Core>> {
        self.core.lock().clone()
    }

    fn settle(&self, py: Python<'_>, core: Arc<Core>, flight: Flight) {
        let outcome = match core.finish(py, flight) {
            Ok(hold) => self.outcome_of(py, hold),
            Err(fault) if fault.is_for_want_of_room() && self.form.is_values() => {
                return self.park(py, &core, fault);
            }
            Err(fault) => Err(fault.into()),
        };
        self.conclude(outcome);
        if let Form::Values(Some(pool)) = &self.form {
            pool.give(core);
        }
    }

    fn conclude(&self, outcome: PyResult<Py<PyAny>>) {
        *self.outcome.lock() = Some(outcome);
        let core = self.core.lock().take();
        drop(core);
    }

    /// There was no room for the outputs. It is tried again, now or when others have given some.
    fn park(&self, py: Python<'_>, core: &Core, fault: Fault) {
        match self.connection.make_room(py, Patience::None) {
            Ok(Room::Made) => self.start_again(py, core),
            Ok(_) if self.connection.is_any_under_way() => {
                self.is_parked.store(true, Ordering::Relaxed);
            }
            Ok(_) => self.conclude(Err(fault.into())),
            Err(error) => self.conclude(Err(error)),
        }
    }

    fn start_again(&self, py: Python<'_>, core: &Core) {
        let outcome = core.start(py, &self.options);
        let is_full = matches!(&outcome, Err(fault) if fault.is_for_want_of_room());
        self.is_parked.store(is_full, Ordering::Relaxed);
        match outcome {
            Ok(flight) => core.leave(flight),
            Err(_) if is_full => {}
            Err(fault) => self.conclude(Err(fault.into())),
        }
    }

    /// Nobody waits any more: the run is cancelled, and its request can be used again at once.
    fn abandon(&self) {
        self.is_unwanted.store(true, Ordering::Relaxed);
        let Some(core) = self.core() else {
            return;
        };
        let is_parked = self.is_parked.swap(false, Ordering::Relaxed);
        match core.take_flight() {
            Some(flight) => core.abandon(flight),
            None if is_parked => {}
            // A thread that waits for room has it, and comes here when it leaves it.
            None => return,
        }
        self.conclude(Err(Fault::Abandoned.into()));
    }

    fn outcome_of(&self, py: Python<'_>, hold: Arc<Hold>) -> PyResult<Py<PyAny>> {
        match self.form {
            Form::Result => Ok(Bound::new(py, Result::new(hold))?.into_any().unbind()),
            Form::Values(_) => Ok(quick::collect(py, &hold)?.into_any().unbind()),
        }
    }

    /// Waits for the outcome and takes it; false when the time is up.
    pub(crate) fn wait(&self, py: Python<'_>, until: Option<Instant>) -> PyResult<bool> {
        while let Some(core) = self.core() {
            let rest = until.map(|until| until.saturating_duration_since(Instant::now()));
            if self.is_parked.load(Ordering::Relaxed) {
                let patience = self.options.patience.cut(until);
                let room = self.connection.make_room(py, patience)?;
                // Making room looks after parked runs, too.
                if self.is_parked.load(Ordering::Relaxed) {
                    self.start_again(py, &core);
                }
                if room == Room::TooLate && self.is_parked.load(Ordering::Relaxed) {
                    match self.options.patience {
                        Patience::Until(at_most, end) if end <= Instant::now() => {
                            self.is_parked.store(false, Ordering::Relaxed);
                            self.conclude(Err(Fault::NoRoom(at_most).into()));
                        }
                        _ => return Ok(false),
                    }
                }
            } else if let Some(mut flight) = core.take_flight() {
                match core.wait(py, &mut flight, until) {
                    Ok(true) => self.settle(py, core, flight),
                    other => {
                        core.leave(flight);
                        if self.is_unwanted.load(Ordering::Relaxed) {
                            self.abandon();
                        }
                        return other;
                    }
                }
            } else if self.try_settle(py) {
                return Ok(true);
            } else if rest == Some(Duration::ZERO) {
                return Ok(false);
            } else {
                let slice = SLICE.min(rest.unwrap_or(SLICE));
                py.detach(|| core.wait_for_return(slice));
                py.check_signals()?;
            }
        }
        Ok(true)
    }

    fn outcome(&self, py: Python<'_>) -> Option<PyResult<Py<PyAny>>> {
        self.outcome.lock().as_ref().map(|outcome| match outcome {
            Ok(value) => Ok(value.clone_ref(py)),
            Err(error) => Err(fault::fresh(py, error)),
        })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(core) = self.core.get_mut().take()
            && let Some(flight) = core.take_flight()
        {
            core.abandon(flight);
        }
    }
}

impl Future {
    fn new(core: Arc<Core>, form: Form, options: RunOptions) -> Self {
        let run = Arc::new(Run {
            connection: Arc::clone(&core.connection),
            core: Mutex::new(Some(core)),
            form,
            options,
            is_unwanted: AtomicBool::new(false),
            is_parked: AtomicBool::new(false),
            outcome: Mutex::new(None),
        });
        run.connection.enter_run(&run);
        Self { run }
    }

    /// Of a request that is the program's.
    pub(crate) fn of_result(core: &Arc<Core>, options: RunOptions) -> Self {
        Self::new(Arc::clone(core), Form::Result, options)
    }

    /// Of arrays that own their data.
    pub(crate) fn of_values(core: Arc<Core>, pool: Option<Arc<Pool>>, options: RunOptions) -> Self {
        Self::new(core, Form::Values(pool), options)
    }

    /// A coroutine that waits for this.
    pub(crate) fn finish_async(
        self,
        py: Python<'_>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'_, PyAny>> {
        aio(py)?.call_method1("finish", (self, timeout))
    }

    /// A coroutine that submits once there is room.
    pub(crate) fn retry_async<'py>(
        py: Python<'py>,
        arguments: impl PyCallArgs<'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        aio(py)?.call_method1("retry", arguments)
    }

    /// Where the run stands, by what was harvested so far; idle once the outcome was taken.
    pub(crate) fn standing(&self) -> Standing {
        self.run.core().map_or(Standing::Idle, |core| core.glance())
    }

    /// Reads the pending request of a run that nobody waits for.
    pub(crate) fn with_pending<T>(&self, read: impl FnOnce(&Pending) -> T) -> Option<T> {
        self.run.core()?.with_pending(read)
    }
}

fn aio(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let import = || PyModule::import(py, "adjoin._aio").map(Bound::unbind);
    Ok(MODULE.get_or_try_init(py, import)?.bind(py))
}

#[pymethods]
impl Future {
    /// Waits for the outcome.
    ///
    /// Parameters
    /// ----------
    /// timeout : float, optional
    ///     Seconds to wait. When they are over the run stays under way, and can be waited for again.
    ///
    /// Returns
    /// -------
    /// dict of str to numpy.ndarray, or Result
    ///
    /// Raises
    /// ------
    /// DeadlineExceeded
    ///     The time was up, or the deadline passed.
    /// Others of `adjoin.errors`
    #[pyo3(signature = (timeout=None))]
    fn result(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let timeout = timeout.map(|value| seconds("timeout", value)).transpose()?;
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        if !self.run.wait(py, until)? {
            return Err(Fault::TooLate(timeout.unwrap_or_default()).into());
        }
        self.run
            .outcome(py)
            .unwrap_or_else(|| Err(Fault::Released.into()))
    }

    /// Waits for the outcome; the exception that it is, or None.
    #[pyo3(signature = (timeout=None))]
    fn exception(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<PyErr>> {
        let timeout = timeout.map(|value| seconds("timeout", value)).transpose()?;
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        if !self.run.wait(py, until)? {
            return Err(Fault::TooLate(timeout.unwrap_or_default()).into());
        }
        Ok(self.run.outcome(py).and_then(std::result::Result::err))
    }

    /// Whether the outcome is there.
    fn done(&self, py: Python<'_>) -> bool {
        self.run.try_settle(py)
    }

    /// Asks the server to drop the run. It may run all the same if it has begun; otherwise the outcome is
    /// `Cancelled`.
    ///
    /// Returns
    /// -------
    /// bool
    ///     False if the outcome is there already.
    fn cancel(&self, py: Python<'_>) -> bool {
        if self.run.try_settle(py) {
            return false;
        }
        if let Some(core) = self.run.core() {
            core.cancel();
        }
        true
    }

    /// Gives the run up, and with it the request. For `adjoin._aio` alone.
    fn _abandon(&self) {
        self.run.abandon();
    }

    fn __await__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        aio(py)?
            .call_method1("wait", (slf,))?
            .call_method0("__await__")
    }

    fn __repr__(&self) -> &'static str {
        if self.run.is_settled() {
            "<adjoin.Future, done>"
        } else {
            "<adjoin.Future, under way>"
        }
    }
}
