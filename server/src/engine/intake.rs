//! From a ring entry to a queued job. Everything here reads what a client may be writing at the same time:
//! an entry is copied out once, checked, and only the copy is used.

use std::sync::Arc;

use adjoin_schema::descriptor::{Rejection, parse_request};
use adjoin_schema::layout::{RegionKind, SubmissionEntry, SubmissionKind, submit_flags};
use adjoin_schema::limits::DESCRIPTOR_BYTES_MAX;
use adjoin_schema::status::Status;
use adjoin_shm::ring::RingError;
use bytes::Bytes;
use smallvec::SmallVec;

use super::Engine;
use super::lead::{Intake, Lead};
use crate::batch::queue::Ticket;
use crate::batch::queue_policy::TimeoutAction;
use crate::model::request::{InputPlace, Job, Request, Sink, Source};
use crate::model::version::Claim;
use crate::model::{InputFacts, ModelVersion};
use crate::session::Session;
use crate::session::device_regions::{DeviceTensors, SessionRegions};

/// Entries of one session that are taken before others have their turn.
const ENTRIES_PER_TURN: u32 = 64;

/// Why an entry ends its session, or only its request.
enum Trouble {
    Session(Rejection),
    Request(Rejection),
}

impl From<RingError> for Trouble {
    fn from(error: RingError) -> Self {
        Self::Session(ring_rejection(&error))
    }
}

/// What a client did to a ring, as a refusal.
pub(super) fn ring_rejection(error: &RingError) -> Rejection {
    match *error {
        RingError::IndexInvalid { index, least, room } => Rejection::new(
            Status::RingIndexInvalid,
            [u64::from(index), u64::from(least) + u64::from(room)],
        ),
        RingError::Full { capacity } => {
            Rejection::new(Status::TooManyInFlight, [u64::from(capacity), 0])
        }
    }
}

impl Engine {
    /// Takes the entries of all active sessions; how many there were.
    pub(super) fn drain_rings(&self, lead: &mut Lead, now_ns: u64) -> u32 {
        let mut total = 0;
        let mut index = 0;
        while let Some(mut intake) = lead.take_active(index) {
            let drained = self.drain_ring(lead, &mut intake, now_ns);
            let fault = drained.map_err(|rejection| (Arc::clone(&intake.session), rejection));
            // What is left of a session at fault goes with the `Detach` that follows.
            lead.put_back(index, intake, fault.is_err());
            match fault {
                Ok(count) => {
                    total += count;
                    index += 1;
                }
                Err((session, rejection)) => self.fault(&session, rejection),
            }
        }
        total
    }

    // A call of its own, so that its instructions can be counted (`benches/instructions.py`).
    #[inline(never)]
    fn drain_ring(
        &self,
        lead: &mut Lead,
        intake: &mut Intake,
        now_ns: u64,
    ) -> Result<u32, Rejection> {
        let Intake {
            session, consumer, ..
        } = intake;
        let ring = session.memory().submission_ring();
        let available = consumer
            .available(&ring)
            .map_err(|error| ring_rejection(&error))?;
        let count = available.min(ENTRIES_PER_TURN);
        if count == 0 || session.is_closed() {
            return Ok(0);
        }
        let mut refused = false;
        for index in 0..count {
            let entry = SubmissionEntry::from_words(consumer.peek(&ring, index));
            match self.take_entry(lead, session, entry, now_ns) {
                Ok(()) => {}
                Err(Trouble::Session(rejection)) => return Err(rejection),
                Err(Trouble::Request(rejection)) => {
                    session
                        .refuse(entry.request_id, rejection)
                        .map_err(|error| ring_rejection(&error))?;
                    refused = true;
                }
            }
        }
        consumer.advance(&ring, count);
        if refused && session.ring() {
            self.metrics.client_wakeups.inc();
        }
        Ok(count)
    }

