//! A batch as one graph. The copy kernel reads from the slot's table where pieces lie, so the graph stays the same while
//! pieces come and go.

use adjoin_shm::{Payload, PayloadMut};

use super::BatchSlot;
use super::run::{Run, check_pieces, plan_out, stage_in, tensor};
use crate::counters::CopyForm;
use crate::driver::{DeviceBuffer, Direction, Graph, Stream};
use crate::error::CudaError;

pub(super) fn capture<E: From<CudaError>>(
    slot: &mut BatchSlot,
    enqueue: impl FnOnce(&Stream, &[DeviceBuffer], &[DeviceBuffer]) -> Result<(), E>,
) -> Result<Graph, E> {
    let rows = slot.spec.pieces_max;
    let inputs = slot.spec.inputs.len();
    let sections: Vec<usize> = (0..inputs + slot.spec.outputs.len())
        .map(|tensor| slot.section(tensor))
        .collect();
    let module = slot.transfers.kernels().module().clone();
    let (spec, table) = (&slot.spec, &slot.table);
    let (in_buffers, out_buffers) = (&slot.inputs, &slot.outputs);
    slot.lane.capture(|lane| {
        for (&section, &byte_size) in sections.iter().zip(&spec.inputs) {
            lane.launch_copy(&module, table, section, rows, byte_size)?;
        }
        for buffer in in_buffers.iter().chain(out_buffers) {
            lane.keep(buffer);
        }
        enqueue(lane.stream(), in_buffers, out_buffers)?;
        for (&section, &byte_size) in sections.iter().skip(inputs).zip(&spec.outputs) {
            lane.launch_copy(&module, table, section, rows, byte_size)?;
        }
        Ok(())
    })
}

pub(super) fn replay<'p, I, O>(
    run: &mut Run<'_, 'p>,
    graph: &Graph,
    inputs: I,
    outputs: O,
) -> Result<(), CudaError>
where
    I: IntoIterator,
    I::Item: AsRef<[Payload<'p>]>,
    O: IntoIterator,
    O::Item: IntoIterator<Item = PayloadMut<'p>>,
{
    let slot = &mut *run.slot;
    let mut given = 0;
    for (input, pieces) in inputs.into_iter().enumerate() {
        let pieces = pieces.as_ref();
        tensor(&slot.inputs, "input", input)?;
        check_pieces(slot, pieces.len())?;
        slot.list.clear();
        let mut at = 0;
        for piece in pieces {
            stage_in(slot, input, at, piece)?;
            at += piece.byte_size();
        }
        write_section(slot, Direction::ToDevice, input)?;
        given = input + 1;
    }
    check_count("input", given, slot.inputs.len())?;
    given = 0;
    for (output, pieces) in outputs.into_iter().enumerate() {
        tensor(&slot.outputs, "output", output)?;
        slot.list.clear();
        let mut at = 0;
        for (count, room) in pieces.into_iter().enumerate() {
            check_pieces(slot, count + 1)?;
            let byte_size = room.byte_size();
            run.late.extend(plan_out(slot, output, at, room)?);
            at += byte_size;
        }
        write_section(slot, Direction::ToHost, slot.inputs.len() + output)?;
        given = output + 1;
    }
    check_count("output", given, slot.outputs.len())?;
    slot.transfers.device().counters().used(CopyForm::Kernel);
    slot.lane.replay(graph)
}

fn check_count(what: &'static str, given: usize, count: usize) -> Result<(), CudaError> {
    if given == count {
        return Ok(());
    }
    Err(CudaError::NoSuchTensor {
        what,
        index: given,
        count,
    })
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
