//! One request, its memory, and where it stands: idle, with the server, or answered.
//!
//! [`Request`](crate::Request), [`Pending`](crate::Pending) and [`Response`](crate::Response) are the
//! same exchange seen at these three moments. Whatever moment it is dropped at, what it holds goes
//! back when nobody uses it any more.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use adjoin_schema::descriptor::{Rejection, RequestDescriptor, TensorDescriptor};
use adjoin_schema::layout::CompletionEntry;
use adjoin_schema::status::Status;
use adjoin_schema::{DataType, Shape};
use adjoin_shm::{OwnedRange, SpinBudget};
use smallvec::SmallVec;

use crate::answer::Answer;
use crate::client::Patience;
use crate::inflight::Ticket;
use crate::model::Target;
use crate::reclaim::{Extents, Orphan, Preparation};
use crate::session::{Session, Standing};
use crate::submission::Form;
use crate::wait::Waited;
use crate::{Client, Explanation, InferError, SubmitOptions, TensorError};

/// An input of a request.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// Index in the model's description, where its name is.
    pub(crate) spec: usize,
    pub(crate) dtype: DataType,
    pub(crate) shape: Shape,
    pub(crate) byte_size: u64,
    /// Its bytes went with an earlier session and were not written again.
    pub(crate) is_lost: bool,
}

/// A request that is with the server.
#[derive(Clone, Copy, Debug)]
struct Flight {
    ticket: Ticket,
    deadline_ns: u64,
    priority: u16,
    is_cancelled: bool,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Idle,
    InFlight(Flight),
    Answered(CompletionEntry),
}

/// See the module's documentation.
pub(crate) struct Exchange {
    pub(crate) client: Client,
    pub(crate) session: Arc<Session>,
    pub(crate) target: Arc<Target>,
    pub(crate) inputs: SmallVec<[Input; 2]>,
    pub(crate) extents: Extents,
    /// Names of the wanted outputs; none for all.
    pub(crate) wanted: Box<[String]>,
    pub(crate) may_prepare: bool,
    pub(crate) preparation: Preparation,
    pub(crate) answer: Answer,
    stage: Stage,
    spin: SpinBudget,
    is_any_lost: bool,
}

impl Exchange {
    pub(crate) fn new(
        client: Client,
        session: Arc<Session>,
        target: Arc<Target>,
        inputs: SmallVec<[Input; 2]>,
        wanted: Box<[String]>,
        may_prepare: bool,
    ) -> Self {
        Self {
            client,
            target,
            inputs,
            extents: Extents::default(),
            wanted,
            may_prepare,
            preparation: initial(may_prepare),
            answer: Answer::default(),
            stage: Stage::Idle,
            spin: session.spin_budget(),
            is_any_lost: false,
            session,
        }
    }

    pub(crate) fn input_name(&self, input: &Input) -> &str {
        // The index was looked up in this description.
        &self.target.info.inputs[input.spec].name
    }