    fn take_entry(
        &self,
        lead: &mut Lead,
        session: &Arc<Session>,
        entry: SubmissionEntry,
        now_ns: u64,
    ) -> Result<(), Trouble> {
        let invalid = || Trouble::Session(Status::EntryInvalid.into());
        let kind = SubmissionKind::from_wire(entry.kind).ok_or_else(invalid)?;
        let is_reserved_clear =
            entry.reserved == [0; 2] && entry.reserved0 == 0 && entry.region_id == 0;
        if !is_reserved_clear
            || entry.flags & !submit_flags::ALL != 0
            || entry.flags == submit_flags::ALL
        {
            return Err(invalid());
        }
        match kind {
            SubmissionKind::Submit => self.take_submit(lead, session, entry, now_ns),
            SubmissionKind::Cancel => {
                self.cancel_waiting(lead, session.id(), entry.request_id, now_ns);
                Ok(())
            }
            SubmissionKind::Release => session
                .release(entry.offset, entry.generation)
                .map_err(Trouble::Session),
            SubmissionKind::Forget => {
                session.forget(entry.prepared_id);
                Ok(())
            }
        }
    }

    /// Takes a request out of its queue, if it waits in one, and tells its sender. One of an ensemble begins no further
    /// step.
    pub(super) fn cancel_waiting(&self, lead: &Lead, flow: u64, request_id: u64, now_ns: u64) {
        let mut waiting = lead.busy.iter();
        if let Some((ticket, job)) =
            waiting.find_map(|version| version.cancel(flow, request_id, now_ns))
        {
            self.refuse_job(&ticket, job, Status::Cancelled, [0; 2]);
            return;
        }
        // One that waits nowhere may be between two steps of an ensemble.
        self.runs.cancel(flow, request_id);
    }

    fn take_submit(
        &self,
        lead: &mut Lead,
        session: &Arc<Session>,
        entry: SubmissionEntry,
        now_ns: u64,
    ) -> Result<(), Trouble> {
        session.admit().map_err(Trouble::Session)?;
        if self.is_draining() {
            return Err(Trouble::Request(Status::NotExecuted.into()));
        }
        if entry.deadline_ns != 0 && entry.deadline_ns <= now_ns {
            return Err(Trouble::Request(Rejection::new(
                Status::DeadlineExceeded,
                [entry.deadline_ns, now_ns],
            )));
        }
        // A change of models between this and the look-up only makes the request be prepared once more.
        let generation = self.models.generation();
        let (request, response, prepared) = if entry.flags & submit_flags::PREPARED != 0 {
            let run = session
                .take_prepared(entry.prepared_id, generation)
                .map_err(Trouble::Request)?;
            (run.request, run.response, Some(entry.prepared_id))
        } else {
            let mut request = self
                .read_request(lead, session, entry)
                .map_err(Trouble::Request)?;
            let response = session.reserve(&request).map_err(Trouble::Request)?;
            let prepare = entry.flags & submit_flags::PREPARE != 0;
            request.key = prepare.then(|| self.fresh_key());
            let request = Arc::new(request);
            if prepare {
                session
                    .keep(entry.prepared_id, Arc::clone(&request), generation)
                    .map_err(Trouble::Session)?;
            }
            (request, response, prepare.then_some(entry.prepared_id))
        };
        let job = Job {
            request,
            request_id: entry.request_id,
            sink: Sink::Session { prepared },
            response,
        };
        let ticket = ticket(
            &job,
            session.id(),
            entry.priority,
            entry.deadline_ns,
            now_ns,
        );
        self.enqueue(lead, ticket, job, now_ns);
        Ok(())
    }

    /// Queues a job, or tells its sender why not.
    pub(super) fn enqueue(&self, lead: &mut Lead, ticket: Ticket, job: Job, now_ns: u64) {
        let version = Arc::clone(&job.request.version);
        match version.enqueue(ticket, job, now_ns) {
            Ok(()) => lead.note_busy(&version),
            Err(not) => self.refuse_job(&ticket, not.job, not.status, not.detail),
        }
    }

