//! One batch in a slot.

use std::sync::Arc;

use adjoin_shm::{Payload, PayloadMut};

use super::captured::{self, BatchGraph};
use super::{BatchSlot, NormalizeInput, TensorUse, gathered};
use crate::counters::{CopyForm, Path};
use crate::driver::{DeviceBuffer, Direction, Lane, Module, Stream};
use crate::error::CudaError;

/// A batch under way in a slot. Room for outputs is borrowed for `'p`.
#[derive(Debug)]
pub struct Run<'s, 'p> {
    pub(super) slot: &'s mut BatchSlot,
    /// Outputs that a processor copies at the end.
    pub(super) late: Vec<Late<'p>>,
}

/// Room for an output that the device cannot reach.
#[derive(Debug)]
pub(super) enum Late<'p> {
    /// Its bytes come to staging memory, from this byte on.
    Staged { at: usize, room: PayloadMut<'p> },
    /// There is no staging memory; its bytes lie in an output from this byte on.
    Pageable {
        output: usize,
        at: usize,
        room: PayloadMut<'p>,
    },
}

impl<'s, 'p> Run<'s, 'p> {
    pub(super) fn new(slot: &'s mut BatchSlot) -> Self {
        slot.uses.fill(TensorUse::None);
        slot.gathered_bytes = 0;
        Self {
            slot,
            late: Vec::new(),
        }
    }

