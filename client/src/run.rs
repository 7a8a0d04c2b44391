//! One run of a request: its submission, the wait, and what the completion means.

use std::time::Instant;

use adjoin_schema::descriptor::Rejection;
use adjoin_schema::layout::CompletionEntry;
use adjoin_schema::status::Status;

use crate::device::AnswerRegions;
use crate::exchange::{Exchange, Flight, Stage, initial};
use crate::reclaim::Preparation;
use crate::session::Standing;
use crate::submission::Form;
use crate::wait::Waited;
use crate::{InferError, SubmitOptions};

impl Exchange {
    /// Submits the request.
    // A call of its own, so that its instructions can be counted (`benches/instructions.py`).
    #[inline(never)]
    pub(crate) fn start(&mut self, options: &SubmitOptions) -> Result<(), InferError> {
        // The time that a new connection takes is the request's.
        let deadline_ns = options.deadline_ns();
        self.make_ready(options, deadline_ns)?;
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
    fn make_ready(&mut self, options: &SubmitOptions, deadline_ns: u64) -> Result<(), InferError> {
        if !self.session.is_ours() {
            return Err(InferError::Forked);
        }
        let standing = self.session.standing_before_submission();
        if standing != Standing::Serving || self.is_ashore {
            self.move_over(options.connect_until(deadline_ns))?;
        }
        if self.is_any_lost {
            let lost = self.inputs.iter().find(|input| input.is_lost);
            let name = lost.map_or("", |input| self.input_name(input)).into();
            return Err(InferError::InputLost { name });
        }
        self.release_answer();
        Ok(())
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
    // A call of its own, so that its instructions can be counted (`benches/instructions.py`).
    #[inline(never)]
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
                let error = InferError::from_explanation(self.explain(rejection));
                if status == Status::NotExecuted {
                    // The session will be closed before long, and the request is wanted again.
                    let _ = self.leave_session();
                }
                Err(error)
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
        let session = &self.session;
        let (rooms, numbers) = (&self.rooms, &self.extents.regions);
        let regions = || AnswerRegions::new(session, rooms, numbers);
        let outcome = self.answer.read(&session.memory, completion, regions);
        outcome.map_err(|what| {
            self.release_answer();
            if self.session.memory_end_is_near() {
                InferError::ServerGone { may_have_run: true }
            } else {
                InferError::protocol(what)
            }
        })
    }
}
