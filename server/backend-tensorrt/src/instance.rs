//! What runs one batch at a time: a slot of device memory, an execution context, and the graphs of sizes that came before.

use std::sync::Arc;

use adjoin_backend::{
    Copied, ExecuteError, Execution, Input, Instance, Output, OutputSink, Pieces, Rooms,
    TensorMetadata,
};
use adjoin_cuda::{BatchSlot, CudaError, DeviceBuffer, Lane, NormalizeInput};
use adjoin_input_transform::EngineInput;
use adjoin_schema::Shape;
use adjoin_shm::AlignedBuffer;
use smallvec::SmallVec;

use crate::NAME;
use crate::graphs::{Graphs, Step};
use crate::metadata::Description;
use crate::raw::Context;

#[derive(Debug)]
pub(crate) struct TensorRtInstance {
    // The slot comes first: it waits for what is under way when it is dropped, before the context goes.
    slot: BatchSlot,
    context: Context,
    graphs: Graphs,
    description: Arc<Description>,
    /// Rooms for outputs that go to a sink.
    unbound: Vec<AlignedBuffer>,
}

/// Why a batch was not enqueued.
#[derive(Debug)]
pub(crate) enum EnqueueError {
    Cuda(CudaError),
    TensorRt(String),
}

impl From<CudaError> for EnqueueError {
    fn from(error: CudaError) -> Self {
        Self::Cuda(error)
    }
}

impl From<EnqueueError> for ExecuteError {
    fn from(error: EnqueueError) -> Self {
        failed(match error {
            EnqueueError::Cuda(error) => error.to_string(),
            EnqueueError::TensorRt(reason) => reason,
        })
    }
}

impl TensorRtInstance {
    pub(crate) fn new(
        slot: BatchSlot,
        mut context: Context,
        description: Arc<Description>,
    ) -> Result<Self, String> {
        // The addresses of a slot never change, so they are set once.
        for (index, tensor) in description.inputs.iter().enumerate() {
            context.set_address(
                &tensor.name,
                slot.input(index).ok_or("the slot lacks an input")?,
            )?;
        }
        for (index, tensor) in description.outputs.iter().enumerate() {
            context.set_address(
                &tensor.name,
                slot.output(index).ok_or("the slot lacks an output")?,
            )?;
        }
        let unbound = description
            .outputs
            .iter()
            .map(|_| AlignedBuffer::default())
            .collect();
        Ok(Self {
            slot,
            context,
            graphs: Graphs::default(),
            description,
            unbound,
        })
    }

    /// Sets the shapes of a batch, as the plan takes its inputs, and returns those of the outputs.
    fn shape(
        &mut self,
        inputs: &[Input<'_>],
        of_plan: &[EngineInput],
    ) -> Result<SmallVec<[Shape; 4]>, ExecuteError> {
        let tensors = (self.description.inputs.iter()).zip(&self.description.sizes);
        for ((input, own), (tensor, sizes)) in inputs.iter().zip(of_plan).zip(tensors) {
            // Requests were compared with the profile when they came in; the rows of a batch add up here.
            if !sizes
                .iter()
                .zip(input.shape)
                .all(|(range, size)| range.contains(size))
            {
                let reason = format!(
                    "{:?} has shape {:?}, which is outside of the optimization profile, {sizes:?}",
                    tensor.name, input.shape
                );
                return Err(ExecuteError::Mismatch { reason });
            }
            self.context
                .set_shape(&tensor.name, &own.shape)
                .map_err(failed)?;
        }
        let outputs = self.description.outputs.iter();
        outputs
            .map(|tensor| self.context.shape_of(&tensor.name).map_err(failed))
            .collect()
    }
}

impl Instance for TensorRtInstance {
    fn run(
        &mut self,
        execution: Execution<'_, '_>,
        sink: &mut dyn OutputSink,
    ) -> Result<Copied, ExecuteError> {
        let outcome = self.run_batch(execution, sink);
        // Whatever failed first, and in whose words: on a lost device that is why.
        outcome.map_err(|error| {
            if self.slot.transfers().device().is_lost() {
                let reason = error.to_string();
                return ExecuteError::DeviceLost {
                    engine: NAME,
                    reason,
                };
            }
            error
        })
    }
}

impl TensorRtInstance {
    fn run_batch(
        &mut self,
        execution: Execution<'_, '_>,
        sink: &mut dyn OutputSink,
    ) -> Result<Copied, ExecuteError> {
        let description = Arc::clone(&self.description);
        let outputs = &description.metadata.outputs;
        execution.check(&description.metadata)?;
        self.make_current()?;
        let of_plan = description.pixels.of_batch(execution.inputs)?;
        let shapes = self.shape(execution.inputs, &of_plan)?;
        let bytes = self.output_bytes(&shapes)?;
        let is_unbound = |output: &Output<'_>| matches!(output, Output::Unbound);
        let unbound: SmallVec<[bool; 4]> = execution.outputs.iter().map(is_unbound).collect();
        let made = of_plan.iter().filter_map(|input| input.made).collect();
        self.run_sized(execution, made, &bytes)?;
        let mut outcome = Ok(());
        for (index, shape) in shapes
            .iter()
            .enumerate()
            .filter(|(index, _)| unbound[*index])
        {
            let payload = self.unbound[index].payload(bytes[index]);
            let accepted = sink.accept(index, outputs[index].dtype, shape, payload);
            // The first error is reported, and the other outputs get their chance.
            outcome = outcome.and(accepted);
        }
        outcome?;
        Ok(Copied::default())
    }

