//! The way of ensembles' requests through the data plane: from their place into the queues of their steps' models, and
//! on from there whenever a step has ended.
//!
//! The worker that ends a step goes on with its run. With the lead in hand it queues the next steps itself; without it,
//! it sends them to the leader, as requests that came by another way than a ring.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use adjoin_schema::status::Status;
use adjoin_shm::clock::now_ns;

use super::lead::Lead;
use super::worker::Told;
use super::{Command, Engine};
use crate::batch::queue::Ticket;
use crate::ensemble::{Advance, EnsemblePlan, Finished, Run, StepSink};
use crate::metrics::{BatchTimes, CopyPath, RequestCount};
use crate::model::ModelVersion;
use crate::model::request::{Job, Outcome, Request, Sink};
use crate::model::version::Batch;

/// A step that has ended: whose it is, what was asked, what became of it.
pub(super) type EndedStep = (StepSink, Arc<Request>, Outcome);

impl Engine {
    /// Takes a request of an ensemble on its way.
    pub(super) fn begin_run(
        &self,
        lead: &mut Lead,
        version: &Arc<ModelVersion>,
        plan: &Arc<EnsemblePlan>,
        batch: Batch,
    ) {
        // A batch of an ensemble is one request, which takes the place that comes with it.
        let mut places = std::iter::once((batch.instance, batch.until_ns));
        for (ticket, job) in batch.jobs {
            let Some(place) = places.next() else {
                self.refuse_job(&ticket, job, Status::Internal, [0; 2]);
                continue;
            };
            let now_ns = now_ns();
            let run = Run::new((version, plan), (ticket, job), place, now_ns);
            self.runs.insert(&run);
            let advance = run.begin(&self.models, now_ns);
            self.advance(Some(&mut *lead), vec![advance], Vec::new());
        }
    }

    /// Goes on with the runs whose steps have ended.
    pub(super) fn end_steps(&self, lead: Option<&mut Lead>, ended: Vec<EndedStep>) {
        if !ended.is_empty() {
            self.advance(lead, Vec::new(), ended);
        }
    }

    /// Ends steps that were taken out of their queues with a session that is over.
    pub(super) fn drop_steps(&self, lead: &mut Lead, removed: Vec<(Ticket, Job)>) {
        let step = |(_, job): (Ticket, Job)| match job.sink {
            Sink::Step(sink) => {
                let outcome = Outcome::refused(Status::Cancelled, [0; 2]);
                Some((sink, job.request, outcome))
            }
            Sink::Session { .. } | Sink::Reply(_) => None,
        };
        let ended = removed.into_iter().filter_map(step).collect();
        self.end_steps(Some(lead), ended);
    }

    fn advance(
        &self,
        mut lead: Option<&mut Lead>,
        mut advances: Vec<Advance>,
        mut ended: Vec<EndedStep>,
    ) {
        let mut told = Told::default();
        // One end may be the end of a step of another run, and a step that is not let in ends at once.
        loop {
            if let Some((sink, request, outcome)) = ended.pop() {
                let run = Arc::clone(&sink.run);
                advances.push(run.step_ended(&self.models, (&sink, request), outcome, now_ns()));
            }
            match advances.pop() {
                Some(Advance::Begin(jobs)) => {
                    for (ticket, job) in jobs {
                        ended.extend(self.queue_step(lead.as_deref_mut(), ticket, job));
                    }
                }
                Some(Advance::End(finished)) => {
                    self.end_run(*finished, lead.is_some(), &mut told);
                    ended.append(&mut told.steps);
                }
                None if ended.is_empty() => break,
                None => {}
            }
        }
        self.wake(lead, told);
    }

    /// Queues a step, or gives it back as one that has ended.
    fn queue_step(&self, lead: Option<&mut Lead>, ticket: Ticket, job: Job) -> Option<EndedStep> {
        let Some(lead) = lead else {
            self.command(Command::Submit(ticket, Box::new(job)));
            return None;
        };
        let version = Arc::clone(&job.request.version);
        let Err(not) = version.enqueue(ticket, job, ticket.enqueued_ns) else {
            lead.note_busy(&version);
            return None;
        };
        version.metrics().refused(not.status);
        let Sink::Step(sink) = not.job.sink else {
            return None;
        };
        let outcome = Outcome::refused(not.status, not.detail);
        Some((sink, not.job.request, outcome))
    }

    fn end_run(&self, finished: Finished, has_lead: bool, told: &mut Told) {
        let Finished {
            version,
            ticket,
            job,
            place,
            until_ns,
            outcome,
            copied_bytes,
        } = finished;
        if !matches!(job.sink, Sink::Step(_)) {
            self.runs.remove(ticket.flow, ticket.request_id);
        }
        let end_ns = now_ns();
        let metrics = version.metrics();
        if outcome.status == Status::Ok {
            let times = BatchTimes {
                execute_ns: outcome.execute_ns,
                ..BatchTimes::default()
            };
            metrics.batch(ticket.rows, 1, times, end_ns);
            metrics.copied(CopyPath::StepOutput, copied_bytes);
            metrics.request(RequestCount {
                rows: ticket.rows,
                in_place: false,
                queue_ns: outcome.queue_ns,
                duration_ns: end_ns.saturating_sub(ticket.enqueued_ns),
            });
        } else {
            metrics.refused(outcome.status);
        }
        self.tell(ticket, job, outcome, told);
        // Built-in steps run on the processor, where no batch is made ready behind another.
        let _ = version.finish(place, until_ns, &[ticket.flow], end_ns);
        if !has_lead {
            // A request may have waited for the place, and only the leader looks.
            self.attention.store(true, Ordering::Release);
            self.kick.notify();
        }
    }
}
