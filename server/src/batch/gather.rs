//! Inputs of a batch for the engine: pointed at where they lie, or joined in a reused buffer.

use adjoin_backend::{ExecuteError, Input, InputAccess, TensorMetadata, strings};
use adjoin_schema::{DataType, Shape, element_count};
use adjoin_shm::{AlignedBuffer, Payload};
use smallvec::SmallVec;

use crate::batch::queue::Ticket;
use crate::metrics::CopyPath;
use crate::model::request::{Job, Request};

/// An input as it will be given to the engine.
#[derive(Debug)]
pub(super) enum Plan {
    /// Where the one request has it, or where all have it side by side.
    InPlace,
    /// Where each request has it: the engine brings the pieces together.
    Pieces,
    /// In the instance's buffer, copied for that reason.
    Buffer { byte_size: usize, path: CopyPath },
}

/// Decides for one input and copies if it must.
pub(super) fn prepare(
    index: usize,
    spec: &TensorMetadata,
    jobs: &[(Ticket, Job)],
    buffer: &mut AlignedBuffer,
) -> Result<Plan, ExecuteError> {
    if spec.access == InputAccess::InPieces {
        return Ok(Plan::Pieces);
    }
    let is_shared = |(_, job): &(Ticket, Job)| job.request.is_shared(index);
    let copy_first = spec.access == InputAccess::CopyFirst && jobs.iter().any(is_shared);
    let is_aligned = |(_, job): &(Ticket, Job)| job.request.is_aligned(index);
    let from_messages = !jobs.iter().all(is_aligned);
    let may_be_in_place = !copy_first && !from_messages;
    if may_be_in_place && jobs.len() == 1 {
        return Ok(Plan::InPlace);
    }
    let parts = parts(index, jobs.iter().map(|(_, job)| &*job.request));
    let are_strings = spec.dtype == DataType::Bytes;
    // Allocations that happen to lie side by side are not one piece of memory.
    let came_by_copy = |(_, job): &(Ticket, Job)| job.request.came_by_copy();
    let may_be_joined = may_be_in_place && !are_strings && !jobs.iter().any(came_by_copy);
    if may_be_joined && Payload::joined(&parts).is_some() {
        return Ok(Plan::InPlace);
    }
    let byte_size = parts.iter().map(Payload::byte_size).sum();
    let reserved = buffer.reserve(byte_size);
    reserved.map_err(|error| ExecuteError::Mismatch {
        reason: error.to_string(),
    })?;
    let mut room = buffer.payload_mut(byte_size);
    for part in &parts {
        part.copy_to(&mut room);
        room = room.split_at(part.byte_size()).1;
    }
    if are_strings && jobs.len() > 1 {
        let sizes = parts.iter().map(Payload::byte_size);
        check_strings(index, jobs, sizes, buffer.payload(byte_size))?;
    }
    let path = match (copy_first, from_messages) {
        (true, _) => CopyPath::CopyFirst,
        (false, true) => CopyPath::MessageBody,
        (false, false) => CopyPath::Gather,
    };
    Ok(Plan::Buffer { byte_size, path })
}

/// Whether each request's part of the copied strings holds its own strings and nothing else. One whose lengths reach
/// into its neighbour's part would be answered with the neighbour's words.
fn check_strings(
    index: usize,
    jobs: &[(Ticket, Job)],
    sizes: impl Iterator<Item = usize>,
    copy: Payload<'_>,
) -> Result<(), ExecuteError> {
    let mut at = 0;
    for (request, ((_, job), byte_size)) in jobs.iter().zip(sizes).enumerate() {
        let count = element_count(&job.request.inputs[index].shape);
        let count = count.ok().and_then(|count| usize::try_from(count).ok());
        let part = copy.part(at, byte_size);
        let end = part
            .zip(count)
            .and_then(|(part, count)| strings::end(part, 0, count));
        if end != Some(byte_size) {
            let reason = format!(
                "the strings of input {index} of request {request} do not add up to its {byte_size} bytes"
            );
            return Err(ExecuteError::Mismatch { reason });
        }
        at += byte_size;
    }
    Ok(())
}

/// An input's payload in each request.
pub(super) type Parts<'a> = SmallVec<[Payload<'a>; 32]>;

/// Where each request has an input.
pub(super) fn parts<'a>(index: usize, requests: impl Iterator<Item = &'a Request>) -> Parts<'a> {
    requests.map(|request| request.payload(index)).collect()
}

/// The input of a batch of several as the plan says. `shape` is that of the whole batch, `parts` where each request has
/// it.
pub(super) fn input<'a>(
    plan: &Plan,
    dtype: DataType,
    shape: &'a Shape,
    parts: &'a [Payload<'a>],
    buffer: &'a AlignedBuffer,
) -> Input<'a> {
    match plan {
        Plan::Buffer { byte_size, .. } => Input::whole(dtype, shape, buffer.payload(*byte_size)),
        Plan::InPlace => {
            let joined = Payload::joined(parts);
            let payload = joined.expect("found to lie side by side when the plan was made");
            Input::whole(dtype, shape, payload)
        }
        Plan::Pieces => Input {
            dtype,
            shape,
            payload: parts[0],
            rest: &parts[1..],
        },
    }
}

/// The shape of a tensor over the whole batch, given one request's.
pub(super) fn batch_shape(one: &Shape, rows: u32, is_joined: bool) -> Shape {
    let mut shape = one.clone();
    if is_joined && let Some(first) = shape.first_mut() {
        *first = i64::from(rows);
    }
    shape
}
