//! Running a batch.

use std::fmt;
use std::sync::Arc;

use adjoin_backend::{Copied, ExecuteError, Input, ModelMetadata, Output, OutputSink};
use adjoin_schema::DataType;
use adjoin_shm::{Payload, PayloadMut};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{NoSelectedOutputs, RunOptions, Session};
use ort::{AsPointer, sys};

use super::binding::{Arrays, Ready};
use super::names::Names;
use super::outcome;
use super::value::{Value, start_of};
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
        let mut copied = Copied {
            input_bytes: ready.binding.copied_input_bytes,
            output_bytes: 0,
        };
        // The engine refuses a run without outputs.
        if ready.binding.arrays.wanted.is_empty() {
            return Ok(copied);
        }
        let ran = self.call(&ready.binding.names, &mut ready.binding.arrays);
        let mut result = ran.map_err(failed);
        let inputs = ready.execution.inputs;
        let Arrays {
            wanted, outputs, ..
        } = &mut ready.binding.arrays;
        for (&index, slot) in wanted.iter().zip(outputs) {
            let settled = match &mut ready.execution.outputs[index] {
                Output::Bound { payload, .. } if result.is_ok() => {
                    // SAFETY: owned by the binding.
                    let moved = unsafe { fetch_moved(*slot, payload, inputs) };
                    ready.binding.is_spent |= !matches!(moved, Ok(0));
                    moved
                }
                Output::Unbound => {
                    let pointer = std::mem::replace(slot, std::ptr::null_mut());
                    // SAFETY: null, or made by the run above for the caller, and taken out of the array.
                    let value = unsafe { Value::from_raw(pointer) };
                    // A sink without room for one output may have room for the next.
                    match result {
                        Ok(()) | Err(ExecuteError::NoRoom(_)) => {
                            deliver(value.as_ref(), index, inputs, sink)
                        }
                        Err(_) => continue,
                    }
                }
                Output::Bound { .. } | Output::Skipped => continue,
            };
            match settled {
                Ok(output_bytes) => copied.output_bytes += output_bytes,
                Err(error) => result = result.and(Err(error)),
            }
        }
        result.map(|()| copied)
    }

    /// `arrays` must be those of a [`Ready`].
    fn call(&mut self, names: &Names, arrays: &mut Arrays) -> ort::Result<()> {
        // SAFETY:
        // - session and options are alive, and `&mut self` keeps a second run of the session away;
        // - `inputs` has a value for each of the names, and `output_names` and `outputs` are as long as
        //   `wanted`, as the binding made them; names end with a zero byte and live as long as `names`;
        // - every value is owned by the binding. The memory below inputs and bound outputs is that of the
        //   execution, as `Ready` proves, valid for its payloads' lives and so until after the run, with
        //   sizes that `Execution::check` and the engine checked against the shapes; bound outputs are
        //   exclusive;
        // - a client may write below the inputs meanwhile: inputs whose values could steer memory
        //   accesses are private copies (`InputAccess`);
        // - where an output is null, a value that is ours to release is written.
        let status = unsafe {
            (ort::api().Run)(
                self.session.ptr().cast_mut(),
                self.options.ptr(),
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
}

/// Copies a bound output from where the engine left it, if that is not where it was wanted. So it is
/// with an output that is one of the inputs: the engine does not write it, but puts the input's memory
/// into the value. Returns the bytes that were copied.
///
/// # Safety
/// `value` must not have been released, and its elements must be as many as `payload` has bytes.
unsafe fn fetch_moved(
    value: *mut sys::OrtValue,
    payload: &mut PayloadMut<'_>,
    inputs: &[Input<'_>],
) -> Result<u64, ExecuteError> {
    // SAFETY: the caller's promise.
    let start = unsafe { start_of(value) }.map_err(failed)?;
    if start == payload.as_mut_ptr() {
        return Ok(0);
    }
    let byte_size = payload.byte_size();
    // SAFETY: the elements of a live value; the engine has checked its shape against the payload's.
    let result = unsafe { result_at(start, byte_size, inputs) };
    result.copy_to(payload);
    Ok(byte_size as u64)
}

/// Hands an output to the sink. Returns the bytes that were copied for that.
fn deliver(
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