    fn read_request(
        &self,
        lead: &mut Lead,
        session: &Arc<Session>,
        entry: SubmissionEntry,
    ) -> Result<Request, Rejection> {
        let memory = session.memory();
        let too_large = Rejection::new(
            Status::DescriptorTooLarge,
            [u64::from(entry.size), u64::from(DESCRIPTOR_BYTES_MAX)],
        );
        if entry.size > DESCRIPTOR_BYTES_MAX {
            return Err(too_large);
        }
        let copied =
            memory
                .request()
                .copy_out(entry.offset, u64::from(entry.size), &mut lead.descriptor);
        copied.map_err(|_| too_large)?;
        let regions = SessionRegions {
            session,
            own: memory.layout().payload(RegionKind::Request),
        };
        let descriptor = parse_request(&lead.descriptor, &regions)?;
        let version = self
            .models
            .choose(descriptor.model, descriptor.version, descriptor.label)?;
        let facts: SmallVec<[InputFacts<'_>; 4]> = descriptor
            .inputs
            .iter()
            .map(|input| InputFacts {
                name: input.name,
                dtype: input.dtype,
                shape: &input.shape,
                byte_size: input.byte_size,
            })
            .collect();
        let resolved = version.signature().resolve(&facts, &descriptor.outputs);
        let resolved = resolved.and_then(|resolved| {
            let device = DeviceTensors::of_request(session, &version, &descriptor, &resolved)?;
            Ok((resolved, device))
        });
        let (resolved, device) =
            resolved.inspect_err(|rejection| version.metrics().refused(rejection.status))?;
        let place = |&index: &usize| {
            let input = &descriptor.inputs[index];
            InputPlace {
                dtype: input.dtype,
                shape: input.shape.clone(),
                offset: input.offset,
                byte_size: input.byte_size,
            }
        };
        let inputs = resolved.inputs.iter().map(place).collect();
        Ok(Request {
            version,
            source: Source::Session(Arc::clone(session)),
            inputs,
            outputs: resolved.outputs,
            device,
            rows: resolved.rows,
            compatibility: resolved.compatibility,
            key: None,
            claim: None,
        })
    }
}

/// The queue's view of a job. `priority` and `deadline_ns` are 0 where the sender set none.
pub(crate) fn ticket(job: &Job, flow: u64, priority: u16, deadline_ns: u64, now_ns: u64) -> Ticket {
    let request = &job.request;
    let settings = request.version.settings();
    let level = if priority == 0 {
        settings.default_priority
    } else {
        priority.min(settings.priority_levels)
    };
    let mut ticket = Ticket {
        flow,
        request_id: job.request_id,
        priority: level,
        rows: request.rows,
        compatibility: request.compatibility,
        enqueued_ns: now_ns,
        deadline_ns: if deadline_ns == 0 {
            u64::MAX
        } else {
            deadline_ns
        },
        timeout_ns: u64::MAX,
        timeout_action: TimeoutAction::Reject,
    };
    settings.queue.of(level).set_timeout(&mut ticket, 0);
    ticket
}

/// A request whose payload is in private memory, for a version.
///
/// # Errors
/// What does not fit it.
pub(crate) fn owned_request(
    version: Arc<ModelVersion>,
    claim: Claim,
    inputs: &[(InputFacts<'_>, Bytes)],
    wanted: &[&str],
) -> Result<Request, Rejection> {
    let facts: SmallVec<[InputFacts<'_>; 4]> = inputs.iter().map(|(facts, _)| *facts).collect();
    let resolved = version.signature().resolve(&facts, wanted);
    let resolved = resolved.inspect_err(|rejection| version.metrics().refused(rejection.status))?;
    let place = |&index: &usize| {
        let facts = inputs[index].0;
        InputPlace {
            dtype: facts.dtype,
            shape: facts.shape.into(),
            offset: 0,
            byte_size: facts.byte_size,
        }
    };
    let bytes = |&index: &usize| inputs[index].1.clone();
    Ok(Request {
        inputs: resolved.inputs.iter().map(place).collect(),
        source: Source::Owned(resolved.inputs.iter().map(bytes).collect()),
        version,
        outputs: resolved.outputs,
        device: None,
        rows: resolved.rows,
        compatibility: resolved.compatibility,
        key: None,
        claim: Some(claim),
    })
}
