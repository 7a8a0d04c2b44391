//! What a caller may choose for one run.

use std::time::{Duration, Instant};

use adjoin_client::SubmitOptions;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

/// The choices, checked. The times count from the call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RunOptions {
    /// How long the caller waits.
    pub(crate) timeout: Option<Duration>,
    /// The moment until which the caller waits for the answer.
    pub(crate) until: Option<Instant>,
    /// How long the caller waits for room or for a connection, and until when: the server takes nothing after its
    /// deadline, and with no server nobody waits longer than for an answer.
    pub(crate) patience: Patience,
    pub(crate) submit: SubmitOptions,
}

/// How long a wait for room may last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Patience {
    /// There is no wait.
    None,
    /// That long from the call, which is until that moment.
    Until(Duration, Instant),
    #[default]
    Endless,
}

impl Patience {
    fn new(at_most: Option<Duration>, called: Instant) -> Self {
        let until = at_most.and_then(|at_most| Some((at_most, called.checked_add(at_most)?)));
        until.map_or(Self::Endless, |(at_most, until)| {
            Self::Until(at_most, until)
        })
    }

    /// The moment at which it ends, if it does.
    pub(crate) fn end(&self) -> Option<Instant> {
        match self {
            Self::Until(_, until) => Some(*until),
            Self::None | Self::Endless => None,
        }
    }

    /// Not beyond that moment.
    pub(crate) fn cut(self, until: Option<Instant>) -> Self {
        match until {
            Some(until) if self.end().is_none_or(|end| end > until) => {
                Self::Until(until.saturating_duration_since(Instant::now()), until)
            }
            _ => self,
        }
    }
}

impl RunOptions {
    /// The server may drop what nobody waits for any more, so a timeout is also the deadline, unless another
    /// one was given.
    pub(crate) fn new(
        timeout: Option<f64>,
        deadline: Option<f64>,
        priority: u16,
    ) -> PyResult<Self> {
        let timeout = timeout.map(|value| seconds("timeout", value)).transpose()?;
        let deadline = deadline
            .map(|value| seconds("deadline", value))
            .transpose()?;
        let called = Instant::now();
        let submit = SubmitOptions::new().priority(priority);
        let submit = match deadline.or(timeout) {
            Some(after) => submit.deadline_at(called + after),
            None => submit,
        };
        let soonest = timeout.into_iter().chain(deadline).min();
        let patience = Patience::new(soonest, called);
        let submit = match patience.end() {
            Some(until) => submit.give_up_at(until),
            None => submit,
        };
        Ok(Self {
            timeout,
            until: timeout.and_then(|timeout| called.checked_add(timeout)),
            patience,
            submit,
        })
    }
}

/// A level in a model's queue.
pub(crate) fn priority(value: &Bound<'_, PyAny>) -> PyResult<u16> {
    let level: PyResult<u16> = value.extract();
    match level {
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => {
            let message = format!("priority is {value}; it is a level from 0 to {}", u16::MAX);
            Err(PyValueError::new_err(message))
        }
        other => other,
    }
}

/// Names of outputs. A lone text is a sequence of texts to Python, and never meant as one.
pub(crate) fn names(value: &Bound<'_, PyAny>) -> PyResult<Option<Vec<String>>> {
    if value.is_instance_of::<PyString>() {
        let value = value.repr()?;
        let message = format!("outputs is {value}; it is a sequence of names, as in [{value}]");
        return Err(PyTypeError::new_err(message));
    }
    value.extract()
}

/// A duration in seconds; one that is too long to count is the longest that can be counted.
pub(crate) fn seconds(what: &str, value: f64) -> PyResult<Duration> {
    if value.is_nan() || value < 0.0 {
        let message = format!("{what} is {value}; it is a number of seconds, 0 or more");
        return Err(PyValueError::new_err(message));
    }
    const LONGEST: Duration = Duration::from_secs(1 << 32);
    Ok(Duration::try_from_secs_f64(value).map_or(LONGEST, |duration| duration.min(LONGEST)))
}
