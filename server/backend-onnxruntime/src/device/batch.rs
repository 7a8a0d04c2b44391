//! One batch in a slot: pieces to the device, inputs made of pixels, the session's run, outputs to where they are wanted.

use std::ops::Range;

use adjoin_backend::{ExecuteError, Input, Pieces, Rooms};
use adjoin_cuda::{BatchSlot, CudaError, Device, DeviceBuffer, Run};
use adjoin_input_transform::EngineInput;
use adjoin_schema::{DataType, Shape};
use adjoin_shm::AlignedBuffer;
use smallvec::SmallVec;

use super::launcher::Work;
use super::session::DeviceSession;
use crate::NAME;
use crate::instance::failed;
use crate::raw::device::{DeviceOutput, DeviceTensor, Made};

/// What becomes of an output.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    Skipped,
    /// Its shape is known after the run only: the engine makes it, and brings it to the host.
    Made,
    /// It is written to the slot's buffer, and from there to where it is wanted.
    Known(Known),
}

/// An output whose shape is known.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) dtype: DataType,
    pub(crate) shape: Shape,
    /// What type and shape make.
    pub(crate) byte_size: usize,
    /// The shape that the engine gives it, in a batch that is filled with rows that nobody gets.
    pub(crate) run_shape: Shape,
    /// What that makes.
    pub(crate) run_byte_size: usize,
    /// The input that it is, by its name. The engine leaves the memory of such an output as it was, so it is not asked.
    pub(crate) input: Option<usize>,
    /// Whether it goes to the sink.
    pub(crate) is_sunk: bool,
}

impl Known {
    /// One that the engine makes as it is wanted.
    pub(crate) fn new(dtype: DataType, shape: Shape, byte_size: usize) -> Self {
        Self {
            dtype,
            run_shape: shape.clone(),
            shape,
            byte_size,
            run_byte_size: byte_size,
            input: None,
            is_sunk: false,
        }
    }
}

impl Wanted {
    /// Bytes of the slot's buffer that it needs.
    pub(crate) fn byte_size(&self) -> usize {
        match self {
            Self::Known(known) => known.run_byte_size,
            Self::Made | Self::Skipped => 0,
        }
    }

    /// Whether the engine is asked for it.
    fn is_asked(&self) -> bool {
        match self {
            Self::Known(known) => known.input.is_none(),
            Self::Made => true,
            Self::Skipped => false,
        }
    }
}

/// A batch whose sizes fit the slot.
#[derive(Debug)]
pub(crate) struct Batch<'b, 'a> {
    /// What requests have given.
    pub(crate) given: &'b [Input<'a>],
    /// The same as the engine takes it.
    pub(crate) inputs: &'b [EngineInput],
    /// What to take in place of an input of truth values.
    pub(crate) truths: &'b [AlignedBuffer],
    /// For each output of the model.
    pub(crate) wanted: &'b [Wanted],
    /// The graph that it is to be captured in, or replayed from.
    pub(crate) graph: Option<i32>,
}

/// A batch that is done.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) made: Made,
    /// Whether it ran without the graph that it should have had.
    pub(crate) gave_up_graph: bool,
}

/// Why a batch did not run.
#[derive(Debug)]
pub(crate) enum BatchError {
    Cuda(CudaError),
    Engine(String),
}

impl From<CudaError> for BatchError {
    fn from(error: CudaError) -> Self {
        Self::Cuda(error)
    }
}

impl BatchError {
    /// As the server is told.
    pub(crate) fn told(self, device: &Device) -> ExecuteError {
        let (is_gone, reason) = match self {
            Self::Cuda(error) => (
                matches!(error, CudaError::ContextGone { .. }),
                error.to_string(),
            ),
            Self::Engine(reason) => (false, reason),
        };
        // Whatever failed first, and in whose words: on a lost device that is why.
        if is_gone || device.is_lost() {
            let engine = NAME;
            return ExecuteError::DeviceLost { engine, reason };
        }
        failed(reason)
    }
}

