//! A request that is with the server.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::exchange::Exchange;
use crate::response::Response;
use crate::session::Session;
use crate::{InferError, Request, RequestError};

/// A submitted request. Its inputs belong to the server until the answer is there.
///
/// Dropping it cancels the request. Its memory is used again only after the server's answer.
#[derive(Debug)]
#[must_use = "dropping a pending request cancels it"]
pub struct Pending {
    pub(crate) exchange: Box<Exchange>,
    /// The outcome, where a look found it before anybody waited.
    outcome: Option<Result<(), InferError>>,
}

/// An error, and the request that met it.
#[derive(Debug)]
pub struct FailedRequest {
    /// What went wrong.
    pub error: InferError,
    /// The request, to be used again. `None` while the server may still use its memory: after a timeout,
    /// and in a forked child.
    pub request: Option<Request>,
}

impl Pending {
    pub(crate) fn new(exchange: Box<Exchange>) -> Self {
        Self {
            exchange,
            outcome: None,
        }
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// See [`InferError`]; the error brings the request back.
    pub fn wait(mut self) -> Result<Response, FailedRequest> {
        let outcome = self.outcome.take();
        let outcome = outcome.unwrap_or_else(|| self.exchange.finish(None));
        self.conclude(outcome)
    }

    /// Waits for the answer, but no longer than that.
    ///
    /// # Errors
    /// `Timeout` when the time is up: the request is cancelled and does not come back. To go on waiting
    /// instead, see [`Pending::wait_for`]. Otherwise as [`Pending::wait`].
    pub fn wait_timeout(mut self, at_most: Duration) -> Result<Response, FailedRequest> {
        let outcome = match self.outcome.take() {
            Some(outcome) => outcome,
            None => self.exchange.finish(Instant::now().checked_add(at_most)),
        };
        self.conclude(outcome)
    }

    /// Waits for the answer, but no longer than that; whether it is there, so that
    /// [`Pending::wait`] returns at once.
    pub fn wait_for(&mut self, at_most: Duration) -> bool {
        if self.outcome.is_none() {
            let until = Instant::now().checked_add(at_most);
            self.outcome = match self.exchange.finish(until) {
                Err(InferError::Timeout { .. }) => None,
                outcome => Some(outcome),
            };
        }
        self.outcome.is_some()
    }

    /// Whether the answer is there, so that [`Pending::wait`] returns at once.
    pub fn is_done(&mut self) -> bool {
        if self.outcome.is_none() {
            self.outcome = self.exchange.try_finish();
        }
        self.outcome.is_some()
    }

    /// Whether there is something for [`Pending::is_done`] to find, from what was harvested so far: a load
    /// and a comparison.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        let session = &self.exchange.session;
        let is_out = |ticket| !session.inflight.is_done(ticket) && session.end().is_none();
        self.outcome.is_some() || !self.exchange.ticket().is_some_and(is_out)
    }

    /// Another request with the same bytes in fresh memory, without waiting for the answer to this one.
    ///
    /// # Errors
    /// As [`RequestBuilder::build`](crate::RequestBuilder::build).
    pub fn duplicate(&self) -> Result<Request, RequestError> {
        self.exchange.duplicate().map(Request::new)
    }

    /// Asks the server to drop the request. An answer comes all the same: `Cancelled`, or what it was
    /// if the request was running already.
    pub fn cancel(&mut self) {
        self.exchange.cancel();
    }

    /// The session that the request is in.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.exchange.session
    }

    /// The outcome, if it is there.
    #[cfg(feature = "tokio")]
    pub(crate) fn look(&mut self) -> Option<Result<(), InferError>> {
        self.is_done();
        self.outcome.take()
    }

    fn conclude(self, outcome: Result<(), InferError>) -> Result<Response, FailedRequest> {
        conclude(self.exchange, outcome)
    }
}

/// The response, or the error with the request where it can be used again.
pub(crate) fn conclude(
    exchange: Box<Exchange>,
    outcome: Result<(), InferError>,
) -> Result<Response, FailedRequest> {
    match outcome {
        Ok(()) => Ok(Response::new(exchange)),
        Err(error) => {
            let is_out = matches!(error, InferError::Timeout { .. } | InferError::Forked);
            let request = (!is_out).then(|| Request::from_exchange(exchange));
            Err(FailedRequest { error, request })
        }
    }
}

impl fmt::Display for FailedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for FailedRequest {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl From<FailedRequest> for InferError {
    fn from(failed: FailedRequest) -> Self {
        failed.error
    }
}