    /// Enqueues the copies that bring `pieces` together in the device buffer of an input, or of its pixels if it is made of
    /// some, in their order, without gaps. Returns the bytes of them all.
    ///
    /// A piece in a registered region is read by the device where it lies. Others are copied to staging memory first,
    /// before this returns, or, if there is none, by the driver. An input is gathered once in a run.
    ///
    /// # Errors
    /// If they do not fit, or the driver refuses.
    pub fn gather(&mut self, input: usize, pieces: &[Payload<'_>]) -> Result<usize, CudaError> {
        let slot = &mut *self.slot;
        check_pieces(slot, pieces.len())?;
        let byte_size = pieces.iter().map(Payload::byte_size).sum();
        gathered(&slot.inputs, &slot.pixels, input)?.range(0, byte_size)?;
        slot.take(input, TensorUse::Copied)?;
        slot.list.clear();
        let mut at = 0;
        for piece in pieces {
            match stage_in(slot, input, at, piece) {
                Ok(()) => {}
                Err(error) if error.is_out_of_memory() => {
                    let buffer = gathered(&slot.inputs, &slot.pixels, input)?;
                    slot.lane.copy_pageable_in(buffer, at, piece)?;
                    let counters = slot.transfers.device().counters();
                    counters.to_device.add(Path::Pageable, piece.byte_size());
                }
                Err(error) => return Err(error),
            }
            at += piece.byte_size();
        }
        let section = slot.section(input);
        copy_list(slot, Direction::ToDevice, section)?;
        slot.lane.keep(gathered(&slot.inputs, &slot.pixels, input)?);
        slot.gathered_bytes += byte_size;
        Ok(byte_size)
    }

    /// Enqueues the making of an input of the pixels that were gathered for it, behind their copies.
    ///
    /// # Errors
    /// If the slot has no memory for pixels of this input, they do not fit, or the driver refuses.
    pub fn normalize(&mut self, made: &NormalizeInput) -> Result<(), CudaError> {
        let BatchSlot {
            lane,
            transfers,
            inputs,
            pixels,
            ..
        } = &mut *self.slot;
        let module = transfers.kernels().module();
        normalize(lane, module, pixels, inputs, made)
    }

    /// Has `enqueue` enqueue work in the slot's lane, in the order of gather and scatter: a model, or zeros for rows that the
    /// batch does not fill.
    ///
    /// # Errors
    /// What `enqueue` returns.
    pub fn with_lane<T, E>(
        &mut self,
        enqueue: impl FnOnce(&mut Lane, &[DeviceBuffer], &[DeviceBuffer]) -> Result<T, E>,
    ) -> Result<T, E> {
        let slot = &mut *self.slot;
        enqueue(&mut slot.lane, &slot.inputs, &slot.outputs)
    }

    /// Has `enqueue` enqueue the model in `stream`, between gather and scatter: the stream waits for the inputs, and
    /// the slot's lane for what is in the stream then.
    ///
    /// # Errors
    /// What `enqueue` returns, or the driver's refusal. Nothing of the batch is left in the stream then.
    pub fn compute<T, E: From<CudaError>>(
        &mut self,
        stream: &Stream,
        enqueue: impl FnOnce(&Stream, &[DeviceBuffer], &[DeviceBuffer]) -> Result<T, E>,
    ) -> Result<T, E> {
        self.hand_to(stream)?;
        let unfinished = Unfinished(Some(stream));
        let outcome = enqueue(stream, &self.slot.inputs, &self.slot.outputs)?;
        self.take_from(stream)?;
        unfinished.done();
        Ok(outcome)
    }

    /// The same for a model whose work is in a lane of its own, as kernels of this crate are.
    ///
    /// # Errors
    /// What `enqueue` returns, or the driver's refusal. Nothing is under way in the lane then.
    pub fn compute_in<T, E: From<CudaError>>(
        &mut self,
        lane: &mut Lane,
        enqueue: impl FnOnce(&mut Lane, &[DeviceBuffer], &[DeviceBuffer]) -> Result<T, E>,
    ) -> Result<T, E> {
        self.hand_to(lane.stream())?;
        let mut unfinished = Undrained {
            lane,
            is_done: false,
        };
        let outcome = enqueue(unfinished.lane, &self.slot.inputs, &self.slot.outputs)?;
        self.take_from(unfinished.lane.stream())?;
        unfinished.is_done = true;
        Ok(outcome)
    }

    /// Lets a stream wait for the inputs.
    fn hand_to(&self, stream: &Stream) -> Result<(), CudaError> {
        self.slot.lane.stream().record(&self.slot.gathered)?;
        stream.wait(&self.slot.gathered)
    }

    /// Lets the slot's lane wait for the outputs.
    fn take_from(&mut self, stream: &Stream) -> Result<(), CudaError> {
        stream.record(&self.slot.computed)?;
        self.slot.lane.wait(&self.slot.computed)
    }

    /// Enqueues the copies that take an output apart: the first piece gets its first bytes, and so on.
    ///
    /// Room in a registered region is written by the device. Other room is written by [`Run::finish`]. An output is
    /// scattered once in a run.
    ///
    /// # Errors
    /// If there is more room than the output has bytes, or the driver refuses.
    pub fn scatter(
        &mut self,
        output: usize,
        pieces: impl IntoIterator<Item = PayloadMut<'p>>,
    ) -> Result<(), CudaError> {
        let slot = &mut *self.slot;
        tensor(&slot.outputs, "output", output)?;
        slot.take(slot.inputs.len() + output, TensorUse::Copied)?;
        slot.list.clear();
        let mut at = 0;
        for (count, room) in pieces.into_iter().enumerate() {
            check_pieces(slot, count + 1)?;
            let byte_size = room.byte_size();
            self.late.extend(plan_out(slot, output, at, room)?);
            at += byte_size;
        }
        let section = slot.section(slot.inputs.len() + output);
        copy_list(slot, Direction::ToHost, section)?;
        slot.lane.keep_buffer(slot.outputs.get(output));
        Ok(())
    }

    /// Says where the pieces of an input lie, for a captured batch: what [`Run::gather`] is for one that is not.
    ///
    /// # Errors
    /// If they do not fit, or there is no staging memory for what is not registered.
    pub fn place_input(&mut self, input: usize, pieces: &[Payload<'_>]) -> Result<(), CudaError> {
        captured::place_input(self, input, pieces)
    }

    /// Says where the pieces of an output go, for a captured batch: what [`Run::scatter`] is for one that is not.
    ///
    /// # Errors
    /// If they do not fit, or there is no staging memory for what is not registered.
    pub fn place_output(
        &mut self,
        output: usize,
        pieces: impl IntoIterator<Item = PayloadMut<'p>>,
    ) -> Result<(), CudaError> {
        captured::place_output(self, output, pieces)
    }

    /// Runs a captured batch, when every input and output has been placed.
    ///
    /// # Errors
    /// If one has not, the graph is another slot's, or the driver refuses.
    pub fn replay(&mut self, graph: &BatchGraph) -> Result<(), CudaError> {
        captured::replay(self, graph)
    }

    /// Waits until the batch is done, writes what a processor must write, and lets go of all memory.
    ///
    /// # Errors
    /// If any of the work failed; then outputs have undefined content.
    pub fn finish(mut self) -> Result<(), CudaError> {
        let slot = &mut *self.slot;
        let waiting = slot.waits.plan(slot.gathered_bytes);
        if let Some(waited) = slot.lane.settle_by(waiting)? {
            slot.waits.learn(slot.gathered_bytes, waited);
        }
        let late = std::mem::take(&mut self.late);
        for output in late {
            match output {
                Late::Staged { at, mut room } => {
                    let memory = slot
                        .staged_outputs
                        .memory()
                        .and_then(|memory| memory.buffer());
                    if let Some(buffer) = memory {
                        buffer.read(at, &mut room)?;
                    }
                    let counters = slot.transfers.device().counters();
                    counters.to_host.add(Path::Staged, room.byte_size());
                }
                Late::Pageable {
                    output,
                    at,
                    mut room,
                } => {
                    let buffer = tensor(&slot.outputs, "output", output)?;
                    slot.lane.copy_pageable_out(buffer, at, &mut room)?;
                    let counters = slot.transfers.device().counters();
                    counters.to_host.add(Path::Pageable, room.byte_size());
                }
            }
        }
        slot.lane.settle()
    }

    /// Device buffer of an input.
    #[must_use]
    pub fn input(&self, index: usize) -> Option<&DeviceBuffer> {
        self.slot.input(index)
    }

    /// Device buffer of an output.
    #[must_use]
    pub fn output(&self, index: usize) -> Option<&DeviceBuffer> {
        self.slot.output(index)
    }
}

impl Drop for Run<'_, '_> {
    fn drop(&mut self) {
        self.slot.lane.drain();
        self.slot.list.clear();
    }
}

/// Waits for a stream that an engine may have left work of this batch in: it reads and writes buffers that the next
/// batch uses.
struct Unfinished<'a>(Option<&'a Stream>);

impl Unfinished<'_> {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.0 {
            // An error means that the context is lost, and nothing runs in it any more.
            let _ = stream.synchronize();
        }
    }
}

