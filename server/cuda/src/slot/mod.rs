//! Buffers and streams for one batch at a time, and two of them for each instance.
//!
//! A [`BatchSlot`] has a buffer on the device for each input and output of a model, for the largest batch, and a lane
//! for its copies. An input that is made of pixels has a second one, which they are gathered in. An instance has two, so that one batch is copied while another is computed. A slot is made once; a
//! batch in it allocates nothing.
//!
//! A [`Run`] is one batch in a slot: gather, compute, scatter, finish. It may be given up at any point, by an error or
//! a panic: dropping it waits until nothing is under way.

mod captured;
mod run;
mod staging;
mod waits;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

pub use self::captured::BatchGraph;
pub use self::run::Run;
use self::staging::StagingArea;
use self::waits::Waits;
use crate::driver::{CopyList, DeviceBuffer, Event, Lane, Normalize, PinnedBuffer, ROW_BYTES};
use crate::error::CudaError;
use crate::transfers::Transfers;

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// What a slot must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotSpec {
    /// Bytes of each input at the largest batch, as the engine takes it.
    pub inputs: Vec<usize>,
    /// Bytes of the pixels that each input is made of, at the largest batch; 0, or none where the list ends, for an input
    /// that is gathered as the engine takes it.
    pub pixels: Vec<usize>,
    /// Bytes of each output at the largest batch.
    pub outputs: Vec<usize>,
    /// Requests in a batch, at most.
    pub pieces_max: usize,
}

impl SlotSpec {
    /// Bytes of the pixels of an input; 0 if it is made of none.
    #[must_use]
    pub fn pixels(&self, input: usize) -> usize {
        self.pixels.get(input).copied().unwrap_or(0)
    }

    /// Bytes that are gathered for each input at the largest batch.
    fn gathered(&self) -> impl Iterator<Item = usize> {
        let inputs = self.inputs.iter().enumerate();
        inputs.map(|(input, &byte_size)| match self.pixels(input) {
            0 => byte_size,
            pixels => pixels,
        })
    }
}

/// How an input of one batch is made of the pixels that were gathered for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormalizeInput {
    /// Number of the input.
    pub input: usize,
    /// What is made of an image.
    pub normalize: Normalize,
    /// How many there are.
    pub images: u32,
}

/// What a run has done with a tensor. Once in a run: the copy kernel may be reading its section of the table, and staging
/// memory, until the run is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TensorUse {
    None,
    Copied,
    Placed,
}

/// Buffers and a lane for one batch.
#[derive(Debug)]
pub struct BatchSlot {
    // The lane comes first: it waits when it is dropped, before anything that it uses goes.
    lane: Lane,
    transfers: Transfers,
    spec: SlotSpec,
    inputs: Vec<DeviceBuffer>,
    /// For each input, what its pixels are gathered in.
    pixels: Vec<Option<DeviceBuffer>>,
    outputs: Vec<DeviceBuffer>,
    /// Inputs are on the device.
    gathered: Event,
    /// Outputs may be read.
    computed: Event,
    list: CopyList,
    /// A section of `pieces_max` rows for each input, then for each output.
    table: PinnedBuffer,
    staged_inputs: StagingArea,
    staged_outputs: StagingArea,
    /// What the batch at hand has done with each tensor, and so with its section. Inputs come first.
    uses: Vec<TensorUse>,
    /// Bytes of its inputs, as far as they are gathered or placed.
    gathered_bytes: usize,
    waits: Waits,
    /// Tells its graphs from those of other slots.
    id: u64,
}

impl BatchSlot {
    /// A slot for batches of `spec`.
    ///
    /// # Errors
    /// If the device has no room ([`CudaError::is_out_of_memory`]).
    pub fn new(transfers: &Transfers, spec: SlotSpec) -> Result<Self, CudaError> {
        let device = transfers.device();
        let buffers = |sizes: &[usize]| -> Result<Vec<DeviceBuffer>, CudaError> {
            sizes
                .iter()
                .map(|&size| DeviceBuffer::new(device, size))
                .collect()
        };
        let pixels = |input| match spec.pixels(input) {
            0 => Ok(None),
            byte_size => DeviceBuffer::new(device, byte_size).map(Some),
        };
        let tensors = spec.inputs.len() + spec.outputs.len();
        let slot = Self {
            lane: Lane::new(device, tensors * (2 * spec.pieces_max + 8))?,
            inputs: buffers(&spec.inputs)?,
            pixels: (0..spec.inputs.len())
                .map(pixels)
                .collect::<Result<_, _>>()?,
            outputs: buffers(&spec.outputs)?,
            gathered: Event::new(device)?,
            computed: Event::new(device)?,
            list: CopyList::with_capacity(spec.pieces_max),
            table: PinnedBuffer::new(device, tensors * spec.pieces_max * ROW_BYTES)?,
            staged_inputs: StagingArea::new(spec.gathered()),
            staged_outputs: StagingArea::new(spec.outputs.iter().copied()),
            uses: vec![TensorUse::None; tensors],
            gathered_bytes: 0,
            waits: Waits::new(transfers.spin()),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            transfers: transfers.clone(),
            spec,
        };
        slot.check_generations()?;
        Ok(slot)
    }

