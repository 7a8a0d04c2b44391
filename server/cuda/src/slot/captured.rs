//! A batch as one graph. The copy kernel reads from the slot's table where pieces lie, so the graph stays the same
//! while pieces come and go.

use adjoin_shm::{Payload, PayloadMut};

use super::run::{Late, Run, check_pieces, normalize, plan_out, stage_in, tensor};
use super::{BatchSlot, NormalizeInput, TensorUse, name};
use crate::counters::CopyForm;
use crate::driver::{DeviceBuffer, Direction, Graph, Lane};
use crate::error::CudaError;

/// A whole batch as one graph, for the slot that it was captured in.
#[derive(Clone, Debug)]
pub struct BatchGraph {
    graph: Graph,
    slot: u64,
}

pub(super) fn capture<E: From<CudaError>>(
    slot: &mut BatchSlot,
    made: &[NormalizeInput],
    enqueue: impl FnOnce(&mut Lane, &[DeviceBuffer], &[DeviceBuffer]) -> Result<(), E>,
) -> Result<BatchGraph, E> {
    let rows = slot.spec.pieces_max;
    let inputs = slot.spec.inputs.len();
    let sections: Vec<usize> = (0..inputs + slot.spec.outputs.len())
        .map(|tensor| slot.section(tensor))
        .collect();
    let module = slot.transfers.kernels().module().clone();
    let (spec, table) = (&slot.spec, &slot.table);
    let (in_buffers, out_buffers) = (&slot.inputs, &slot.outputs);
    let pixels = &slot.pixels;
    let graph = slot.lane.capture::<E>(|lane| {
        for (&section, byte_size) in sections.iter().zip(spec.gathered()) {
            lane.launch_copy(&module, table, section, rows, byte_size)?;
        }
        let buffers = in_buffers.iter().chain(out_buffers);
        for buffer in buffers.chain(pixels.iter().flatten()) {
            lane.keep(buffer);
        }
        for made in made {
            normalize(lane, &module, pixels, in_buffers, made)?;
        }
        enqueue(lane, in_buffers, out_buffers)?;
        for (&section, &byte_size) in sections.iter().skip(inputs).zip(&spec.outputs) {
            lane.launch_copy(&module, table, section, rows, byte_size)?;
        }
        Ok(())
    })?;
    Ok(BatchGraph {
        graph,
        slot: slot.id,
    })
}

pub(super) fn place_input(
    run: &mut Run<'_, '_>,
    input: usize,
    pieces: &[Payload<'_>],
) -> Result<(), CudaError> {
    let slot = &mut *run.slot;
    tensor(&slot.inputs, "input", input)?;
    check_pieces(slot, pieces.len())?;
    slot.take(input, TensorUse::Placed)?;
    slot.list.clear();
    let mut at = 0;
    for piece in pieces {
        stage_in(slot, input, at, piece)?;
        at += piece.byte_size();
    }
    slot.gathered_bytes += at;
    write_section(slot, Direction::ToDevice, input)
}

pub(super) fn place_output<'p>(
    run: &mut Run<'_, 'p>,
    output: usize,
    pieces: impl IntoIterator<Item = PayloadMut<'p>>,
) -> Result<(), CudaError> {
    let slot = &mut *run.slot;
    tensor(&slot.outputs, "output", output)?;
    slot.take(slot.inputs.len() + output, TensorUse::Placed)?;
    slot.list.clear();
    let mut at = 0;
    for (count, room) in pieces.into_iter().enumerate() {
        check_pieces(slot, count + 1)?;
        let byte_size = room.byte_size();
        match plan_out(slot, output, at, room)? {
            Some(Late::Pageable { .. }) => return Err(no_staging(byte_size)),
            late => run.late.extend(late),
        }
        at += byte_size;
    }
    let section = slot.inputs.len() + output;
    write_section(slot, Direction::ToHost, section)
}

/// The copy kernel reaches pinned memory only.
fn no_staging(byte_size: usize) -> CudaError {
    CudaError::Arguments {
        reason: format!(
            "a captured batch has no staging memory for an output of {byte_size} bytes"
        ),
    }
}

pub(super) fn replay(run: &mut Run<'_, '_>, graph: &BatchGraph) -> Result<(), CudaError> {
    let slot = &mut *run.slot;
    if graph.slot != slot.id {
        let reason = "the graph was captured in another slot".to_owned();
        return Err(CudaError::Arguments { reason });
    }
    // A section that was not written has the addresses of an earlier batch.
    let missing = slot.uses.iter().position(|&used| used != TensorUse::Placed);
    if let Some(missing) = missing {
        let (what, index) = name(missing, slot.inputs.len());
        let reason = format!("{what} {index} of a captured batch has not been placed");
        return Err(CudaError::Arguments { reason });
    }
    slot.transfers.device().counters().used(CopyForm::Kernel);
    slot.lane.replay(&graph.graph)
}

/// Writes what is on the list to a section of the table, and none to the rest of it.
fn write_section(
    slot: &mut BatchSlot,
    direction: Direction,
    tensor: usize,
) -> Result<(), CudaError> {
    let section = slot.section(tensor);
    let rows = slot.spec.pieces_max;
    slot.lane
        .write_table(&mut slot.list, direction, &mut slot.table, section, rows)
}
