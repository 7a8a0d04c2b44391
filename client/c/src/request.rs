//! Requests: inputs in shared memory, and where a request stands.

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::{Mutex, MutexGuard, TryLockError, Weak};
use std::time::{Duration, Instant};

use adjoin_client::{
    ConnectError, DataType, FailedRequest, InferError, InputPlace, Lease, Pending, Request,
    SubmitOptions,
};

use crate::call::{Out, ask, call, free, text};
use crate::dtype::{self, AdjoinDtype, RawDtype};
use crate::error::{AdjoinError, c_text};
use crate::failure::Failure;
use crate::handle::{self, Handle};
use crate::output::Names;
use crate::status::AdjoinStatus;
use crate::watch::Sessions;

/// A request of one model: its inputs in shared memory, to be written in place and run as often as
/// one likes, and the outputs of its last run.
///
/// It is idle, in flight, or answered. Submitting takes it from idle or answered to in flight;
/// waiting from there to answered, or back to idle if it failed. One thread at a time: a call that
/// meets another one on the same request fails with ADJOIN_STATUS_WRONG_STATE.
#[derive(Debug)]
pub struct AdjoinRequest {
    _opaque: [u8; 0],
}

/// An input, to be written in place.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct AdjoinInput {
    /// Its name. It is there for as long as the request.
    pub name: *const c_char,
    /// Type of the elements.
    pub dtype: AdjoinDtype,
    /// How many dimensions.
    pub rank: usize,
    /// Dimensions, outermost first. They are there for as long as the request.
    pub shape: *const i64,
    /// The elements, row by row, aligned to 64 bytes. May be written whenever the request is not in
    /// flight, until the request is freed or the same input is asked for again.
    pub data: *mut std::ffi::c_void,
    /// Bytes of the elements.
    pub byte_size: usize,
}

/// Where a request stands.
#[derive(Debug)]
pub(crate) enum Stage {
    Idle(Request),
    InFlight(Pending),
    /// The outputs are apart from the request, so that its inputs can be written meanwhile.
    Answered(Request, Lease),
    /// In a forked child, after a call used the request up.
    Lost,
}

/// What is behind a request handle.
#[derive(Debug)]
pub struct Place {
    inputs: Vec<Input>,
    held: Mutex<Held>,
}

/// What an input is, for as long as the request exists.
#[derive(Debug)]
struct Input {
    name: CString,
    dtype: DataType,
    shape: Box<[i64]>,
    byte_size: usize,
}

/// What changes, under the lock.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) stage: Stage,
    /// From a submission to its deadline.
    pub(crate) deadline: Option<Duration>,
    pub(crate) priority: u16,
    pub(crate) watch: Option<Weak<Sessions>>,
    pub(crate) output_names: Names,
    /// For each input the place whose address the caller has, and the number of the place.
    given: Vec<Option<(u64, InputPlace)>>,
}

impl Handle for AdjoinRequest {
    type Value = Place;
    const NAME: &'static str = "request";
    const TAG: [u8; 8] = *b"request ";
}

impl AdjoinRequest {
    pub(crate) fn give(request: Request) -> *mut Self {
        let inputs: Vec<Input> = request
            .inputs()
            .map(|input| Input {
                name: c_text(input.name),
                dtype: input.dtype,
                shape: input.shape.into(),
                // It lies in memory of this process.
                byte_size: usize::try_from(input.byte_size).unwrap_or(usize::MAX),
            })
            .collect();
        let held = Held {
            stage: Stage::Idle(request),
            deadline: None,
            priority: 0,
            watch: None,
            output_names: Names::default(),
            given: inputs.iter().map(|_| None).collect(),
        };
        handle::give(Place {
            inputs,
            held: Mutex::new(held),
        })
    }
}

