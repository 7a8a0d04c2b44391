//! The engine's values for one request, and the proof that they lie over the memory of the batch at
//! hand.

use std::ffi::c_char;
use std::ptr;
use std::sync::Arc;

use adjoin_backend::{ExecuteError, Execution, Input, Output};
use adjoin_schema::{DataType, Shape, element_count};
use adjoin_shm::{AlignedBuffer, Payload};
use ort::sys;
use smallvec::SmallVec;

use super::names::Names;
use super::runner::Runner;
use super::value::Value;
use crate::instance::failed;
use crate::strings;

/// Most models have no more inputs or outputs than this; for them nothing here is on the heap.
const FEW: usize = 4;

/// Values for all inputs and bound outputs of one execution, and the arrays that the engine's `Run`
/// takes. Making one costs some hundred nanoseconds and running one again needs no allocation, so they
/// are kept under the server's keys.
#[derive(Debug)]
pub(crate) struct Binding {
    inputs: SmallVec<[BoundInput; FEW]>,
    /// One for each output of the model.
    outputs: SmallVec<[BoundOutput; FEW]>,
    pub(super) arrays: Arrays,
    /// What the arrays' names lead to.
    pub(super) names: Arc<Names>,
    /// Bytes that every run copies, or the making of this did.
    pub(super) copied_input_bytes: u64,
    /// The engine has put something else into the values than what they were made of.
    pub(super) is_spent: bool,
}

/// What `Run` takes. The values are owned by the binding's inputs and outputs.
#[derive(Debug, Default)]
pub(super) struct Arrays {
    pub(super) inputs: SmallVec<[*const sys::OrtValue; FEW]>,
    /// The model's number of each output that is wanted.
    pub(super) wanted: SmallVec<[usize; FEW]>,
    pub(super) output_names: SmallVec<[*const c_char; FEW]>,
    /// Null where the engine is to make the value.
    pub(super) outputs: SmallVec<[*mut sys::OrtValue; FEW]>,
}

// SAFETY: pointers to the values that the binding owns, which belong to no thread, and to names that it
// owns as well and nobody changes.
unsafe impl Send for Arrays {}

/// A binding over the memory of the execution beside it, which keeps that memory borrowed.
#[derive(Debug)]
pub(crate) struct Ready<'b, 'e, 'a> {
    pub(super) binding: &'b mut Binding,
    pub(super) execution: Execution<'e, 'a>,
}

/// Where a value's elements are and how they are laid out. An address to compare, never to follow.
#[derive(Debug)]
struct Extent {
    address: usize,
    byte_size: usize,
    dtype: DataType,
    shape: Shape,
}

#[derive(Debug)]
enum BoundInput {
    InPlace {
        extent: Extent,
        value: Value,
    },
    /// Truth values, each run copied to where all of them are made 0 or 1.
    Truth {
        shape: Shape,
        copy: AlignedBuffer,
        value: Value,
    },
    /// Copied by the making of the value, so good for one run.
    Strings {
        value: Value,
    },
}

#[derive(Debug)]
enum BoundOutput {
    Bound { extent: Extent, value: Value },
    Unbound,
    Skipped,
}

impl Binding {
    /// Values for an execution that has passed [`Execution::check`].
    ///
    /// # Errors
    /// If the engine cannot make one, or a string reaches past its payload.
    pub(crate) fn new(
        runner: &Runner,
        execution: &mut Execution<'_, '_>,
    ) -> Result<Self, ExecuteError> {
        let names = runner.names();
        if execution.inputs.len() != names.inputs.pointers().len()
            || execution.outputs.len() != names.outputs.pointers().len()
        {
            let reason = "not as many inputs or outputs as the model has".to_owned();
            return Err(ExecuteError::Mismatch { reason });
        }
        let mut binding = Self {
            inputs: SmallVec::new(),
            outputs: SmallVec::new(),
            arrays: Arrays::default(),
            names: names.clone(),
            copied_input_bytes: 0,
            is_spent: false,
        };
        for input in execution.inputs {
            let bound = BoundInput::new(runner, input)?;
            if !matches!(bound, BoundInput::InPlace { .. }) {
                binding.copied_input_bytes += input.payload.byte_size() as u64;
            }
            binding.arrays.inputs.push(bound.value().as_ptr());
            binding.inputs.push(bound);
        }
        let outputs = execution.outputs.iter_mut().zip(names.outputs.pointers());
        for (index, (output, &name)) in outputs.enumerate() {
            let bound = BoundOutput::new(runner, output)?;
            let value = match &bound {
                BoundOutput::Bound { value, .. } => Some(value.as_ptr()),
                BoundOutput::Unbound => Some(ptr::null_mut()),
                BoundOutput::Skipped => None,
            };
            if let Some(value) = value {
                binding.arrays.wanted.push(index);
                binding.arrays.output_names.push(name);
                binding.arrays.outputs.push(value);
            }
            binding.outputs.push(bound);
        }
        Ok(binding)
    }

    /// Whether this can be run again.
    pub(crate) fn can_be_kept(&self) -> bool {
        let has_strings = |input: &BoundInput| matches!(input, BoundInput::Strings { .. });
        !self.is_spent && !self.inputs.iter().any(has_strings)
    }

