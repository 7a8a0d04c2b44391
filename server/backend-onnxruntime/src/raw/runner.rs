//! Running a batch.

use std::fmt;
use std::sync::Arc;

use adjoin_backend::{Copied, ExecuteError, Input, ModelMetadata, Output, OutputSink};
use adjoin_schema::DataType;
use adjoin_shm::{Payload, PayloadMut};
use ort::AsPointer;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{NoSelectedOutputs, RunOptions, Session};
use smallvec::SmallVec;

use super::binding::{Arrays, FEW, Ready};
use super::names::Names;
use super::outcome;
use super::value::Value;
use crate::instance::failed;

/// A session with all that its runs have in common.
pub(crate) struct Runner {
    session: Session,
    memory: MemoryInfo<'static>,
    /// Without any, the engine would make some for every run.
    options: RunOptions<NoSelectedOutputs>,
    names: Arc<Names>,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl Runner {
    pub(crate) fn new(session: Session, metadata: &ModelMetadata) -> ort::Result<Self> {
        Ok(Self {
            session,
            memory: MemoryInfo::new(
                AllocationDevice::CPU,
                0,
                AllocatorType::Device,
                MemoryType::Default,
            )?,
            options: RunOptions::new()?,
            names: Arc::new(Names::of(metadata)?),
        })
    }

    pub(super) fn memory(&self) -> &MemoryInfo<'static> {
        &self.memory
    }

    pub(super) fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// Runs a batch and hands unbound outputs to `sink`.
    ///
    /// # Errors
    /// What the engine reports; or the sink's first refusal, after all outputs were offered to it.
    pub(crate) fn run(
        &mut self,
        ready: Ready<'_, '_, '_>,
        sink: &mut dyn OutputSink,
    ) -> Result<Copied, ExecuteError> {
        let Ready { binding, execution } = ready;
        let mut copied = Copied {
            input_bytes: binding.copied_input_bytes,
            ..Copied::default()
        };
        let ran = self.call(&binding.names, &mut binding.arrays);
        let made = take_made(&mut binding.arrays);
        ran.map_err(failed)?;

        let inputs = execution.inputs;
        for (index, output) in execution.outputs.iter_mut().enumerate() {
            if let (Output::Bound { payload, .. }, Some(input)) =
                (output, binding.handed_out(index))
            {
                copied.output_bytes += hand_out(&inputs[input], index, payload)?;
            }
        }
        let mut result = Ok(());
        for (index, value) in &made {
            match deliver(value.as_ref(), *index, inputs, sink) {
                Ok(output_bytes) => copied.output_bytes += output_bytes,
                // A sink without room for one output may have room for the next.
                Err(error) => result = result.and(Err(error)),
            }
        }
        result.map(|()| copied)
    }

    /// `arrays` must be those of a [`Ready`].
    // A call of its own, so that its instructions can be counted (`benches/instructions.py`).
    #[inline(never)]
    fn call(&mut self, names: &Names, arrays: &mut Arrays) -> ort::Result<()> {
        // The engine refuses a run without outputs.
        if arrays.wanted.is_empty() {
            return Ok(());
        }
        // SAFETY: `&mut self` keeps a second run of the session away, and `arrays` are those of a `Ready`, which proves that
        // the memory below inputs and bound outputs is that of the execution: valid for its payloads' lives and so until
        // after the run, with sizes that `Execution::check` and the engine checked against the shapes; bound outputs are
        // exclusive. A client may write below the inputs meanwhile: inputs whose values could steer memory accesses are
        // private copies (`InputAccess`).
        unsafe { run_session(&self.session, &self.options, names, arrays) }
    }
}