impl Place {
    /// The request, for this call alone.
    pub(crate) fn hold(&self) -> Result<MutexGuard<'_, Held>, Failure> {
        self.held.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Failure::state(
                "another thread is using this request; use it from one thread at a time",
            ),
            TryLockError::Poisoned(_) => Failure::new(
                AdjoinStatus::ClientInternal,
                "an earlier call on this request panicked; free the request",
            ),
        })
    }

    fn input(&self, index: usize, dtype: RawDtype) -> Result<AdjoinInput, Failure> {
        let count = self.inputs.len();
        let past_end = || Failure::argument(format!("index {index} of {count} inputs"));
        let input = self.inputs.get(index).ok_or_else(past_end)?;
        dtype::check(&input.name.to_string_lossy(), input.dtype, dtype)?;
        let address = self.hold()?.input_address(index)?;
        Ok(AdjoinInput {
            name: input.name.as_ptr(),
            dtype: input.dtype.into(),
            rank: input.shape.len(),
            shape: input.shape.as_ptr(),
            data: address.cast(),
            byte_size: input.byte_size,
        })
    }

    fn index_of(&self, name: &str) -> Result<usize, Failure> {
        let names = || self.inputs.iter().map(|input| input.name.to_bytes());
        find(names, name, "input", AdjoinStatus::InputUnknown)
    }
}

/// The index of a name, or what names there are.
pub(crate) fn find<'n, N: Iterator<Item = &'n [u8]>>(
    names: impl Fn() -> N,
    name: &str,
    what: &str,
    unknown: AdjoinStatus,
) -> Result<usize, Failure> {
    let index = names().position(|candidate| candidate == name.as_bytes());
    index.ok_or_else(|| {
        let quoted = |name| format!("{:?}", String::from_utf8_lossy(name));
        let known: Vec<String> = names().map(quoted).collect();
        let known = known.join(", ");
        Failure::new(
            unknown,
            format!("the request has no {what} {name:?}, only {known}"),
        )
    })
}

impl Held {
    /// Address of an input. It stays one until it is asked for again.
    fn input_address(&mut self, index: usize) -> Result<*mut u8, Failure> {
        let request = self.writable()?;
        let place = request.input_place_at(index)?;
        let address = place.start().as_ptr();
        let place_id = request.place_id();
        self.given[index] = Some((place_id, place));
        Ok(address)
    }

    /// The request, to be written. Its outputs stay where they are.
    fn writable(&mut self) -> Result<&mut Request, Failure> {
        match &mut self.stage {
            Stage::Idle(request) | Stage::Answered(request, _) => Ok(request),
            Stage::InFlight(_) => Err(in_flight()),
            Stage::Lost => Err(InferError::Forked.into()),
        }
    }

    /// The request, out of its stage, without outputs.
    fn take(&mut self) -> Result<Request, Failure> {
        match std::mem::replace(&mut self.stage, Stage::Lost) {
            Stage::Idle(request) => Ok(request),
            Stage::Answered(mut request, lease) => {
                request.take_back(lease);
                Ok(request)
            }
            Stage::InFlight(pending) => {
                self.stage = Stage::InFlight(pending);
                Err(in_flight())
            }
            Stage::Lost => Err(InferError::Forked.into()),
        }
    }

