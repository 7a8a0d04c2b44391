//! The engine's values for one request, and the proof that they lie over the memory of the batch at
//! hand.

use std::ffi::c_char;
use std::sync::Arc;

use adjoin_backend::{ExecuteError, Execution};
use ort::sys;
use smallvec::SmallVec;

use super::bound::{BoundInput, BoundOutput};
use super::names::Names;
use super::runner::Runner;

/// Most models have no more inputs or outputs than this; for them nothing here is on the heap.
pub(super) const FEW: usize = 4;

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
    /// The places in `outputs` that are null.
    pub(super) unbound: SmallVec<[usize; FEW]>,
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
        };
        for input in execution.inputs {
            let bound = BoundInput::new(runner, input)?;
            if !bound.is_in_place() {
                binding.copied_input_bytes += input.payload.byte_size() as u64;
            }
            binding.arrays.inputs.push(bound.value().as_ptr());
            binding.inputs.push(bound);
        }
        let outputs = execution.outputs.iter_mut().zip(names.outputs.pointers());
        for (index, (output, &name)) in outputs.enumerate() {
            let handed_out = names.handed_out.get(index).copied().flatten();
            let bound = BoundOutput::new(runner, output, handed_out)?;
            if let Some(value) = bound.asked_for() {
                if value.is_null() {
                    binding.arrays.unbound.push(binding.arrays.wanted.len());
                }
                binding.arrays.wanted.push(index);
                binding.arrays.output_names.push(name);
                binding.arrays.outputs.push(value);
            }
            binding.outputs.push(bound);
        }
        Ok(binding)
    }

    /// The input that is to be copied to the room of output `index`.
    pub(super) fn handed_out(&self, index: usize) -> Option<usize> {
        self.outputs.get(index).and_then(BoundOutput::handed_out)
    }

    /// Whether this can be run again.
    pub(crate) fn can_be_kept(&self) -> bool {
        self.inputs.iter().all(BoundInput::can_be_kept)
    }

    /// Proves that the values lie over exactly the memory of `execution`, and brings copies up to date.
    ///
    /// # Errors
    /// The execution comes back if they do not.
    pub(crate) fn ready<'b, 'e, 'a>(
        &'b mut self,
        execution: Execution<'e, 'a>,
    ) -> Result<Ready<'b, 'e, 'a>, Execution<'e, 'a>> {
        let fit = self.inputs.len() == execution.inputs.len()
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
            bound.refresh(input);
        }
        Ok(Ready {
            binding: self,
            execution,
        })
    }
}
