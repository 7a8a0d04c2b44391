//! What runs one batch at a time on the device.

use std::ops::RangeInclusive;
use std::sync::Arc;

use adjoin_backend::{
    Copied, ExecuteError, Execution, Input, Instance, ModelMetadata, Output, OutputSink, Rooms,
};
use adjoin_cuda::CudaError;
use adjoin_input_transform::{DevicePixels, EngineInput};
use adjoin_schema::DataType;
use adjoin_shm::{AlignedBuffer, PayloadMut};
use smallvec::SmallVec;

use super::batch::{Batch, BatchError, Done, Known, Wanted};
use super::filling::BatchSizes;
use super::session::DeviceSession;
use super::slot::{GraphKey, Needed, Slot};
use crate::instance::failed;
use crate::raw::gather_truth;

/// What the server is told of a model, and how the engine's inputs come of it.
#[derive(Debug, Default)]
pub(crate) struct Served {
    pub(crate) metadata: ModelMetadata,
    /// For each input, the range of each dimension; empty if nothing is limited.
    pub(crate) sizes: Vec<Vec<RangeInclusive<i64>>>,
    /// Inputs that are made of pixels: metadata and sizes are those of the pixels.
    pub(crate) pixels: DevicePixels,
    /// What batches are filled up to.
    pub(crate) batch_sizes: BatchSizes,
}

#[derive(Debug)]
pub(crate) struct DeviceInstance {
    // The slot comes first: it waits for what is under way when it is dropped, before the session goes.
    slot: Slot,
    session: Arc<DeviceSession>,
    served: Arc<Served>,
    /// Truth values of inputs, each made 0 or 1: the engine's C++ is undefined for other bytes.
    truths: Vec<AlignedBuffer>,
    /// Rooms for outputs that go to a sink.
    own: Vec<AlignedBuffer>,
}

impl DeviceInstance {
    pub(crate) fn new(slot: Slot, session: Arc<DeviceSession>, served: Arc<Served>) -> Self {
        let metadata = &served.metadata;
        let buffers = |count: usize| (0..count).map(|_| AlignedBuffer::default()).collect();
        Self {
            slot,
            session,
            truths: buffers(metadata.inputs.len()),
            own: buffers(metadata.outputs.len()),
            served,
        }
    }
}

impl Instance for DeviceInstance {
    fn run(
        &mut self,
        execution: Execution<'_, '_>,
        sink: &mut dyn OutputSink,
    ) -> Result<Copied, ExecuteError> {
        execution.check(&self.served.metadata)?;
        self.check_sizes(execution.inputs)?;
        let mut inputs = self.served.pixels.of_batch(execution.inputs)?;
        let mut wanted = self.wanted(&execution, &inputs)?;
        self.served.batch_sizes.fill(&mut inputs, &mut wanted);
        if wanted
            .iter()
            .all(|wanted| matches!(wanted, Wanted::Skipped))
        {
            return Ok(Copied::default());
        }
        self.make_room(&execution, &inputs, &wanted)
            .map_err(|error| self.told(error.into()))?;
        let copied = self.copy_truths(execution.inputs)?;
        let done = self.run_wanted(execution, &inputs, &wanted)?;
        self.deliver(&wanted, &done, sink)?;
        Ok(copied)
    }
}

impl DeviceInstance {
    /// Whether any batch has a graph.
    pub(crate) fn has_graph(&self) -> bool {
        self.slot.has_graph()
    }

    fn told(&self, error: BatchError) -> ExecuteError {
        error.told(self.slot.transfers().device())
    }