    /// Proves that the values lie over exactly the memory of `execution`, and brings copies up to date.
    ///
    /// # Errors
    /// The execution comes back if they do not.
    pub(crate) fn ready<'b, 'e, 'a>(
        &'b mut self,
        execution: Execution<'e, 'a>,
    ) -> Result<Ready<'b, 'e, 'a>, Execution<'e, 'a>> {
        let fit = !self.is_spent
            && self.inputs.len() == execution.inputs.len()
            && self.outputs.len() == execution.outputs.len()
            && self
                .inputs
                .iter()
                .zip(execution.inputs)
                .all(|(bound, input)| bound.fits(input))
            && self
                .outputs
                .iter()
                .zip(execution.outputs.iter_mut())
                .all(|(bound, output)| bound.fits(output));
        if !fit {
            return Err(execution);
        }
        for (bound, input) in self.inputs.iter_mut().zip(execution.inputs) {
            if let BoundInput::Truth { copy, .. } = bound {
                copy_truth(input.payload, copy);
            }
        }
        Ok(Ready {
            binding: self,
            execution,
        })
    }
}

impl BoundInput {
    fn new(runner: &Runner, input: &Input<'_>) -> Result<Self, ExecuteError> {
        let byte_size = input.payload.byte_size();
        match input.dtype {
            DataType::Bytes => {
                let count = element_count(input.shape).ok();
                let count = count.and_then(|count| usize::try_from(count).ok());
                let payload = input.payload.to_vec();
                let elements = strings::split(&payload, count.unwrap_or(usize::MAX))
                    .map_err(|reason| ExecuteError::Mismatch { reason })?;
                let value = Value::of_strings(input.shape, &elements).map_err(failed)?;
                Ok(Self::Strings { value })
            }
            DataType::Bool => {
                let mut copy = AlignedBuffer::new(byte_size).map_err(failed)?;
                let start = copy.payload_mut(byte_size).as_mut_ptr();
                let value =
                    Value::over(runner.memory(), start, byte_size, input.dtype, input.shape)
                        .map_err(failed)?;
                Ok(Self::Truth {
                    shape: input.shape.into(),
                    copy,
                    value,
                })
            }
            dtype => {
                // The engine's function takes memory for reading and writing alike; inputs it only reads.
                let start = input.payload.as_ptr().cast_mut();
                let value = Value::over(runner.memory(), start, byte_size, dtype, input.shape)
                    .map_err(failed)?;
                let extent = Extent::new(start, byte_size, dtype, input.shape);
                Ok(Self::InPlace { extent, value })
            }
        }
    }

    fn value(&self) -> &Value {
        match self {
            Self::InPlace { value, .. } | Self::Truth { value, .. } | Self::Strings { value } => {
                value
            }
        }
    }

    fn fits(&self, input: &Input<'_>) -> bool {
        let byte_size = input.payload.byte_size();
        match self {
            Self::InPlace { extent, .. } => {
                extent.is(input.payload.as_ptr(), byte_size, input.dtype, input.shape)
            }
            Self::Truth { shape, .. } => {
                // Shape and type make the size that `Execution::check` saw, so it is the same again only
                // if the caller kept its word; the copy below needs it to be.
                input.dtype == DataType::Bool
                    && shape.as_slice() == input.shape
                    && element_count(shape) == Ok(byte_size as u64)
            }
            // Made of this very execution, or never asked for again.
            Self::Strings { .. } => input.dtype == DataType::Bytes,
        }
    }
}

impl BoundOutput {
    fn new(runner: &Runner, output: &mut Output<'_>) -> Result<Self, ExecuteError> {
        let (dtype, shape, payload) = match output {
            Output::Bound {
                dtype,
                shape,
                payload,
            } => (*dtype, *shape, payload),
            Output::Unbound => return Ok(Self::Unbound),
            Output::Skipped => return Ok(Self::Skipped),
        };
        if dtype == DataType::Bytes {
            let reason = "an output of strings has a size only after the run".to_owned();
            return Err(ExecuteError::Mismatch { reason });
        }
        let (start, byte_size) = (payload.as_mut_ptr(), payload.byte_size());
        let value = Value::over(runner.memory(), start, byte_size, dtype, shape).map_err(failed)?;
        let extent = Extent::new(start, byte_size, dtype, shape);
        Ok(Self::Bound { extent, value })
    }

    fn fits(&self, output: &mut Output<'_>) -> bool {
        match (self, output) {
            (
                Self::Bound { extent, .. },
                Output::Bound {
                    dtype,
                    shape,
                    payload,
                },
            ) => extent.is(payload.as_mut_ptr(), payload.byte_size(), *dtype, shape),
            (Self::Unbound, Output::Unbound) | (Self::Skipped, Output::Skipped) => true,
            _ => false,
        }
    }
}

impl Extent {
    fn new(start: *const u8, byte_size: usize, dtype: DataType, shape: &[i64]) -> Self {
        Self {
            address: start.addr(),
            byte_size,
            dtype,
            shape: shape.into(),
        }
    }

    fn is(&self, start: *const u8, byte_size: usize, dtype: DataType, shape: &[i64]) -> bool {
        self.address == start.addr()
            && self.byte_size == byte_size
            && self.dtype == dtype
            && self.shape.as_slice() == shape
    }
}

/// A byte that is neither 0 nor 1 would be undefined behaviour in C++, and the client may write any.
fn copy_truth(payload: Payload<'_>, copy: &mut AlignedBuffer) {
    let byte_size = payload.byte_size();
    let mut copy = copy.payload_mut(byte_size);
    payload.copy_to(&mut copy);
    // SAFETY: private memory of that size, borrowed exclusively through `copy`; no run is under way that
    // could read it.
    let bytes = unsafe { std::slice::from_raw_parts_mut(copy.as_mut_ptr(), byte_size) };
    for byte in bytes {
        *byte = u8::from(*byte != 0);
    }
}
