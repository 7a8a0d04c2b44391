//! One request of an ensemble on its way through the steps.

use std::fmt;
use std::sync::Arc;

use adjoin_schema::descriptor::Rejection;
use adjoin_schema::status::Status;
use parking_lot::Mutex;

use super::outputs;
use super::plan::{EnsemblePlan, Step, TensorIndex};
use super::runs::Origin;
use super::step::{self, BYTES_MAX, Failure, sentence, too_large};
use super::tensor::{StepOutputs, StepTensor};
use crate::batch::queue::Ticket;
use crate::engine::ticket;
use crate::model::request::{Job, Outcome, Request, Sink};
use crate::model::{InstanceSlot, ModelVersion, Models};
use crate::session::response::ResponseBlock;

/// How deep ensembles may be steps of ensembles.
const DEPTH_MAX: usize = 8;

/// Where a step's outcome goes.
#[derive(Clone, Debug)]
pub struct StepSink {
    /// The run that the step is part of.
    pub run: Arc<Run>,
    /// Its place in the plan.
    step: usize,
}

/// One request of an ensemble.
pub struct Run {
    version: Arc<ModelVersion>,
    plan: Arc<EnsemblePlan>,
    ticket: Ticket,
    request: Arc<Request>,
    origin: Arc<Origin>,
    /// The run that this one is a step of.
    outer: Option<Arc<Self>>,
    started_ns: u64,
    until_ns: u64,
    state: Mutex<State>,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("version", &self.version)
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct State {
    /// Gone when the run has ended.
    open: Option<(Job, InstanceSlot)>,
    /// By place in the plan: what is there and will be read.
    tensors: Vec<Option<StepTensor>>,
    /// Steps that must run and did not begin.
    to_begin: Vec<bool>,
    /// Steps that must run and did not end.
    to_end: usize,
    /// Bytes that the steps have made.
    byte_size: u64,
    /// Time in engines so far.
    execute_ns: u64,
}

/// How a run goes on.
#[derive(Debug)]
pub enum Advance {
    /// These steps can be queued; none while others run.
    Begin(Vec<(Ticket, Job)>),
    /// It has ended.
    End(Box<Finished>),
}

/// A run that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The ensemble's version.
    pub version: Arc<ModelVersion>,
    /// The queue's view of the request.
    pub ticket: Ticket,
    /// The request, its outputs filled in if all went well.
    pub job: Job,
    /// Its place among those on their way, to be given back.
    pub place: InstanceSlot,
    /// What the place was taken until.
    pub until_ns: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// Bytes of outputs that were copied to where the client reads them.
    pub copied_bytes: u64,
}

impl Run {
    /// A request that takes its place, which it was given until `until_ns`. Nothing of it has begun.
    #[must_use]
    pub fn new(
        (version, plan): (&Arc<ModelVersion>, &Arc<EnsemblePlan>),
        (ticket, mut job): (Ticket, Job),
        (place, until_ns): (InstanceSlot, u64),
        now_ns: u64,
    ) -> Arc<Self> {
        job.response.reset_dynamic();
        let request = Arc::clone(&job.request);
        let outer = match &job.sink {
            Sink::Step(sink) => Some(Arc::clone(&sink.run)),
            Sink::Session { .. } | Sink::Reply(_) => None,
        };
        let origin = match &outer {
            Some(outer) => Arc::clone(&outer.origin),
            None => Arc::default(),
        };
        let mut tensors = vec![None; plan.tensors];
        for (index, &tensor) in plan.inputs.iter().enumerate() {
            let request = Arc::clone(&request);
            tensors[tensor] = Some(StepTensor::Input { request, index });
        }
        let wanted = plan.outputs.iter().zip(&request.outputs);
        let wanted = wanted.filter(|(_, output)| output.wanted);
        let to_begin = plan.needed(wanted.map(|(&tensor, _)| tensor));
        let state = State {
            open: Some((job, place)),
            tensors,
            to_end: to_begin.iter().filter(|&&is_needed| is_needed).count(),
            to_begin,
            byte_size: 0,
            execute_ns: 0,
        };
        Arc::new(Self {
            version: Arc::clone(version),
            plan: Arc::clone(plan),
            ticket,
            request,
            origin,
            outer,
            started_ns: now_ns,
            until_ns,
            state: Mutex::new(state),
        })
    }