    /// That no reset came between the making of one part and another. Copies go by the addresses of buffers, without a
    /// further look at whose they are.
    fn check_generations(&self) -> Result<(), CudaError> {
        let generation = self.lane.stream().generation();
        let buffers = self.inputs.iter().chain(&self.outputs);
        let buffers = buffers.chain(self.pixels.iter().flatten());
        let parts = buffers.map(DeviceBuffer::generation);
        let oldest = parts
            .chain([
                self.table.generation(),
                self.transfers.kernels().generation(),
            ])
            .min();
        match oldest {
            Some(oldest) if oldest < generation => Err(CudaError::ContextGone {
                device: self.transfers.device().facts().index,
                generation: oldest,
            }),
            _ if self.transfers.device().generation() != generation => {
                Err(CudaError::ContextGone {
                    device: self.transfers.device().facts().index,
                    generation,
                })
            }
            _ => Ok(()),
        }
    }

    /// What it shares with all batches on its device.
    #[must_use]
    pub fn transfers(&self) -> &Transfers {
        &self.transfers
    }

    /// What it was made for.
    #[must_use]
    pub fn spec(&self) -> &SlotSpec {
        &self.spec
    }

    /// Device buffer of an input. Its address never changes.
    #[must_use]
    pub fn input(&self, index: usize) -> Option<&DeviceBuffer> {
        self.inputs.get(index)
    }

    /// Device buffer of an output. Its address never changes.
    #[must_use]
    pub fn output(&self, index: usize) -> Option<&DeviceBuffer> {
        self.outputs.get(index)
    }

    /// Starts a batch. What the last one left under way is waited for.
    ///
    /// # Errors
    /// If the context is lost or gone, or the last batch failed only now.
    pub fn begin(&mut self) -> Result<Run<'_, '_>, CudaError> {
        self.lane.settle()?;
        // An engine may still read what the next gather writes, where the last batch was given up.
        self.lane.wait(&self.computed)?;
        Ok(Run::new(self))
    }

    /// Captures a whole batch: gather of every input, the making of those in `made` of their pixels, what `enqueue`
    /// enqueues in the lane, scatter of every output. Where pieces lie is read from a table when the graph runs, so one
    /// graph serves all batches of one size; see [`Run::replay`].
    ///
    /// # Errors
    /// What `enqueue` returns, or the driver's refusal to record something of it. The slot is as before then.
    pub fn capture<E: From<CudaError>>(
        &mut self,
        made: &[NormalizeInput],
        enqueue: impl FnOnce(&mut Lane, &[DeviceBuffer], &[DeviceBuffer]) -> Result<(), E>,
    ) -> Result<BatchGraph, E> {
        captured::capture(self, made, enqueue)
    }

    /// Takes a tensor for a use of the run at hand.
    fn take(&mut self, tensor: usize, wanted: TensorUse) -> Result<(), CudaError> {
        let inputs = self.inputs.len();
        let Some(used) = self.uses.get_mut(tensor) else {
            return Ok(()); // refused where its buffer is looked up
        };
        if *used == TensorUse::None {
            *used = wanted;
            return Ok(());
        }
        let (what, index) = name(tensor, inputs);
        Err(CudaError::Arguments {
            reason: format!("{what} {index} is copied twice in one run"),
        })
    }

    /// First byte of a tensor's section of the table. Inputs come first.
    fn section(&self, tensor: usize) -> usize {
        tensor * self.spec.pieces_max * ROW_BYTES
    }
}

/// What an input is gathered in: memory for its pixels, or else its own.
fn gathered<'b>(
    inputs: &'b [DeviceBuffer],
    pixels: &'b [Option<DeviceBuffer>],
    input: usize,
) -> Result<&'b DeviceBuffer, CudaError> {
    match pixels.get(input) {
        Some(Some(pixels)) => Ok(pixels),
        _ => run::tensor(inputs, "input", input),
    }
}

/// What a tensor is called, of a slot with so many inputs.
fn name(tensor: usize, inputs: usize) -> (&'static str, usize) {
    match tensor.checked_sub(inputs) {
        None => ("input", tensor),
        Some(output) => ("output", output),
    }
}

/// The slots of one instance, taken in turn.
#[derive(Debug)]
pub struct BatchSlots {
    slots: Vec<Mutex<BatchSlot>>,
    turn: AtomicUsize,
}

impl BatchSlots {
    /// `count` slots for batches of `spec`; 2 let one batch be copied while another is computed.
    ///
    /// # Errors
    /// If the device has no room ([`CudaError::is_out_of_memory`]).
    pub fn new(transfers: &Transfers, spec: &SlotSpec, count: usize) -> Result<Self, CudaError> {
        let slots: Result<_, CudaError> = (0..count.max(1))
            .map(|_| BatchSlot::new(transfers, spec.clone()).map(Mutex::new))
            .collect();
        Ok(Self {
            slots: slots?,
            turn: AtomicUsize::new(0),
        })
    }

    /// A free slot; waits for the one whose turn it is if there is none.
    pub fn acquire(&self) -> MutexGuard<'_, BatchSlot> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.slots.len();
        let (before, from) = self.slots.split_at(turn);
        from.iter()
            .chain(before)
            .find_map(Mutex::try_lock)
            .unwrap_or_else(|| self.slots[turn].lock())
    }
}
