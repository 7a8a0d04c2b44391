//! How long an operation waits for a connection: until its own deadline, and as long as its caller wants it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ConnectError;

/// Longest wait between two looks whether the caller still wants the connection.
const STEP: Duration = Duration::from_millis(50);

/// Asked on the thread that waits; true ends the wait.
#[derive(Clone)]
pub(crate) struct Interrupt(pub(crate) Arc<dyn Fn() -> bool + Send + Sync>);

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interrupt")
    }
}

/// The limits of one operation.
#[derive(Debug)]
pub(crate) struct Limit<'o> {
    pub(crate) until: Option<Instant>,
    pub(crate) interrupt: Option<&'o Interrupt>,
}

impl Limit<'_> {
    /// What is left of the operation's time; `None` if it has as much as it takes.
    pub(crate) fn rest(&self) -> Option<Duration> {
        self.until
            .map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// How long a wait of at most so long may go on before this is asked again.
    ///
    /// # Errors
    /// `Interrupted`.
    pub(crate) fn step(&self, at_most: Duration) -> Result<Duration, ConnectError> {
        if self.interrupt.is_some_and(|interrupt| (interrupt.0)()) {
            return Err(ConnectError::Interrupted);
        }
        let step = at_most.min(STEP);
        Ok(self.rest().map_or(step, |rest| step.min(rest)))
    }

    /// Sleeps, but not past the limits.
    ///
    /// # Errors
    /// `Interrupted`.
    pub(crate) fn sleep(&self, at_most: Duration) -> Result<(), ConnectError> {
        let end = Instant::now() + at_most;
        loop {
            let step = self.step(end.saturating_duration_since(Instant::now()))?;
            if step.is_zero() {
                return Ok(());
            }
            std::thread::sleep(step);
        }
    }
}