    /// Refuses where a caller may have written what goes nowhere: the inputs are elsewhere by now. While the request
    /// waits for its next session, what was written at the addresses of the last one goes along.
    fn check_given(&self, request: &mut Request) -> Result<(), Failure> {
        let now = request.place_id();
        for (index, given) in self.given.iter().enumerate() {
            if let Some((id, place)) = given
                && *id != now
                && !request.catch_up(index, *id, place)?
            {
                let name = request.input_at(index).map_or("", |input| input.name);
                return Err(Failure::new(
                    AdjoinStatus::InputMoved,
                    format!(
                        "the request moved to another session, and the address of input {name:?} is of the last one; ask for it again, write the input, and submit the request again"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Submits the request. `until` is the limit of the wait for a connection, should the session be over.
    pub(crate) fn submit(&mut self, until: Option<Instant>) -> Result<(), Failure> {
        let mut request = self.take()?;
        if let Err(moved) = self.check_given(&mut request) {
            self.stage = Stage::Idle(request);
            return Err(moved);
        }
        let options = SubmitOptions::new().priority(self.priority);
        let options = self
            .deadline
            .map_or(options, |after| options.deadline_in(after));
        let options = until.map_or(options, |until| options.give_up_at(until));
        match request.submit_with(&options) {
            Ok(pending) => {
                self.stage = Stage::InFlight(pending);
                Ok(())
            }
            Err(failed) => {
                let is_late = matches!(
                    failed.error,
                    InferError::Connect(ConnectError::Timeout { .. })
                );
                let mut failure = self.failed(failed);
                if is_late {
                    // Of a request, "the time was up" would say that it is in flight.
                    failure.status = AdjoinStatus::NoServer;
                }
                Err(failure)
            }
        }
    }

    /// Gives the outputs back.
    fn release(&mut self) -> Result<(), Failure> {
        self.stage = Stage::Idle(self.take()?);
        Ok(())
    }

    /// What is left after an error.
    pub(crate) fn failed(&mut self, failed: FailedRequest) -> Failure {
        self.stage = failed.request.map_or(Stage::Lost, Stage::Idle);
        failed.error.into()
    }
}

fn in_flight() -> Failure {
    Failure::state("the request is in flight; wait for it first")
}

/// Runs `body` with what is behind a request.
///
/// # Safety
/// As the header says of handles and error objects.
pub(crate) unsafe fn with_held(
    request: *const AdjoinRequest,
    error: *mut AdjoinError,
    body: impl FnOnce(&mut Held) -> Result<(), Failure>,
) -> AdjoinStatus {
    // SAFETY: a request of the caller's.
    let body = || body(&mut *unsafe { handle::shared(request) }?.hold()?);
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}

/// Frees a request, its inputs and its outputs. A request in flight is cancelled, and its memory is
/// used again only after the server's answer. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_request_free(request: *mut AdjoinRequest) {
    // SAFETY: the caller gives the request up.
    unsafe { free(request) };
}

/// How many inputs the request has; 0 of NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_request_input_count(request: *const AdjoinRequest) -> usize {
    // SAFETY: passed on.
    unsafe { ask(request, 0, |place| place.inputs.len()) }
}

/// Writes to `input` what the input of that name is, and where.
///
/// `dtype` is the type of the elements that the caller is going to write: another one than the
/// input's is ADJOIN_STATUS_DATA_TYPE_MISMATCH; ADJOIN_DTYPE_ANY asks for no check. The input holds
/// what was last written, at first what was in that memory before.
///
/// The address can be kept from run to run. It changes when the request moves to another session,
/// because the server was restarted. The submission that moves it still succeeds, as what was
/// written before goes along, also when others failed before it for want of a server; later ones
/// fail with ADJOIN_STATUS_INPUT_MOVED until every address that was given out has been asked for
/// again. What was written through an old one meanwhile is not seen. Where a server that shut down
/// took the inputs with it, the submission that moves the request may fail so too, or with
/// ADJOIN_STATUS_INPUT_LOST.
///
/// While the request is in flight the call fails with ADJOIN_STATUS_WRONG_STATE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_request_input(
    request: *mut AdjoinRequest,
    name: *const c_char,
    dtype: RawDtype,
    input: *mut AdjoinInput,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    // SAFETY: text of the caller's.
    let named = |place: &Place| place.index_of(unsafe { text(name, "name") }?);
    // SAFETY: passed on.
    unsafe { input_by(request, named, dtype, input, error) }
}

/// As adjoin_request_input, by the order in which the inputs were named to the builder, or the
/// model's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_request_input_at(
    request: *mut AdjoinRequest,
    index: usize,
    dtype: RawDtype,
    input: *mut AdjoinInput,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    // SAFETY: passed on.
    unsafe { input_by(request, |_: &Place| Ok(index), dtype, input, error) }
}

/// # Safety
/// As the header says of handles, places and error objects.
unsafe fn input_by(
    request: *mut AdjoinRequest,
    index: impl FnOnce(&Place) -> Result<usize, Failure>,
    dtype: RawDtype,
    input: *mut AdjoinInput,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let body = || {
        let nothing = AdjoinInput {
            name: ptr::null(),
            dtype: AdjoinDtype::Any,
            rank: 0,
            shape: ptr::null(),
            data: ptr::null_mut(),
            byte_size: 0,
        };
        // SAFETY: a place of the caller's.
        let out = unsafe { Out::new(input, "input", nothing) }?;
        // SAFETY: a request of the caller's.
        let place = unsafe { handle::shared(request) }?;
        out.set(place.input(index(place)?, dtype)?);
        Ok(())
    };
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}

/// Gives the outputs back now rather than when the request is next submitted, or freed. Nothing is
/// done if there are none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_request_release(
    request: *mut AdjoinRequest,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    // SAFETY: passed on.
    unsafe { with_held(request, error, Held::release) }
}
