//! What a caller may choose for one run.

use std::time::{Duration, Instant};

use adjoin_client::SubmitOptions;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The choices, checked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RunOptions {
    /// How long the caller waits.
    pub(crate) timeout: Option<Duration>,
    pub(crate) submit: SubmitOptions,
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
        let submit = SubmitOptions::new().priority(priority);
        let submit = match deadline.or(timeout) {
            Some(after) => submit.deadline_at(Instant::now() + after),
            None => submit,
        };
        Ok(Self { timeout, submit })
    }

    /// The moment until which the caller waits.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.timeout
            .and_then(|timeout| Instant::now().checked_add(timeout))
    }
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