    /// Who it is for, and the numbers that it is known by; `None` for a run that is a step itself.
    pub(super) fn outermost(&self) -> Option<(&Ticket, &Arc<Origin>)> {
        self.outer.is_none().then_some((&self.ticket, &self.origin))
    }

    /// Begins the steps whose inputs are there.
    pub fn begin(self: &Arc<Self>, models: &Models, now_ns: u64) -> Advance {
        let mut state = self.state.lock();
        self.go_on(&mut state, models, now_ns)
    }

    /// Goes on after a step. `request` is the step's; the outcome brings its response.
    pub fn step_ended(
        self: &Arc<Self>,
        models: &Models,
        (sink, request): (&StepSink, Arc<Request>),
        outcome: Outcome,
        now_ns: u64,
    ) -> Advance {
        let mut state = self.state.lock();
        let state = &mut *state;
        let step = &self.plan.steps[sink.step];
        match self.keep(state, step, request, outcome) {
            Ok(()) => self.go_on(state, models, now_ns),
            Err(failure) => self.end(state, failure.outcome(step)),
        }
    }

    /// Takes a step's outputs in.
    fn keep(
        &self,
        state: &mut State,
        step: &Step,
        request: Arc<Request>,
        outcome: Outcome,
    ) -> Result<(), Failure> {
        state.execute_ns = state.execute_ns.saturating_add(outcome.execute_ns);
        if outcome.status != Status::Ok {
            let rejection = Rejection::new(outcome.status, outcome.detail);
            let reason = outcome
                .reason
                .map_or_else(|| sentence(rejection, &request.version, &[]), String::from);
            return Err(Failure {
                status: outcome.status,
                detail: outcome.detail,
                reason,
            });
        }
        let response = outcome
            .response
            .ok_or_else(|| Failure::new(Status::Internal, "an outcome without outputs"))?;
        state.byte_size = state.byte_size.saturating_add(response.private_bytes());
        if state.byte_size > BYTES_MAX {
            return Err(too_large(state.byte_size));
        }
        let outputs = Arc::new(StepOutputs::new(Arc::clone(&request), response));
        let specs = &request.version.signature().metadata().outputs;
        for (port, tensor) in &step.outputs {
            let index = specs.iter().position(|spec| spec.name == *port);
            let made = index.and_then(|index| StepTensor::of(&outputs, index));
            let missing = || Failure::new(Status::OutputUnknown, format!("it gave no {port:?}"));
            state.tensors[*tensor] = Some(made.ok_or_else(missing)?);
        }
        state.to_end = state.to_end.saturating_sub(1);
        Ok(())
    }

    fn go_on(self: &Arc<Self>, state: &mut State, models: &Models, now_ns: u64) -> Advance {
        if self.origin.has_gone() {
            return self.end(state, Outcome::refused(Status::Cancelled, [0; 2]));
        }
        let mut jobs = Vec::new();
        for (at, step) in self.plan.steps.iter().enumerate() {
            let is_fed = |(_, tensor): &(String, TensorIndex)| state.tensors[*tensor].is_some();
            if !state.to_begin[at] || state.open.is_none() || !step.inputs.iter().all(is_fed) {
                continue;
            }
            match self.step_job(state, models, at, now_ns) {
                Ok(job) => jobs.push(job),
                // Steps that were begun before it end without being heard.
                Err(failure) => return self.end(state, failure.outcome(step)),
            }
            state.to_begin[at] = false;
            self.forget(state, step);
        }
        if state.to_end > 0 || state.open.is_none() {
            return Advance::Begin(jobs);
        }
        self.end(
            state,
            Outcome::refused(Status::Ok, [self.version.version(), 0]),
        )
    }

