//! Runs one batch on one instance.
//!
//! A batch of one runs where its request lies: the engine reads the client's input and writes the
//! session's response block. Several requests are gathered into the instance's buffers, unless their
//! inputs lie side by side, and their outputs are scattered afterwards. If a batch of several fails, each
//! request runs once more alone, so that nobody loses an answer to a neighbour's input.

mod sinks;

use std::panic::{AssertUnwindSafe, catch_unwind};

use adjoin_backend::{
    Copied, ExecuteError, Execution, Input, InputAccess, ModelMetadata, Output, TensorMetadata,
};
use adjoin_schema::Shape;
use adjoin_schema::status::Status;
use adjoin_shm::PayloadMut;
use adjoin_shm::clock::now_ns;
use smallvec::SmallVec;

use self::sinks::{Alone, Joined, NoRoom, Tally};
use super::gather::{self, Parts, Plan};
use super::queue::Ticket;
use crate::log_limit::LogLimit;
use crate::metrics::{BatchTimes, CopyPath, RequestCount};
use crate::model::request::{Job, Outcome, Request};
use crate::model::{InstanceSlot, ModelVersion, ResolvedOutput};
use crate::session::response::{Dynamic, ResponseBlock};

/// What is to be counted of a batch. Kept until the outcomes are told: those who wait for them should not
/// wait for this.
#[derive(Debug, Default)]
pub struct Executed {
    /// When the last request ended, in ns.
    pub end_ns: u64,
    /// Bytes of the inputs of the batch that ended last; 0 where the version does not ask.
    input_bytes: u64,
    /// Rows, requests, times.
    batches: SmallVec<[(u32, u32, BatchTimes); 1]>,
    copied: SmallVec<[(CopyPath, u64); 4]>,
    requests: SmallVec<[RequestCount; 4]>,
    /// What was said of the loss of the device, if that is why it failed.
    pub device_loss: Option<Box<str>>,
}

impl Executed {
    /// Learns how long an instance was busy with the batch, from its dispatch, or its turn behind others, at `turn_ns` until
    /// its outcomes were told: that is what the next batch waits for.
    pub fn learn(&self, version: &ModelVersion, turn_ns: u64) {
        if let [(rows, ..)] = self.batches.as_slice() {
            let busy_ns = now_ns().saturating_sub(turn_ns);
            version.timing().observe(*rows, busy_ns);
            version.timing().observe_inputs(*rows, self.input_bytes);
        }
    }

    /// Adds it to the version's counters.
    pub fn count(&self, version: &ModelVersion) {
        let metrics = version.metrics();
        for &(rows, requests, times) in &self.batches {
            metrics.batch(rows, requests, times, self.end_ns);
        }
        for &(path, byte_size) in &self.copied {
            metrics.copied(path, byte_size);
        }
        for &request in &self.requests {
            metrics.request(request);
        }
    }
}

/// Bytes of all inputs of a batch.
pub fn input_bytes(jobs: &[(Ticket, Job)]) -> u64 {
    let inputs = jobs.iter().flat_map(|(_, job)| &job.request.inputs);
    inputs.map(|input| input.byte_size).sum()
}

/// Runs `jobs`, at least one, and tells what became of each as soon as it is known.
pub fn run(
    version: &ModelVersion,
    instance: &mut InstanceSlot,
    jobs: Vec<(Ticket, Job)>,
    mut tell: impl FnMut(Ticket, Job, Outcome),
) -> Executed {
    let mut executed = Executed::default();
    run_into(version, instance, jobs, &mut tell, &mut executed);
    executed
}