    /// What the request says to the server, about its inputs in `ranges`.
    pub(crate) fn descriptor<'e>(&'e self, ranges: &[OwnedRange]) -> RequestDescriptor<'e> {
        let tensors = self
            .inputs
            .iter()
            .zip(ranges)
            .map(|(input, range)| TensorDescriptor {
                name: self.input_name(input),
                dtype: input.dtype,
                shape: input.shape.clone(),
                offset: range.offset(),
                byte_size: range.byte_size(),
            });
        RequestDescriptor {
            model: &self.target.info.model,
            version: self.target.version,
            label: &self.target.label,
            inputs: tensors.collect(),
            outputs: self.wanted.iter().map(String::as_str).collect(),
        }
    }

    fn explain(&self, rejection: Rejection) -> Explanation {
        let request = self.descriptor(&self.extents.inputs);
        Explanation::new(rejection, Some(&request), Some(&self.target.info))
    }

    /// The extent of an input, to be written.
    pub(crate) fn input_range(&mut self, index: usize) -> Result<&mut OwnedRange, TensorError> {
        if !self.session.is_ours() {
            return Err(TensorError::Forked);
        }
        let count = self.inputs.len();
        if index >= count {
            return Err(TensorError::IndexOutOfRange { index, count });
        }
        self.release_answer();
        if self.session.standing() == Standing::Ended {
            // What is written goes to the session where it will be used, if there is one by now;
            // otherwise it moves later.
            let _ = self.move_over(Patience::Once);
        }
        if self.is_any_lost {
            self.inputs[index].is_lost = false;
            self.is_any_lost = self.inputs.iter().any(|input| input.is_lost);
        }
        Ok(&mut self.extents.inputs[index])
    }

    /// Submits the request.
    pub(crate) fn start(&mut self, options: &SubmitOptions) -> Result<(), InferError> {
        self.make_ready()?;
        let deadline_ns = options.deadline_ns();
        let inflight = &self.session.inflight;
        let ticket = inflight.claim().or_else(|| {
            // Slots of dropped requests come back with their completions.
            self.session.harvest();
            inflight.claim()
        });
        let Some(ticket) = ticket else {
            let limit = inflight.capacity();
            return Err(InferError::TooManyInFlight { limit });
        };
        let flight = Flight {
            ticket,
            deadline_ns,
            priority: options.priority,
            is_cancelled: false,
        };
        self.send(flight)
    }

    fn send(&mut self, flight: Flight) -> Result<(), InferError> {
        let form = self.form();
        let Flight {
            ticket,
            deadline_ns,
            priority,
            ..
        } = flight;
        match self.session.submit(ticket, form, deadline_ns, priority) {
            Ok(()) => {
                self.stage = Stage::InFlight(flight);
                Ok(())
            }
            Err(error) => {
                self.session.inflight.unclaim(ticket);
                self.stage = Stage::Idle;
                self.drop_unanswered_preparation(true);
                Err(error)
            }
        }
    }

    /// How the next submission names the request.
    fn form(&mut self) -> Form {
        if let Preparation::Done(id) = self.preparation {
            return Form::Prepared { id };
        }
        let (offset, size) = match &self.extents.descriptor {
            // A descriptor has at most 16 KiB.
            Some(range) => (
                range.offset(),
                u32::try_from(range.byte_size()).unwrap_or(u32::MAX),
            ),
            None => (0, 0),
        };
        if self.preparation == Preparation::Wanted
            && let Some(id) = self.session.take_prepared_id()
        {
            self.preparation = Preparation::Asked(id);
            return Form::Prepare { offset, size, id };
        }
        Form::Described { offset, size }
    }

    /// What a submission needs: a session that serves, inputs that are there, and no response out.
    fn make_ready(&mut self) -> Result<(), InferError> {
        if !self.session.is_ours() {
            return Err(InferError::Forked);
        }
        // A sleeping server has to be woken by a system call in any case; then another one tells whether
        // it is still there, and a restart while this side was idle costs no failed request.
        let standing = if self.session.server_sleeps() {
            self.session.standing_by_socket()
        } else {
            self.session.standing()
        };
        if standing != Standing::Serving {
            self.move_over(Patience::Full)?;
        }
        if self.is_any_lost {
            let lost = self.inputs.iter().find(|input| input.is_lost);
            let name = lost.map_or("", |input| self.input_name(input)).into();
            return Err(InferError::InputLost { name });
        }
        self.release_answer();
        Ok(())
    }

    /// Gives the last response back. That of a prepared request stays until it is submitted again.
    pub(crate) fn release_answer(&mut self) {
        if let Stage::Answered(last) = self.stage {
            self.stage = Stage::Idle;
            if !matches!(self.preparation, Preparation::Done(_)) {
                self.session.release(&last);
            }
        }
    }

    /// Waits for the answer; `until` is the caller's limit, past which the request stays in flight.
    pub(crate) fn finish(&mut self, until: Option<Instant>) -> Result<(), InferError> {
        let began = until.map(|_| Instant::now());
        while let Stage::InFlight(flight) = self.stage {
            if !self.session.is_ours() {
                return Err(InferError::Forked);
            }
            let waited = self.session.wait(flight.ticket, &mut self.spin, until);
            if let Some(outcome) = self.conclude(flight, waited) {
                return outcome;
            }
            if waited == Waited::TimedOut {
                let waited = began.map(|began| began.elapsed()).unwrap_or_default();
                return Err(InferError::Timeout { waited });
            }
        }
        Ok(())
    }

    /// The answer, if it is there; never waits.
    pub(crate) fn try_finish(&mut self) -> Option<Result<(), InferError>> {
        let Stage::InFlight(flight) = self.stage else {
            return Some(Ok(()));
        };
        if !self.session.is_ours() {
            return Some(Err(InferError::Forked));
        }
        let waited = self.session.look(flight.ticket)?;
        self.conclude(flight, waited)
    }

    /// The outcome; `None` if the request is (again) with the server.
    fn conclude(&mut self, flight: Flight, waited: Waited) -> Option<Result<(), InferError>> {
        match waited {
            Waited::TimedOut => None,
            Waited::Done => self.settle(flight),
            Waited::Ended => {
                self.stage = Stage::Idle;
                self.preparation = initial(self.may_prepare);
                let error = match self.session.end() {
                    Some(end) => end.in_flight_error(),
                    None => InferError::ServerGone { may_have_run: true },
                };
                Some(Err(error))
            }
        }
    }

    fn settle(&mut self, flight: Flight) -> Option<Result<(), InferError>> {
        let inflight = &self.session.inflight;
        let completion = inflight.peek(flight.ticket);
        let status = Status::from_wire(completion.status).unwrap_or(Status::Internal);
        if status == Status::PreparedUnknown
            && let Preparation::Done(id) = self.preparation
        {
            // The server forgot it, as when another version of the model took over.
            self.session.give_back_prepared_id(id);
            self.preparation = initial(self.may_prepare);
            if !flight.is_cancelled {
                let ticket = inflight.reissue(flight.ticket);
                return self.send(Flight { ticket, ..flight }).err().map(Err);
            }
        }
        inflight.free(flight.ticket);
        self.stage = Stage::Idle;
        self.preparation = self.preparation.after(&completion);
        self.drop_unanswered_preparation(status != Status::Ok);
        Some(match status {
            Status::Ok => self.accept(&completion),
            Status::PreparedUnknown if flight.is_cancelled => Err(InferError::from_explanation(
                self.explain(Status::Cancelled.into()),
            )),
            status => {
                let rejection = Rejection::new(status, completion.detail);
                Err(InferError::from_explanation(self.explain(rejection)))
            }
        })
    }

    /// After a submission that asked for a preparation and did not get it.
    fn drop_unanswered_preparation(&mut self, ask_again: bool) {
        if let Preparation::Asked(id) = self.preparation {
            self.session.give_back_prepared_id(id);
            self.preparation = initial(self.may_prepare && ask_again);
        }
    }

    fn accept(&mut self, completion: &CompletionEntry) -> Result<(), InferError> {
        self.stage = Stage::Answered(*completion);
        let outcome = self.answer.read(&self.session.memory, completion);
        outcome.map_err(|what| {
            self.release_answer();
            if self.session.memory_end_is_near() {
                InferError::ServerGone { may_have_run: true }
            } else {
                InferError::protocol(what)
            }
        })
    }

    /// Asks the server to drop the request.
    pub(crate) fn cancel(&mut self) {
        if let Stage::InFlight(flight) = &mut self.stage
            && self.session.is_ours()
            && !flight.is_cancelled
        {
            flight.is_cancelled = true;
            self.session.cancel(flight.ticket);
        }
    }

    /// The completion of an answered exchange.
    pub(crate) fn completion(&self) -> Option<&CompletionEntry> {
        match &self.stage {
            Stage::Answered(completion) => Some(completion),
            _ => None,
        }
    }

    /// The claim on a slot, while the request is with the server.
    #[cfg(feature = "tokio")]
    pub(crate) fn ticket(&self) -> Option<Ticket> {
        match self.stage {
            Stage::InFlight(flight) => Some(flight.ticket),
            _ => None,
        }
    }

    /// What the server keeps for this request goes back, and it begins anew with another session.
    pub(crate) fn begin_in(&mut self, session: Arc<Session>, extents: Extents) {
        self.session.retire(self.preparation, self.completion());
        self.extents = extents;
        self.preparation = initial(self.may_prepare);
        self.answer = Answer::default();
        self.stage = Stage::Idle;
        self.spin = session.spin_budget();
        self.session = session;
        self.is_any_lost = self.inputs.iter().any(|input| input.is_lost);
    }
}

fn initial(may_prepare: bool) -> Preparation {
    if may_prepare {
        Preparation::Wanted
    } else {
        Preparation::Off
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("session", &self.session.facts.session_id)
            .field("model", &self.target.info.model)
            .field("inputs", &self.inputs)
            .field("preparation", &self.preparation)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let extents = std::mem::take(&mut self.extents);
        if !self.session.is_ours() {
            return extents.forget();
        }
        let Stage::InFlight(flight) = self.stage else {
            return self.session.retire(self.preparation, self.completion());
        };
        self.session.try_harvest();
        if !self.session.inflight.is_done(flight.ticket) {
            self.cancel();
        }
        let orphan = Box::new(Orphan {
            extents,
            preparation: self.preparation,
        });
        let inflight = &self.session.inflight;
        if let Err(orphan) = inflight.abandon(flight.ticket, orphan) {
            let completion = inflight.peek(flight.ticket);
            inflight.free(flight.ticket);
            self.session.bury(&orphan, &completion);
        }
    }
}