impl Batch<'_, '_> {
    /// Runs it, and waits until every output is in its rooms, one list for each output.
    ///
    /// # Errors
    /// What the driver or the engine reports; nothing of the batch is under way then.
    pub(crate) fn run<'p>(
        &self,
        slot: &'p mut BatchSlot,
        session: &DeviceSession,
        rooms: impl IntoIterator<Item = Rooms<'p>>,
    ) -> Result<Done, BatchError> {
        let mut run = slot.begin()?;
        for (index, (input, truth)) in self.given.iter().zip(self.truths).enumerate() {
            let byte_size = input.byte_size();
            let pieces: Pieces<'_> = match input.dtype {
                DataType::Bool => SmallVec::from_iter([truth.payload(byte_size)]),
                _ => input.pieces().collect(),
            };
            // An empty tensor has nothing to bring.
            if byte_size > 0 {
                run.gather(index, &pieces)?;
            }
        }
        for made in self.inputs.iter().filter_map(|input| input.made) {
            run.normalize(&made)?;
        }
        self.clear_rest(&mut run)?;
        let done = self.compute(&mut run, session)?;
        self.hand_out(&mut run)?;
        for (index, rooms) in rooms.into_iter().enumerate() {
            if rooms.iter().any(|room| room.byte_size() > 0) {
                run.scatter(index, rooms)?;
            }
        }
        run.finish()?;
        Ok(done)
    }

    /// Makes rows of zeros of what the requests leave of each input.
    fn clear_rest(&self, run: &mut Run<'_, '_>) -> Result<(), CudaError> {
        for (index, (given, input)) in self.given.iter().zip(self.inputs).enumerate() {
            let Some(rest) = rest_of(given, input) else {
                continue;
            };
            run.with_lane(|lane, inputs, _| match inputs.get(index) {
                Some(buffer) => lane.clear_range(buffer, rest.start, rest.len()),
                None => Ok(()),
            })?;
        }
        Ok(())
    }

    /// Enqueues the session's run, if it is needed for anything.
    fn compute(&self, run: &mut Run<'_, '_>, session: &DeviceSession) -> Result<Done, BatchError> {
        let mut done = Done {
            made: Made::default(),
            gave_up_graph: false,
        };
        if !self.wanted.iter().any(Wanted::is_asked) {
            return Ok(done);
        }
        let (mut turn, launcher) = session.take_turn();
        run.compute(session.stream(), |_, inputs, outputs| {
            let work = |graph| Work {
                inputs: self.inputs(inputs),
                outputs: self.outputs(outputs),
                graph,
            };
            let made = launcher.enqueue(work(self.graph), &mut turn);
            done.made = match (made, self.graph) {
                (Ok(made), _) => made,
                (Err(reason), None) => return Err(BatchError::Engine(reason)),
                // What the model does may not be to be captured; it runs all the same, and what is wrong with the batch
                // itself is found again.
                (Err(_), Some(_)) => {
                    done.gave_up_graph = true;
                    let made = launcher.enqueue(work(None), &mut turn);
                    made.map_err(BatchError::Engine)?
                }
            };
            Ok(())
        })?;
        Ok(done)
    }

    fn inputs(&self, buffers: &[DeviceBuffer]) -> Vec<DeviceTensor> {
        let tensor = |(input, buffer): (&EngineInput, &DeviceBuffer)| DeviceTensor {
            dtype: input.dtype,
            shape: input.shape.clone(),
            byte_size: input.byte_size,
            buffer: buffer.clone(),
        };
        self.inputs.iter().zip(buffers).map(tensor).collect()
    }

    fn outputs(&self, buffers: &[DeviceBuffer]) -> Vec<DeviceOutput> {
        let output = |(wanted, buffer): (&Wanted, &DeviceBuffer)| match wanted {
            Wanted::Known(known) if known.input.is_none() => DeviceOutput::Bound(DeviceTensor {
                dtype: known.dtype,
                shape: known.run_shape.clone(),
                byte_size: known.run_byte_size,
                buffer: buffer.clone(),
            }),
            Wanted::Made => DeviceOutput::Made,
            Wanted::Known(_) | Wanted::Skipped => DeviceOutput::Skipped,
        };
        self.wanted.iter().zip(buffers).map(output).collect()
    }

    /// Copies inputs to the buffers of the outputs that they are.
    fn hand_out(&self, run: &mut Run<'_, '_>) -> Result<(), CudaError> {
        for (index, wanted) in self.wanted.iter().enumerate() {
            let Wanted::Known(known) = wanted else {
                continue;
            };
            let Some(input) = known.input.filter(|_| known.byte_size > 0) else {
                continue;
            };
            run.with_lane(
                |lane, inputs, outputs| match (inputs.get(input), outputs.get(index)) {
                    (Some(from), Some(to)) => {
                        lane.copy_on_device((to, 0), (from, 0), known.byte_size)
                    }
                    _ => Ok(()),
                },
            )?;
        }
        Ok(())
    }
}

/// The bytes of an input of the engine's that no request has given. Not by the first dimension: that of an image without a
/// batch is its height for clients, and its channels for the engine.
fn rest_of(given: &Input<'_>, input: &EngineInput) -> Option<Range<usize>> {
    let element_bytes = input.made.map_or(1, |made| made.normalize.to.byte_size());
    let filled = given.byte_size() * element_bytes;
    (filled < input.byte_size).then_some(filled..input.byte_size)
}
