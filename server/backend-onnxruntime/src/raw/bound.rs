//! One input or output of a request: the engine's value for it, and the memory that it fits.

use std::ptr;

use adjoin_backend::{ExecuteError, Input, Output, strings};
use adjoin_schema::{DataType, Shape, element_count};
#[cfg(feature = "cuda")]
use adjoin_shm::MemfdError;
use adjoin_shm::{AlignedBuffer, Payload, PayloadMut};
use ort::sys;

use super::runner::Runner;
use super::value::Value;
use crate::instance::failed;

/// Where a value's elements are and how they are laid out. An address to compare, never to follow.
#[derive(Debug)]
pub(super) struct Extent {
    address: usize,
    byte_size: usize,
    dtype: DataType,
    shape: Shape,
}

#[derive(Debug)]
pub(super) enum BoundInput {
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
pub(super) enum BoundOutput {
    Bound {
        extent: Extent,
        value: Value,
    },
    /// Is an input. The engine leaves the memory of such an output as it was and reports no error, so it
    /// is not asked for it.
    HandedOut {
        extent: Extent,
        input: usize,
    },
    Unbound,
    Skipped,
}

impl BoundInput {
    pub(super) fn new(runner: &Runner, input: &Input<'_>) -> Result<Self, ExecuteError> {
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

    pub(super) fn value(&self) -> &Value {
        match self {
            Self::InPlace { value, .. } | Self::Truth { value, .. } | Self::Strings { value } => {
                value
            }
        }
    }

    pub(super) fn is_in_place(&self) -> bool {
        matches!(self, Self::InPlace { .. })
    }

    /// Whether this is good for more than one run.
    pub(super) fn can_be_kept(&self) -> bool {
        !matches!(self, Self::Strings { .. })
    }

    /// Brings a copy up to date with an input that fits.
    pub(super) fn refresh(&mut self, input: &Input<'_>) {
        if let Self::Truth { copy, .. } = self {
            copy_truth(input.payload, copy);
        }
    }

    pub(super) fn fits(&self, input: &Input<'_>) -> bool {
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
    pub(super) fn new(
        runner: &Runner,
        output: &mut Output<'_>,
        handed_out: Option<usize>,
    ) -> Result<Self, ExecuteError> {
        let (dtype, shape, payload) = match output {
            Output::Bound {
                dtype,
                shape,
                payload,
            } => (*dtype, *shape, payload),
            Output::Unbound => return Ok(Self::Unbound),
            Output::Skipped => return Ok(Self::Skipped),
            Output::Pieces { .. } => {
                let reason = "an output is wanted in pieces".to_owned();
                return Err(ExecuteError::Mismatch { reason });
            }
        };
        if dtype == DataType::Bytes {
            let reason = "an output of strings has a size only after the run".to_owned();
            return Err(ExecuteError::Mismatch { reason });
        }
        let (start, byte_size) = (payload.as_mut_ptr(), payload.byte_size());
        let extent = Extent::new(start, byte_size, dtype, shape);
        if let Some(input) = handed_out {
            return Ok(Self::HandedOut { extent, input });
        }
        let value = Value::over(runner.memory(), start, byte_size, dtype, shape).map_err(failed)?;
        Ok(Self::Bound { extent, value })
    }

    /// What the engine gets for this: a value, null for one that it is to make, or nothing.
    pub(super) fn asked_for(&self) -> Option<*mut sys::OrtValue> {
        match self {
            Self::Bound { value, .. } => Some(value.as_ptr()),
            Self::Unbound => Some(ptr::null_mut()),
            Self::HandedOut { .. } | Self::Skipped => None,
        }
    }

    pub(super) fn handed_out(&self) -> Option<usize> {
        match self {
            Self::HandedOut { input, .. } => Some(*input),
            _ => None,
        }
    }

    pub(super) fn fits(&self, output: &mut Output<'_>) -> bool {
        match (self, output) {
            (
                Self::Bound { extent, .. } | Self::HandedOut { extent, .. },
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
    let mut copy = copy.payload_mut(payload.byte_size());
    payload.copy_to(&mut copy);
    make_truth(copy);
}

/// Brings all pieces of an input of truth values together at the start of `copy`, which grows to their size.
#[cfg(feature = "cuda")]
pub(crate) fn gather_truth(input: &Input<'_>, copy: &mut AlignedBuffer) -> Result<(), MemfdError> {
    let byte_size = input.byte_size();
    copy.reserve(byte_size)?;
    let mut rest = copy.payload_mut(byte_size);
    for piece in input.pieces() {
        let (mut room, behind) = rest.split_at(piece.byte_size());
        piece.copy_to(&mut room);
        rest = behind;
    }
    make_truth(copy.payload_mut(byte_size));
    Ok(())
}

/// Makes bytes of private memory truth values: 0 stays, all others become 1.
fn make_truth(mut copy: PayloadMut<'_>) {
    let byte_size = copy.byte_size();
    // SAFETY: private memory of that size, borrowed exclusively through `copy`; no run is under way that
    // could read it.
    let bytes = unsafe { std::slice::from_raw_parts_mut(copy.as_mut_ptr(), byte_size) };
    for byte in bytes {
        *byte = u8::from(*byte != 0);
    }
}