fn run_into(
    version: &ModelVersion,
    instance: &mut InstanceSlot,
    mut jobs: Vec<(Ticket, Job)>,
    tell: &mut impl FnMut(Ticket, Job, Outcome),
    executed: &mut Executed,
) {
    for (_, job) in &mut jobs {
        job.response.reset_dynamic();
    }
    let start_ns = now_ns();
    let rows: u32 = jobs.iter().map(|(ticket, _)| ticket.rows).sum();
    let input_bytes = if version.timing().follows_inputs() {
        input_bytes(&jobs)
    } else {
        0
    };
    match attempt_safely(version, instance, &mut jobs, rows, start_ns) {
        Ok(run) => {
            let Run { times, end_ns, .. } = run;
            let requests = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
            for (index, (ticket, job)) in jobs.into_iter().enumerate() {
                let mut outcome = Outcome::refused(Status::Ok, [version.version(), 0]);
                outcome.batch_size = rows;
                outcome.queue_ns = start_ns.saturating_sub(ticket.enqueued_ns);
                outcome.gather_ns = times.gather_ns;
                outcome.execute_ns = times.execute_ns;
                outcome.scatter_ns = times.scatter_ns;
                let no_room = run.no_room.iter().find(|(of, _)| *of == index);
                if let Some((_, byte_size)) = no_room {
                    (outcome.status, outcome.detail) = (Status::OutputTooLarge, [*byte_size, 0]);
                    version.metrics().refused(Status::OutputTooLarge);
                } else {
                    executed.requests.push(RequestCount {
                        rows: ticket.rows,
                        in_place: run.copied.is_empty() && !job.request.came_by_copy(),
                        queue_ns: outcome.queue_ns,
                        duration_ns: end_ns.saturating_sub(ticket.enqueued_ns),
                    });
                }
                tell(ticket, job, outcome);
            }
            executed.end_ns = end_ns;
            executed.input_bytes = input_bytes;
            executed.batches.push((rows, requests, times));
            executed.copied.extend(run.copied);
        }
        // On a lost device none of them would run.
        Err(error) if jobs.len() > 1 && !matches!(error, ExecuteError::DeviceLost { .. }) => {
            tracing::debug!(model = %version.name(), %error, "batch failed; its requests run alone");
            for job in jobs {
                run_into(version, instance, vec![job], tell, executed);
            }
        }
        Err(error) => {
            executed.end_ns = now_ns();
            if let ExecuteError::DeviceLost { reason, .. } = &error {
                executed.device_loss = Some(reason.as_str().into());
            }
            let (status, reason) = failure(version, error);
            version.metrics().refused(status);
            for (ticket, job) in jobs {
                let mut outcome = Outcome::refused(status, [0; 2]);
                outcome.reason = reason.clone();
                tell(ticket, job, outcome);
            }
        }
    }
}

/// What a client learns of a run that failed. Values that the model does not take are the client's own affair; the
/// words of an engine may tell of the server, and go to its log.
fn failure(version: &ModelVersion, error: ExecuteError) -> (Status, Option<Box<str>>) {
    if let ExecuteError::Refused { reason } = error {
        tracing::debug!(model = %version.name(), version = version.version(), reason, "values were refused");
        return (Status::ValuesRefused, Some(reason.into()));
    }
    static LIMIT: LogLimit = LogLimit::per_second(2);
    if LIMIT.admits() {
        tracing::warn!(model = %version.name(), version = version.version(), %error, "request failed in the engine");
    }
    (Status::ExecutionFailed, None)
}

/// As [`attempt`]; a panic in it fails the batch, not the worker.
// A call of its own, so that its instructions can be counted (`benches/instructions.py`).
#[inline(never)]
fn attempt_safely(
    version: &ModelVersion,
    instance: &mut InstanceSlot,
    jobs: &mut [(Ticket, Job)],
    rows: u32,
    start_ns: u64,
) -> Result<Run, ExecuteError> {
    // What a panic may leave half done, outputs and buffers, is written anew by the next run.
    let run = AssertUnwindSafe(|| attempt(version, instance, jobs, rows, start_ns));
    catch_unwind(run).unwrap_or_else(|_| {
        let reason = "it panicked; the log has the place".to_owned();
        Err(ExecuteError::Failed {
            engine: version.engine(),
            reason,
        })
    })
}

struct Run {
    times: BatchTimes,
    end_ns: u64,
    /// Bytes that the server or the engine copied; empty if all was in place.
    copied: SmallVec<[(CopyPath, u64); 4]>,
    no_room: NoRoom,
}

fn attempt(
    version: &ModelVersion,
    instance: &mut InstanceSlot,
    jobs: &mut [(Ticket, Job)],
    rows: u32,
    start_ns: u64,
) -> Result<Run, ExecuteError> {
    let is_joined = jobs.len() > 1;
    let plans = plan_inputs(version, instance, jobs)?;
    let gathered = plans.iter().any(|plan| matches!(plan, Plan::Buffer { .. }));
    let run_ns = if gathered { now_ns() } else { start_ns };

    let (copied, dynamic, no_room) = if is_joined {
        run_joined(version, instance, jobs, &plans, rows)?
    } else {
        run_alone(version, instance, jobs, &plans)?
    };

    let done_ns = now_ns();
    let dynamic_bytes = attach(jobs, dynamic);
    let scattered = if is_joined {
        scatter(version, instance, jobs)
    } else {
        0
    };
    let end_ns = if scattered > 0 { now_ns() } else { done_ns };
    let gathered_bytes = plans.iter().filter_map(|plan| match plan {
        Plan::Buffer { byte_size, path } => Some((*path, *byte_size as u64)),
        Plan::InPlace | Plan::Pieces => None,
    });
    let other_bytes = [
        (CopyPath::Scatter, scattered),
        (CopyPath::DynamicOutput, dynamic_bytes),
        (CopyPath::EngineInput, copied.input_bytes),
        (CopyPath::EngineOutput, copied.output_bytes),
        (CopyPath::Transform, copied.transformed_bytes),
    ];
    let all_bytes = gathered_bytes.chain(other_bytes);
    let copied = all_bytes.filter(|&(_, bytes)| bytes > 0).collect();
    let times = BatchTimes {
        gather_ns: run_ns - start_ns,
        execute_ns: done_ns - run_ns,
        scatter_ns: end_ns - done_ns,
    };
    Ok(Run {
        times,
        end_ns,
        copied,
        no_room,
    })
}