    /// Requests were compared with the limits when they came in; the rows of a batch add up here.
    fn check_sizes(&self, inputs: &[Input<'_>]) -> Result<(), ExecuteError> {
        let limited = inputs.iter().zip(&self.served.sizes);
        let limited = limited.zip(&self.served.metadata.inputs);
        for ((input, sizes), tensor) in limited {
            let mut dimensions = sizes.iter().zip(input.shape);
            if !dimensions.all(|(range, size)| range.contains(size)) {
                let (name, shape) = (&tensor.name, input.shape);
                let reason = format!(
                    "{name:?} has shape {shape:?}, which is outside of the profile, {sizes:?}"
                );
                return Err(ExecuteError::Mismatch { reason });
            }
        }
        Ok(())
    }

    /// What becomes of each output.
    fn wanted(
        &self,
        execution: &Execution<'_, '_>,
        inputs: &[EngineInput],
    ) -> Result<SmallVec<[Wanted; 4]>, ExecuteError> {
        let mut all = SmallVec::new();
        for (index, output) in execution.outputs.iter().enumerate() {
            let input = self.session.handed_out(index);
            let source = input.and_then(|input| inputs.get(input));
            let (dtype, shape, byte_size) = match (output, source) {
                (Output::Skipped, _) => {
                    all.push(Wanted::Skipped);
                    continue;
                }
                (Output::Unbound, None) => {
                    all.push(Wanted::Made);
                    continue;
                }
                (Output::Unbound, Some(source)) => (source.dtype, &*source.shape, source.byte_size),
                (
                    Output::Bound {
                        dtype,
                        shape,
                        payload,
                    },
                    _,
                ) => (*dtype, *shape, payload.byte_size()),
                (
                    Output::Pieces {
                        dtype,
                        shape,
                        pieces,
                    },
                    _,
                ) => (
                    *dtype,
                    *shape,
                    pieces.iter().map(PayloadMut::byte_size).sum(),
                ),
            };
            if source.is_some_and(|source| source.byte_size != byte_size) {
                return Err(failed(format!(
                    "output {index} is an input of another size"
                )));
            }
            all.push(Wanted::Known(Known {
                input,
                is_sunk: matches!(output, Output::Unbound),
                ..Known::new(dtype, shape.into(), byte_size)
            }));
        }
        Ok(all)
    }

    /// Makes the context current on this thread, and room for the batch.
    fn make_room(
        &mut self,
        execution: &Execution<'_, '_>,
        inputs: &[EngineInput],
        wanted: &[Wanted],
    ) -> Result<(), CudaError> {
        self.slot.transfers().device().make_current()?;
        let given = inputs.iter().zip(execution.inputs);
        let pixels = given.map(|(input, given)| input.made.map_or(0, |_| given.byte_size()));
        let pixels: SmallVec<[usize; 4]> = pixels.collect();
        let inputs: SmallVec<[usize; 4]> = inputs.iter().map(|input| input.byte_size).collect();
        let outputs: SmallVec<[usize; 4]> = wanted.iter().map(Wanted::byte_size).collect();
        let pieces_in = execution.inputs.iter().map(|input| input.rest.len() + 1);
        let pieces_out = execution.outputs.iter().map(|output| match output {
            Output::Pieces { pieces, .. } => pieces.len(),
            _ => 1,
        });
        let pieces = pieces_in.chain(pieces_out).max().unwrap_or(1);
        self.slot.make_room(&Needed {
            inputs: &inputs,
            pixels: &pixels,
            outputs: &outputs,
            pieces,
        })
    }

    /// Brings truth values together, as bytes that are 0 or 1.
    fn copy_truths(&mut self, inputs: &[Input<'_>]) -> Result<Copied, ExecuteError> {
        let mut copied = Copied::default();
        for (input, copy) in inputs.iter().zip(&mut self.truths) {
            if input.dtype == DataType::Bool {
                gather_truth(input, copy).map_err(failed)?;
                copied.input_bytes += input.byte_size() as u64;
            }
        }
        Ok(copied)
    }

    /// Runs a batch that fits the slot, and waits for its end. Outputs that are to go to the sink are in rooms of this
    /// instance's own then, or with the engine.
    fn run_wanted(
        &mut self,
        execution: Execution<'_, '_>,
        inputs: &[EngineInput],
        wanted: &[Wanted],
    ) -> Result<Done, ExecuteError> {
        let key = graph_key(inputs, wanted);
        let graph = key
            .as_ref()
            .and_then(|key| self.slot.graph(key, &self.session));
        let mut rooms: SmallVec<[Rooms<'_>; 4]> = SmallVec::new();
        let outputs = execution.outputs.iter_mut().zip(wanted);
        for ((output, wanted), own) in outputs.zip(&mut self.own) {
            rooms.push(match wanted {
                Wanted::Known(known) => output.take_rooms(known.byte_size, own)?,
                Wanted::Made | Wanted::Skipped => Rooms::new(),
            });
        }
        let batch = Batch {
            given: execution.inputs,
            inputs,
            truths: &self.truths,
            wanted,
            graph,
        };
        let done = batch.run(self.slot.batch(), &self.session, rooms);
        let done = done.map_err(|error| error.told(self.slot.transfers().device()))?;
        if let Some(key) = key.filter(|_| done.gave_up_graph) {
            self.slot.give_up_graph(key);
        }
        Ok(done)
    }

    /// Hands outputs to the sink, in their order.
    fn deliver(
        &self,
        wanted: &[Wanted],
        done: &Done,
        sink: &mut dyn OutputSink,
    ) -> Result<(), ExecuteError> {
        let mut outcome = Ok(());
        for (index, (wanted, own)) in wanted.iter().zip(&self.own).enumerate() {
            let accepted = match wanted {
                Wanted::Known(known) if known.is_sunk => sink
                    .accept(
                        index,
                        known.dtype,
                        &known.shape,
                        own.payload(known.byte_size),
                    )
                    .map_err(ExecuteError::from),
                Wanted::Made => done.made.deliver(index, sink).map(|byte_size| {
                    let counters = self.slot.transfers().device().counters();
                    counters.engine_brought_to_host(byte_size);
                }),
                Wanted::Known(_) | Wanted::Skipped => Ok(()),
            };
            // The first error is reported, and the other outputs get their chance.
            outcome = outcome.and(accepted);
        }
        outcome
    }
}

/// What a graph for a batch is found by. There is none where the engine makes an output: a graph that is replayed makes
/// nothing.
fn graph_key(inputs: &[EngineInput], wanted: &[Wanted]) -> Option<GraphKey> {
    if wanted.iter().any(|wanted| matches!(wanted, Wanted::Made)) {
        return None;
    }
    let is_wanted = |wanted: &Wanted| !matches!(wanted, Wanted::Skipped);
    Some(GraphKey {
        shapes: inputs.iter().map(|input| input.shape.clone()).collect(),
        wanted: wanted.iter().map(is_wanted).collect(),
    })
}