/// The same for a lane.
struct Undrained<'l> {
    lane: &'l mut Lane,
    is_done: bool,
}

impl Drop for Undrained<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.lane.drain();
        }
    }
}

pub(super) fn tensor<'b>(
    buffers: &'b [DeviceBuffer],
    what: &'static str,
    index: usize,
) -> Result<&'b DeviceBuffer, CudaError> {
    let count = buffers.len();
    buffers
        .get(index)
        .ok_or(CudaError::NoSuchTensor { what, index, count })
}

pub(super) fn normalize(
    lane: &mut Lane,
    module: &Arc<Module>,
    pixels: &[Option<DeviceBuffer>],
    inputs: &[DeviceBuffer],
    made: &NormalizeInput,
) -> Result<(), CudaError> {
    let index = made.input;
    let to = tensor(inputs, "input", index)?;
    let Some(Some(from)) = pixels.get(index) else {
        let reason = format!("input {index} is gathered as the engine takes it, not as pixels");
        return Err(CudaError::Arguments { reason });
    };
    lane.launch_normalize(module, &made.normalize, made.images, from, to)
}

pub(super) fn check_pieces(slot: &BatchSlot, pieces: usize) -> Result<(), CudaError> {
    let limit = slot.spec.pieces_max;
    if pieces > limit {
        return Err(CudaError::TooManyPieces { pieces, limit });
    }
    Ok(())
}