fn plan_inputs(
    version: &ModelVersion,
    instance: &mut InstanceSlot,
    jobs: &[(Ticket, Job)],
) -> Result<SmallVec<[Plan; 4]>, ExecuteError> {
    let specs = &version.signature().metadata().inputs;
    let plan = |(index, (spec, buffer))| gather::prepare(index, spec, jobs, buffer);
    specs
        .iter()
        .zip(&mut instance.inputs)
        .enumerate()
        .map(plan)
        .collect()
}

type Ran = (Copied, Vec<(usize, Dynamic)>, NoRoom);

fn run_alone(
    version: &ModelVersion,
    instance: &mut InstanceSlot,
    jobs: &mut [(Ticket, Job)],
    plans: &[Plan],
) -> Result<Ran, ExecuteError> {
    let Job {
        request, response, ..
    } = &mut jobs[0].1;
    let target = response.dynamic_target();
    let mut inputs: SmallVec<[Input<'_>; 4]> = SmallVec::new();
    for (index, plan) in plans.iter().enumerate() {
        let mut input = request.input(index);
        if let Plan::Buffer { byte_size, .. } = plan {
            input.payload = instance.inputs[index].payload(*byte_size);
        }
        inputs.push(input);
    }
    let mut outputs: SmallVec<[Output<'_>; 4]> = SmallVec::new();
    response.bind(request, &mut outputs);
    let mut sink = Alone {
        target,
        outputs: Vec::new(),
        tally: Tally::default(),
    };
    let execution = Execution {
        key: request.key,
        inputs: &inputs,
        outputs: &mut outputs,
    };
    let copied = instance.engine.run(execution, &mut sink);
    let no_room = Tally::without_room(&[sink.tally]);
    let copied = match copied {
        Err(ExecuteError::NoRoom(_)) if !no_room.is_empty() => Copied::default(),
        other => other?,
    };
    debug_assert_eq!(version.signature().metadata().inputs.len(), inputs.len());
    Ok((
        copied,
        sink.outputs.into_iter().map(|output| (0, output)).collect(),
        no_room,
    ))
}

fn run_joined(
    version: &ModelVersion,
    instance: &mut InstanceSlot,
    jobs: &mut [(Ticket, Job)],
    plans: &[Plan],
    rows: u32,
) -> Result<Ran, ExecuteError> {
    let metadata = version.signature().metadata();
    let count = jobs.len();
    let mut requests: SmallVec<[&Request; 32]> = SmallVec::new();
    let mut responses: SmallVec<[(u32, &mut ResponseBlock); 32]> = SmallVec::new();
    for (ticket, job) in jobs {
        requests.push(&job.request);
        responses.push((ticket.rows, &mut job.response));
    }
    let first = requests[0];
    let input_shapes: SmallVec<[Shape; 4]> = first
        .inputs
        .iter()
        .map(|place| gather::batch_shape(&place.shape, rows, true))
        .collect();
    let parts: SmallVec<[Parts<'_>; 4]> = (plans.iter().enumerate())
        .map(|(index, plan)| match plan {
            Plan::Buffer { .. } => Parts::new(),
            Plan::InPlace | Plan::Pieces => gather::parts(index, requests.iter().copied()),
        })
        .collect();
    let inputs: SmallVec<[Input<'_>; 4]> = (plans.iter().enumerate())
        .map(|(index, plan)| {
            let dtype = first.inputs[index].dtype;
            let (shape, parts) = (&input_shapes[index], &parts[index]);
            gather::input(plan, dtype, shape, parts, &instance.inputs[index])
        })
        .collect();
    let mut output_shapes: SmallVec<[Shape; 4]> = SmallVec::new();
    for (index, (output, spec)) in first.outputs.iter().zip(&metadata.outputs).enumerate() {
        let shape = output
            .known
            .as_ref()
            .map(|(shape, _)| gather::batch_shape(shape, rows, true));
        if output.wanted && shape.is_some() && spec.access != InputAccess::InPieces {
            let byte_size = joined_bytes(requests.iter().copied(), index);
            let reserved = instance.outputs[index].reserve(byte_size);
            reserved.map_err(|error| ExecuteError::Mismatch {
                reason: error.to_string(),
            })?;
        }
        output_shapes.push(shape.unwrap_or_default());
    }
    let is_unbound = |output: &ResolvedOutput| output.wanted && output.known.is_none();
    let target = |(rows, response): &(u32, &mut ResponseBlock)| (*rows, response.dynamic_target());
    let targets = match first.outputs.iter().any(is_unbound) {
        true => responses.iter().map(target).collect(),
        false => SmallVec::new(),
    };
    let mut rooms = rooms_in_pieces(metadata, &requests, &mut responses);
    let mut outputs: SmallVec<[Output<'_>; 4]> = SmallVec::new();
    for (index, ((output, shape), buffer)) in first
        .outputs
        .iter()
        .zip(&output_shapes)
        .zip(&mut instance.outputs)
        .enumerate()
    {
        let dtype = output.dtype;
        let pieces = rooms.get_mut(index).map(std::mem::take).unwrap_or_default();
        outputs.push(match &output.known {
            _ if !output.wanted => Output::Skipped,
            None => Output::Unbound,
            Some(_) if metadata.outputs[index].access == InputAccess::InPieces => Output::Pieces {
                dtype,
                shape,
                pieces,
            },
            Some(_) => {
                let payload = buffer.payload_mut(joined_bytes(requests.iter().copied(), index));
                Output::Bound {
                    dtype,
                    shape,
                    payload,
                }
            }
        });
    }
    let mut sink = Joined {
        targets,
        rows,
        outputs: Vec::new(),
        tallies: SmallVec::from_elem(Tally::default(), count),
    };
    let execution = Execution {
        key: None,
        inputs: &inputs,
        outputs: &mut outputs,
    };
    let copied = instance.engine.run(execution, &mut sink)?;
    debug_assert_eq!(metadata.outputs.len(), outputs.len());
    let no_room = Tally::without_room(&sink.tallies);
    Ok((copied, sink.outputs, no_room))
}

/// For each output, the room for it in each response; empty unless the model gives some in pieces.
fn rooms_in_pieces<'a>(
    metadata: &ModelMetadata,
    requests: &[&'a Request],
    responses: &'a mut [(u32, &mut ResponseBlock)],
) -> Vec<Vec<PayloadMut<'a>>> {
    let is_in_pieces = |spec: &TensorMetadata| spec.access == InputAccess::InPieces;
    if !metadata.outputs.iter().any(is_in_pieces) {
        return Vec::new();
    }
    let mut rooms: Vec<Vec<PayloadMut<'a>>> = Vec::new();
    rooms.resize_with(metadata.outputs.len(), Vec::new);
    for (request, (_, response)) in requests.iter().zip(responses) {
        let mut bound: SmallVec<[Output<'a>; 4]> = SmallVec::new();
        response.bind(request, &mut bound);
        for (room, output) in rooms.iter_mut().zip(bound) {
            if let Output::Bound { payload, .. } = output {
                room.push(payload);
            }
        }
    }
    rooms
}

fn joined_bytes<'r>(requests: impl Iterator<Item = &'r Request>, output: usize) -> usize {
    let bytes = requests
        .filter_map(|request| request.outputs[output].known.as_ref())
        .map(|(_, bytes)| bytes);
    usize::try_from(bytes.sum::<u64>()).unwrap_or(usize::MAX)
}

/// Hands the rows of each joined output back; the bytes copied.
fn scatter(version: &ModelVersion, instance: &InstanceSlot, jobs: &mut [(Ticket, Job)]) -> u64 {
    let mut copied = 0;
    for (index, spec) in version.signature().metadata().outputs.iter().enumerate() {
        let total = joined_bytes(jobs.iter().map(|(_, job)| &*job.request), index);
        let output = &jobs[0].1.request.outputs[index];
        let is_given_out = spec.access == InputAccess::InPieces;
        if !output.wanted || output.known.is_none() || is_given_out {
            continue;
        }
        let all = instance.outputs[index].payload(total);
        let mut at = 0;
        for (_, job) in jobs.iter_mut() {
            let Some(mut room) = job.response.output_mut(index) else {
                continue;
            };
            let byte_size = room.byte_size();
            if let Some(part) = all.part(at, byte_size) {
                part.copy_to(&mut room);
                at += byte_size;
            }
        }
        copied += at as u64;
    }
    copied
}

fn attach(jobs: &mut [(Ticket, Job)], outputs: Vec<(usize, Dynamic)>) -> u64 {
    let mut bytes = 0;
    for (job, output) in outputs {
        bytes += output.byte_size();
        jobs[job].1.response.attach(output);
    }
    bytes
}

#[cfg(test)]
mod tests;