    /// Bytes of the outputs, which are not more than the slot has.
    fn output_bytes(&self, shapes: &[Shape]) -> Result<SmallVec<[usize; 4]>, ExecuteError> {
        let outputs = &self.description.metadata.outputs;
        let capacities = &self.slot.spec().outputs;
        let bytes = |((shape, known), &capacity): ((&Shape, &TensorMetadata), &usize)| {
            let byte_size = known.dtype.byte_size(shape).ok().flatten();
            let byte_size = byte_size.and_then(|bytes| usize::try_from(bytes).ok());
            // The plan says what it writes; more than the slot has would be written beyond its end.
            let fits = byte_size.filter(|&byte_size| byte_size <= capacity);
            fits.ok_or_else(|| {
                failed(format!(
                    "output {:?} has shape {shape:?}, which is more than at the largest input",
                    known.name
                ))
            })
        };
        shapes
            .iter()
            .zip(outputs)
            .zip(capacities)
            .map(bytes)
            .collect()
    }

    /// Runs a batch whose shapes are set, and waits for its end. Outputs that are to go to a sink are in rooms of this
    /// instance's own then. The inputs in `made` are made of pixels.
    fn run_sized(
        &mut self,
        execution: Execution<'_, '_>,
        made: SmallVec<[NormalizeInput; 4]>,
        bytes: &[usize],
    ) -> Result<(), ExecuteError> {
        let Self {
            slot,
            context,
            graphs,
            unbound,
            ..
        } = self;
        let inputs: SmallVec<[Pieces<'_>; 4]> = (execution.inputs.iter())
            .map(|input| input.pieces().collect())
            .collect();
        let mut rooms: SmallVec<[Rooms<'_>; 4]> = SmallVec::new();
        let outputs = execution.outputs.iter_mut().zip(bytes).zip(unbound);
        for ((output, &byte_size), own) in outputs {
            rooms.push(output.take_rooms(byte_size, own)?);
        }
        let shapes = execution.inputs.iter().map(|input| input.shape.into());
        let sizes = execution.inputs.iter().map(Input::byte_size);
        let byte_size = sizes.chain(bytes.iter().copied()).sum();
        let mut enqueue = |lane: &mut Lane, _: &[DeviceBuffer], _: &[DeviceBuffer]| {
            context
                .enqueue(lane.stream())
                .map_err(EnqueueError::TensorRt)
        };
        let step = graphs.step(shapes.collect(), byte_size, slot, &made, &mut enqueue);
        let step = step.map_err(EnqueueError::Cuda)?;
        let mut run = slot.begin().map_err(EnqueueError::Cuda)?;
        match step {
            Step::Replay(graph) => {
                for (index, pieces) in inputs.iter().enumerate() {
                    run.place_input(index, pieces).map_err(EnqueueError::Cuda)?;
                }
                for (index, room) in rooms.into_iter().enumerate() {
                    run.place_output(index, room).map_err(EnqueueError::Cuda)?;
                }
                run.replay(&graph).map_err(EnqueueError::Cuda)?;
            }
            Step::Enqueue => {
                for (index, pieces) in inputs.iter().enumerate() {
                    run.gather(index, pieces).map_err(EnqueueError::Cuda)?;
                }
                for made in &made {
                    run.normalize(made).map_err(EnqueueError::Cuda)?;
                }
                run.with_lane(&mut enqueue)?;
                for (index, room) in rooms.into_iter().enumerate() {
                    run.scatter(index, room).map_err(EnqueueError::Cuda)?;
                }
            }
        }
        run.finish().map_err(EnqueueError::Cuda)?;
        Ok(())
    }
}

impl TensorRtInstance {
    /// Makes the context of the device current on this thread, as TensorRT wants it.
    fn make_current(&self) -> Result<(), ExecuteError> {
        let device = self.slot.transfers().device();
        device
            .make_current()
            .map_err(|error| failed(error.to_string()))
    }
}

fn failed(reason: impl ToString) -> ExecuteError {
    ExecuteError::Failed {
        engine: NAME,
        reason: reason.to_string(),
    }
}
