//! The last step of every run: the final tensors to where the client reads them.

use adjoin_backend::Dimension;
use adjoin_schema::status::Status;

use super::tensor::StepTensor;
use crate::model::request::{Outcome, Request};
use crate::session::response::ResponseBlock;

/// Copies the wanted outputs, one tensor for each output of the ensemble, into its response. Returns the bytes.
///
/// # Errors
/// The outcome, if the steps made something else than the ensemble's configuration says, or if there is no room.
pub(super) fn fill<'a>(
    request: &Request,
    response: &mut ResponseBlock,
    tensors: impl Iterator<Item = Option<&'a StepTensor>>,
) -> Result<u64, Outcome> {
    let specs = &request.version.signature().metadata().outputs;
    let mut byte_size = 0;
    let (mut dynamic_bytes, mut is_full) = (0, false);
    for (index, tensor) in tensors.enumerate() {
        let (spec, output) = (&specs[index], &request.outputs[index]);
        if !output.wanted {
            continue;
        }
        let Some(tensor) = tensor else {
            return Err(Outcome::refused(Status::Internal, [0; 2]));
        };
        let (dtype, shape, payload) = tensor.parts();
        let has_rows = request.version.signature().max_batch_size() > 0;
        let fits = |(at, dimension): (usize, &Dimension)| match dimension {
            // As many rows come back as were given.
            _ if at == 0 && has_rows => shape[0] == i64::from(request.rows),
            Dimension::Fixed(size) => *size == shape[at],
            Dimension::Named(_) | Dimension::Unknown => true,
        };
        let has_shape = shape.len() == spec.dimensions.len()
            && spec.dimensions.iter().enumerate().all(fits)
            && output
                .known
                .as_ref()
                .is_none_or(|(known, _)| known.as_slice() == shape);
        if dtype != spec.dtype || !has_shape {
            let reason = format!(
                "output {:?} came out as {dtype} {shape:?}; the ensemble's configuration says {} {:?}",
                spec.name,
                spec.dtype,
                spec.open_shape()
            );
            let mut outcome = Outcome::refused(Status::ExecutionFailed, [0; 2]);
            outcome.reason = Some(reason.into());
            return Err(outcome);
        }
        let size = payload.byte_size() as u64;
        if let Some(mut room) = response.output_mut(index) {
            payload.copy_to(&mut room);
        } else {
            dynamic_bytes += size;
            match response
                .dynamic_target()
                .store(index, dtype, shape, payload)
            {
                Ok(stored) => response.attach(stored),
                Err(_) => is_full = true,
            }
        }
        byte_size += size;
    }
    if is_full {
        return Err(Outcome::refused(Status::OutputTooLarge, [dynamic_bytes, 0]));
    }
    Ok(byte_size)
}
