//! `adjoin.Future`: a run that was submitted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyModule};

use crate::core::{Core, Standing};
use crate::fault::Fault;
use crate::hold::Hold;
use crate::model::Model;
use crate::options::{RunOptions, seconds};
use crate::pool::Pool;
use crate::quick;
use crate::result::Result;

/// Longest wait for another thread that waits for the same run, before a look whether a signal came.
const SLICE: Duration = Duration::from_millis(50);

/// A run that was submitted, by `Model.submit` or `Request.submit`. Dropping it cancels the run.
///
/// It can be awaited, as often as one likes.
#[pyclass(frozen, module = "adjoin")]
#[derive(Debug)]
pub(crate) struct Future {
    run: Arc<Run>,
}

/// The run behind a future.
#[derive(Debug)]
pub(crate) struct Run {
    core: Arc<Core>,
    form: Form,
    options: RunOptions,
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

impl Run {
    /// Whether the outcome was taken.
    pub(crate) fn is_settled(&self) -> bool {
        self.outcome.lock().is_some()
    }

    /// Takes the outcome if it is there; whether it was taken, now or before.
    pub(crate) fn try_settle(&self, py: Python<'_>) -> bool {
        if self.is_settled() {
            return true;
        }
        if self.core.look() == Standing::Answered
            && let Some(flight) = self.core.take_flight()
        {
            self.settle(py, flight);
        }
        self.is_settled()
    }

    fn settle(&self, py: Python<'_>, flight: crate::core::Flight) {
        let outcome = match self.core.finish(py, flight) {
            Ok(hold) => self.outcome_of(py, hold),
            Err(fault) if fault.is_for_want_of_room() => match self.again(py, fault) {
                Ok(()) => return,
                Err(fault) => Err(fault.into()),
            },
            Err(fault) => Err(fault.into()),
        };
        *self.outcome.lock() = Some(outcome);
        if let Form::Values(Some(pool)) = &self.form {
            pool.give(Arc::clone(&self.core));
        }
    }

    /// Submits a request again for whose outputs there was no room, if others give some.
    fn again(&self, py: Python<'_>, fault: Fault) -> std::result::Result<(), Fault> {
        if matches!(self.form, Form::Result) || !self.core.connection.make_room(py, false)? {
            return Err(fault);
        }
        let flight = self.core.start(py, &self.options)?;
        self.core.leave(flight);
        Ok(())
    }

    fn outcome_of(&self, py: Python<'_>, hold: Arc<Hold>) -> PyResult<Py<PyAny>> {
        match self.form {
            Form::Result => Ok(Bound::new(py, Result::new(hold))?.into_any().unbind()),
            Form::Values(_) => Ok(quick::collect(py, &hold)?.into_any().unbind()),
        }
    }

    /// Waits for the outcome and takes it; false when the time is up.
    pub(crate) fn wait(&self, py: Python<'_>, until: Option<Instant>) -> PyResult<bool> {
        while !self.is_settled() {
            let rest = until.map(|until| until.saturating_duration_since(Instant::now()));
            if let Some(mut flight) = self.core.take_flight() {
                match self.core.wait(py, &mut flight, until) {
                    Ok(true) => self.settle(py, flight),
                    other => {
                        self.core.leave(flight);
                        return other;
                    }
                }
            } else if rest == Some(Duration::ZERO) {
                return Ok(false);
            } else {
                let slice = SLICE.min(rest.unwrap_or(SLICE));
                py.detach(|| self.core.wait_for_return(slice));
                py.check_signals()?;
            }
        }
        Ok(true)
    }

    fn outcome(&self, py: Python<'_>) -> Option<PyResult<Py<PyAny>>> {
        self.outcome.lock().as_ref().map(|outcome| match outcome {
            Ok(value) => Ok(value.clone_ref(py)),
            Err(error) => Err(error.clone_ref(py)),
        })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.outcome.get_mut().is_none()
            && let Some(flight) = self.core.take_flight()
        {
            self.core.abandon(flight);
        }
    }
}

impl Future {
    fn new(core: Arc<Core>, form: Form, options: RunOptions) -> Self {
        let run = Arc::new(Run {
            core,
            form,
            options,
            outcome: Mutex::new(None),
        });
        run.core.connection.enter_run(&run);
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
        model: &Bound<'py, Model>,
        inputs: Option<&Bound<'py, PyAny>>,
        named: Option<&Bound<'py, PyDict>>,
        options: &Bound<'py, PyDict>,
        error: PyErr,
    ) -> PyResult<Bound<'py, PyAny>> {
        aio(py)?.call_method1("retry", (model, inputs, named, options, error))
    }

    /// Where the run stands, by what was harvested so far; idle once the outcome was taken.
    pub(crate) fn standing(&self) -> Standing {
        if self.run.is_settled() {
            Standing::Idle
        } else {
            self.run.core.glance()
        }
    }

    /// The request that runs.
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.run.core
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
        self.run.core.cancel();
        true
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