    /// Lets go of what nobody will read any more after this step.
    fn forget(&self, state: &mut State, step: &Step) {
        for &(_, tensor) in &step.inputs {
            let is_read = |(later, is_waiting): (&Step, &bool)| {
                *is_waiting && later.inputs.iter().any(|&(_, other)| other == tensor)
            };
            let mut steps = self.plan.steps.iter().zip(&state.to_begin);
            if !self.plan.outputs.contains(&tensor) && !steps.any(is_read) {
                state.tensors[tensor] = None;
            }
        }
    }

    /// A step as a job of its model.
    fn step_job(
        self: &Arc<Self>,
        state: &State,
        models: &Models,
        at: usize,
        now_ns: u64,
    ) -> Result<(Ticket, Job), Failure> {
        let step = &self.plan.steps[at];
        let claimed = models.claim(&step.model, step.version, "");
        let not_ready = |_| Failure::new(Status::ModelNotReady, "it is not ready");
        let (version, claim) = claimed.map_err(not_ready)?;
        self.check_depth(&version)?;
        let request = Arc::new(step::request(step, (version, claim), &state.tensors)?);
        let room = BYTES_MAX.saturating_sub(state.byte_size);
        let response = ResponseBlock::private(&request, room);
        let response = response.map_err(|full| too_large(full.detail[0]))?;
        let settings = request.version.settings();
        // Levels mean something where there are several.
        let has_levels =
            self.version.settings().priority_levels > 1 && settings.priority_levels > 1;
        let priority = if has_levels { self.ticket.priority } else { 0 };
        let deadline_ns = match self.ticket.deadline_ns {
            u64::MAX => 0,
            deadline_ns => deadline_ns,
        };
        let job = Job {
            request,
            request_id: self.ticket.request_id,
            sink: Sink::Step(StepSink {
                run: Arc::clone(self),
                step: at,
            }),
            response: Box::new(response),
        };
        let ticket = ticket(&job, self.ticket.flow, priority, deadline_ns, now_ns);
        Ok((ticket, job))
    }

    /// Ensembles may be steps of ensembles, but not of themselves, and not without end.
    fn check_depth(self: &Arc<Self>, step: &ModelVersion) -> Result<(), Failure> {
        if step.plan().is_none() {
            return Ok(());
        }
        let mut depth = 1;
        let mut next = Some(self);
        while let Some(run) = next {
            depth += 1;
            if run.version.name() == step.name() {
                let reason =
                    "it is an ensemble that has itself as a step, directly or through others";
                return Err(Failure::new(Status::ExecutionFailed, reason));
            }
            next = run.outer.as_ref();
        }
        if depth > DEPTH_MAX {
            let reason =
                format!("ensembles are steps of ensembles {depth} deep; the most is {DEPTH_MAX}");
            return Err(Failure::new(Status::ExecutionFailed, reason));
        }
        Ok(())
    }

    /// Ends the run, unless it has.
    fn end(&self, state: &mut State, mut outcome: Outcome) -> Advance {
        let Some((mut job, place)) = state.open.take() else {
            return Advance::Begin(Vec::new());
        };
        let mut copied_bytes = 0;
        if outcome.status == Status::Ok {
            let tensor = |&tensor: &TensorIndex| state.tensors[tensor].as_ref();
            let tensors = self.plan.outputs.iter().map(tensor);
            match outputs::fill(&self.request, &mut job.response, tensors) {
                Ok(byte_size) => copied_bytes = byte_size,
                Err(failed) => outcome = failed,
            }
        }
        state.tensors.clear();
        outcome.batch_size = self.ticket.rows;
        outcome.queue_ns = self.started_ns.saturating_sub(self.ticket.enqueued_ns);
        outcome.execute_ns = state.execute_ns;
        Advance::End(Box::new(Finished {
            version: Arc::clone(&self.version),
            ticket: self.ticket,
            job,
            place,
            until_ns: self.until_ns,
            outcome,
            copied_bytes,
        }))
    }
}