/// Puts one piece of an input on the list: from where it lies if it is on the device or registered, and otherwise from
/// staging memory, after a copy.
pub(super) fn stage_in(
    slot: &mut BatchSlot,
    input: usize,
    at: usize,
    piece: &Payload<'_>,
) -> Result<(), CudaError> {
    let byte_size = piece.byte_size();
    let device = gathered(&slot.inputs, &slot.pixels, input)?.range(at, byte_size)?;
    let counters = slot.transfers.device().counters();
    if let Some(found) = slot.transfers.regions().find(piece.as_ptr(), byte_size) {
        let (source, hold) = found?;
        counters.within.add_gathered(byte_size);
        slot.list.push_on_device(source, byte_size, hold, device);
        return Ok(());
    }
    let counted = &counters.to_device;
    if let Some(lease) = slot.transfers.registry().lease(piece.as_ptr(), byte_size) {
        counted.add(Path::Direct, byte_size);
        slot.list.push(lease.range(), lease.into_hold(), device);
        return Ok(());
    }
    let (staging, start) = slot.staged_inputs.get(input, slot.transfers.pool())?;
    if let Some(buffer) = staging.buffer_mut() {
        buffer.write(start + at, piece)?;
        counted.add(Path::Staged, byte_size);
        let range = buffer.range(start + at, byte_size)?;
        slot.list.push(range, buffer.hold(), device);
    }
    Ok(())
}

/// Puts one piece of an output on the list. What the device cannot write comes back, to be written at the end.
pub(super) fn plan_out<'p>(
    slot: &mut BatchSlot,
    output: usize,
    at: usize,
    mut room: PayloadMut<'p>,
) -> Result<Option<Late<'p>>, CudaError> {
    let byte_size = room.byte_size();
    let device = tensor(&slot.outputs, "output", output)?.range(at, byte_size)?;
    let counters = slot.transfers.device().counters();
    if let Some(found) = slot.transfers.regions().find(room.as_mut_ptr(), byte_size) {
        let (destination, hold) = found?;
        counters.within.add_scattered(byte_size);
        slot.list
            .push_on_device(destination, byte_size, hold, device);
        return Ok(None);
    }
    let lease = slot
        .transfers
        .registry()
        .lease(room.as_mut_ptr(), byte_size);
    if let Some(lease) = lease.filter(|lease| lease.is_writable()) {
        counters.to_host.add(Path::Direct, byte_size);
        slot.list.push(lease.range(), lease.into_hold(), device);
        return Ok(None);
    }
    match slot.staged_outputs.get(output, slot.transfers.pool()) {
        Ok((staging, start)) => {
            let at = start + at;
            if let Some(buffer) = staging.buffer() {
                slot.list
                    .push(buffer.range(at, byte_size)?, buffer.hold(), device);
            }
            Ok(Some(Late::Staged { at, room }))
        }
        Err(error) if error.is_out_of_memory() => Ok(Some(Late::Pageable { output, at, room })),
        Err(error) => Err(error),
    }
}

/// Enqueues what is on the list in the form that suits it.
fn copy_list(slot: &mut BatchSlot, direction: Direction, section: usize) -> Result<(), CudaError> {
    let transfers = &slot.transfers;
    let list = &mut slot.list;
    if list.is_empty() {
        return Ok(());
    }
    let has_batched_copy = transfers.device().driver().has_batched_copy();
    let form = transfers
        .thresholds()
        .choose(list.len(), list.byte_size(), has_batched_copy);
    transfers.device().counters().used(form);
    match form {
        CopyForm::Contiguous | CopyForm::Copies => slot.lane.copy_each(list, direction),
        CopyForm::Batched => slot.lane.copy_batched(list, direction),
        CopyForm::Kernel => {
            let module = transfers.kernels().module();
            slot.lane
                .copy_by_kernel(list, direction, module, &mut slot.table, section)
        }
    }
}
