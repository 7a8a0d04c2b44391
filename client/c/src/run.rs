//! Running requests: submission, waiting, cancelling.

use std::sync::Weak;
use std::time::{Duration, Instant};

use adjoin_client::InferError;

use crate::call::{Out, duration};
use crate::error::AdjoinError;
use crate::failure::Failure;
use crate::request::{AdjoinRequest, Held, Stage, with_held};
use crate::status::AdjoinStatus;

/// Until when a call may take.
#[derive(Clone, Copy, Debug)]
struct Limit {
    given: Duration,
    until: Instant,
}

impl Limit {
    /// From now on; `None` for no limit.
    fn new(timeout_ns: u64) -> Option<Self> {
        let given = duration(timeout_ns)?;
        let until = Instant::now().checked_add(given)?;
        Some(Self { given, until })
    }
}

impl Held {
    /// Has a request in flight watched, if it is to be.
    pub(crate) fn add_to_watch(&self) -> Result<(), Failure> {
        match (&self.stage, self.watch.as_ref().and_then(Weak::upgrade)) {
            (Stage::InFlight(pending), Some(sessions)) => sessions.add(pending),
            _ => Ok(()),
        }
    }

    fn wait(&mut self, limit: Option<Limit>) -> Result<(), Failure> {
        let pending = match &mut self.stage {
            Stage::InFlight(pending) => pending,
            Stage::Answered(..) => return Ok(()),
            Stage::Idle(_) => return Err(not_submitted()),
            Stage::Lost => return Err(InferError::Forked.into()),
        };
        if let Some(Limit { given, until }) = limit
            && !pending.wait_for(until.saturating_duration_since(Instant::now()))
        {
            let waited = given;
            return Err(InferError::Timeout { waited }.into());
        }
        let Stage::InFlight(pending) = std::mem::replace(&mut self.stage, Stage::Lost) else {
            unreachable!("looked at above");
        };
        match pending.wait() {
            Ok(response) => {
                let (request, lease) = response.split();
                self.stage = Stage::Answered(request, lease);
                Ok(())
            }
            Err(failed) => Err(self.failed(failed)),
        }
    }

    fn is_done(&mut self) -> Result<bool, Failure> {
        match &mut self.stage {
            Stage::InFlight(pending) => Ok(pending.is_done()),
            Stage::Answered(..) => Ok(true),
            Stage::Idle(_) => Err(not_submitted()),
            Stage::Lost => Err(InferError::Forked.into()),
        }
    }
}

fn not_submitted() -> Failure {
    Failure::state("the request was not submitted, or its failure was told already")
}

/// Sets how far from each later submission its deadline is, in ns; ADJOIN_FOREVER for none, which
/// is the default. The server refuses what has not begun to run by then, with
/// ADJOIN_STATUS_DEADLINE_EXCEEDED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_request_set_deadline(
    request: *mut AdjoinRequest,
    after_ns: u64,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let set = |held: &mut Held| {
        held.deadline = duration(after_ns);
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { with_held(request, error, set) }
}

/// Sets the priority level of later submissions: 1 is the most urgent, 0 the model's default, which
/// is the default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_request_set_priority(
    request: *mut AdjoinRequest,
    level: u16,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let set = |held: &mut Held| {
        held.priority = level;
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { with_held(request, error, set) }
}

/// Submits the request and waits for its outputs, but no longer than `timeout_ns`, or without a
/// limit for ADJOIN_FOREVER. That includes the time for a connection with the next server, where the
/// session is over: ADJOIN_STATUS_NO_SERVER if there is none by then.
///
/// After ADJOIN_STATUS_TIMEOUT the request is still in flight: wait for it again, cancel it, or
/// free it. After every other error it is idle, with its inputs as they are. The outputs of the
/// last run end with this call, whatever its outcome. Signals do not end the wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_request_infer(
    request: *mut AdjoinRequest,
    timeout_ns: u64,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let infer = |held: &mut Held| {
        let limit = Limit::new(timeout_ns);
        held.submit(limit.map(|limit| limit.until))?;
        held.wait(limit)
    };
    // SAFETY: passed on.
    unsafe { with_held(request, error, infer) }
}

/// Submits the request and does not wait, but for a connection with the next server, where the session
/// is over: until the request's deadline, and no longer than
/// adjoin_options_set_reconnect_timeout says. Until it was waited for, its inputs belong to the server.
/// The outputs of the last run end with this call, whatever its outcome.
///
/// ADJOIN_STATUS_SYSTEM says that the request is in flight and could not be watched; see
/// adjoin_request_set_watch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_request_submit(
    request: *mut AdjoinRequest,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let submit = |held: &mut Held| {
        held.submit(None)?;
        held.add_to_watch()
    };
    // SAFETY: passed on.
    unsafe { with_held(request, error, submit) }
}

/// Waits for the outputs of a submitted request, as adjoin_request_infer does. Done at once if they
/// are there already.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_request_wait(
    request: *mut AdjoinRequest,
    timeout_ns: u64,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    // SAFETY: passed on.
    unsafe { with_held(request, error, |held| held.wait(Limit::new(timeout_ns))) }
}

/// Writes to `is_done` whether adjoin_request_wait would return at once. Never waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_request_is_done(
    request: *mut AdjoinRequest,
    is_done: *mut bool,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let look = |held: &mut Held| {
        // SAFETY: a place of the caller's.
        let out = unsafe { Out::new(is_done, "is_done", false) }?;
        out.set(held.is_done()?);
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { with_held(request, error, look) }
}

/// Asks the server to drop a request that is in flight. It has to be waited for all the same: the
/// answer is ADJOIN_STATUS_CANCELLED, or what it was if the request was running already. Nothing is
/// done for a request that is not in flight.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_request_cancel(
    request: *mut AdjoinRequest,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let cancel = |held: &mut Held| {
        if let Stage::InFlight(pending) = &mut held.stage {
            pending.cancel();
        }
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { with_held(request, error, cancel) }
}