/// Runs a session on values. For a session on the processor the work is done when this returns.
///
/// # Safety
/// - No other run of the session may be under way in another thread.
/// - `arrays` must have a value for each name of an input, and as many names and places of outputs as `wanted`, all of
///   values and names that live until this returns.
/// - The memory below the values must be valid for reads, and for writes below outputs, until the work is done.
#[inline(always)]
pub(super) unsafe fn run_session(
    session: &Session,
    options: &RunOptions<NoSelectedOutputs>,
    names: &Names,
    arrays: &mut Arrays,
) -> ort::Result<()> {
    // SAFETY:
    // - session and options are alive;
    // - the caller's promises for values, names and memory; names end with a zero byte;
    // - where an output is null, a value that is ours to release is written.
    let status = unsafe {
        (ort::api().Run)(
            session.ptr().cast_mut(),
            options.ptr(),
            names.inputs.pointers().as_ptr(),
            arrays.inputs.as_ptr(),
            arrays.inputs.len(),
            arrays.output_names.as_ptr(),
            arrays.wanted.len(),
            arrays.outputs.as_mut_ptr(),
        )
    };
    outcome(status)
}

/// The values that the engine has made in the places that were null, with the numbers of their outputs.
/// Taken after a failure too, so that none is lost.
pub(super) fn take_made(arrays: &mut Arrays) -> SmallVec<[(usize, Option<Value>); FEW]> {
    let Arrays {
        wanted,
        unbound,
        outputs,
        ..
    } = arrays;
    let take = |&place: &usize| {
        let pointer = std::mem::replace(&mut outputs[place], std::ptr::null_mut());
        // SAFETY: null, or made by the run for the caller, and taken out of the array.
        (wanted[place], unsafe { Value::from_raw(pointer) })
    };
    unbound.iter().map(take).collect()
}

/// Copies an input to the room of the output that it is. Returns the bytes that were copied.
fn hand_out(
    input: &Input<'_>,
    index: usize,
    room: &mut PayloadMut<'_>,
) -> Result<u64, ExecuteError> {
    if input.payload.byte_size() != room.byte_size() {
        return Err(failed(format!(
            "output {index} is an input of another size"
        )));
    }
    input.payload.copy_to(room);
    Ok(room.byte_size() as u64)
}

/// Hands an output to the sink. Returns the bytes that were copied for that.
pub(super) fn deliver(
    value: Option<&Value>,
    index: usize,
    inputs: &[Input<'_>],
    sink: &mut dyn OutputSink,
) -> Result<u64, ExecuteError> {
    let value = value.ok_or_else(|| failed(format!("it gave no output {index}")))?;
    let (dtype, shape) = value.describe().map_err(failed)?;
    if dtype == DataType::Bytes {
        let payload = value.read_strings(&shape).map_err(failed)?;
        sink.accept(index, dtype, &shape, Payload::from_slice(&payload))?;
        return Ok(payload.len() as u64);
    }
    let byte_size = dtype.byte_size(&shape).map_err(failed)?;
    let byte_size = byte_size.and_then(|size| usize::try_from(size).ok());
    let byte_size = byte_size.ok_or_else(|| failed("a result is too large"))?;
    let start = value.start().map_err(failed)?;
    // SAFETY: the elements of `value`, which is there until the sink has returned; type and shape are its
    // own.
    let payload = unsafe { result_at(start, byte_size, inputs) };
    sink.accept(index, dtype, &shape, payload)?;
    Ok(0)
}

/// The elements of a result. They are in the engine's memory, except where the model hands an input out
/// as it is: then they lie where the client may be writing, over which there must be no slice.
///
/// # Safety
/// `start` must be where `byte_size` bytes of elements of a value lie, which is not released as long as
/// the payload is used, and either inside of one of `inputs` or in memory of the engine's.
unsafe fn result_at<'a>(start: *const u8, byte_size: usize, inputs: &[Input<'a>]) -> Payload<'a> {
    // The address of an empty result may be null.
    if byte_size == 0 {
        return Payload::from_slice(&[]);
    }
    for input in inputs {
        let at = start.addr().wrapping_sub(input.payload.as_ptr().addr());
        if let Some(part) = input.payload.part(at, byte_size) {
            return part;
        }
    }
    // SAFETY: the caller's promise; the run is over, so nobody writes there.
    Payload::from_slice(unsafe { std::slice::from_raw_parts(start, byte_size) })
}
