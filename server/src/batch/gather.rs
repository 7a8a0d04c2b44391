//! Inputs of a batch for the engine: pointed at where they lie, or joined in a reused buffer.

use adjoin_backend::{Input, InputAccess, TensorMetadata};
use adjoin_schema::Shape;
use adjoin_shm::{AlignedBuffer, MemfdError, Payload};
use smallvec::SmallVec;

use crate::batch::queue::Ticket;
use crate::metrics::CopyPath;
use crate::model::request::{Job, Source};

/// An input as it will be given to the engine.
#[derive(Debug)]
pub(super) enum Plan {
    /// Where the one request has it, or where all have it side by side.
    InPlace,
    /// In the instance's buffer, copied for that reason.
    Buffer { byte_size: usize, path: CopyPath },
}

/// Decides for one input and copies if it must.
pub(super) fn prepare(
    index: usize,
    spec: &TensorMetadata,
    jobs: &[(Ticket, Job)],
    buffer: &mut AlignedBuffer,
) -> Result<Plan, MemfdError> {
    let from_session = |(_, job): &(Ticket, Job)| matches!(job.request.source, Source::Session(_));
    let copy_first = spec.access == InputAccess::CopyFirst && jobs.iter().any(from_session);
    // The bytes of a message lie wherever the parser left them; engines are promised aligned ones.
    let from_messages = !jobs.iter().all(from_session);
    let may_be_in_place = !copy_first && !from_messages;
    if may_be_in_place && jobs.len() == 1 {
        return Ok(Plan::InPlace);
    }
    let parts: SmallVec<[Payload<'_>; 32]> = jobs
        .iter()
        .map(|(_, job)| job.request.payload(index))
        .collect();
    if may_be_in_place && Payload::joined(&parts).is_some() {
        return Ok(Plan::InPlace);
    }
    let byte_size = parts.iter().map(Payload::byte_size).sum();
    buffer.reserve(byte_size)?;
    let mut room = buffer.payload_mut(byte_size);
    for part in &parts {
        part.copy_to(&mut room);
        room = room.split_at(part.byte_size()).1;
    }
    let path = match (copy_first, from_messages) {
        (true, _) => CopyPath::CopyFirst,
        (false, true) => CopyPath::MessageBody,
        (false, false) => CopyPath::Gather,
    };
    Ok(Plan::Buffer { byte_size, path })
}

/// The input as the plan says. `shape` is that of the whole batch.
pub(super) fn input<'a>(
    index: usize,
    plan: &Plan,
    jobs: &'a [(Ticket, Job)],
    shape: &'a Shape,
    buffer: &'a AlignedBuffer,
) -> Input<'a> {
    let dtype = jobs[0].1.request.inputs[index].dtype;
    let payload = match plan {
        Plan::Buffer { byte_size, .. } => buffer.payload(*byte_size),
        Plan::InPlace if jobs.len() == 1 => jobs[0].1.request.payload(index),
        Plan::InPlace => {
            let parts: SmallVec<[Payload<'a>; 32]> = jobs
                .iter()
                .map(|(_, job)| job.request.payload(index))
                .collect();
            Payload::joined(&parts).expect("found to lie side by side when the plan was made")
        }
    };
    Input {
        dtype,
        shape,
        payload,
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
