//! Outputs of an answered request, read where the server wrote them.

use std::ffi::{CString, c_char, c_void};
use std::ptr;

use adjoin_client::{InferError, Outputs, Stats, TensorError};

use crate::call::{Out, ask, text};
use crate::dtype::{self, AdjoinDtype, RawDtype};
use crate::error::{AdjoinError, c_text};
use crate::failure::Failure;
use crate::request::{AdjoinRequest, Held, Place, Stage, find, with_held};
use crate::status::AdjoinStatus;

/// An output, where the server wrote it. All pointers are there until the request is submitted
/// again, its outputs are released, or it is freed.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct AdjoinOutput {
    /// Its name.
    pub name: *const c_char,
    /// Type of the elements.
    pub dtype: AdjoinDtype,
    /// How many dimensions.
    pub rank: usize,
    /// Dimensions, outermost first.
    pub shape: *const i64,
    /// The elements, row by row, aligned to 64 bytes. The memory is mapped read-only.
    pub data: *const c_void,
    /// Bytes of the elements.
    pub byte_size: usize,
}

/// How a request ran.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct AdjoinStats {
    /// From the server's intake to the start of the batch, in ns.
    pub queue_ns: u64,
    /// Time of the batch in the engine, in ns.
    pub execute_ns: u64,
    /// The model version that ran.
    pub model_version: u64,
    /// Rows of the batch that the request ran in.
    pub batch_size: u32,
    /// Whether the server copied the outputs once, because their size was not known before.
    pub is_output_copied: bool,
}

impl From<Stats> for AdjoinStats {
    fn from(stats: Stats) -> Self {
        let ns =
            |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self {
            queue_ns: ns(stats.queue),
            execute_ns: ns(stats.execute),
            model_version: stats.model_version,
            batch_size: stats.batch_size,
            is_output_copied: stats.is_output_copied,
        }
    }
}

impl Stage {
    fn outputs(&self) -> Result<Outputs<'_>, Failure> {
        match self {
            Self::Answered(_, lease) => Ok(lease.outputs()),
            Self::Idle(_) => Err(Failure::state("the request has no outputs; run it first")),
            Self::InFlight(_) => Err(Failure::state(
                "the request has no outputs yet; wait for it first",
            )),
            Self::Lost => Err(InferError::Forked.into()),
        }
    }
}

impl Held {
    fn index_of_output(&self, name: &str) -> Result<usize, Failure> {
        let outputs = self.stage.outputs()?;
        let names = || outputs.iter().map(|output| output.name.as_bytes());
        find(names, name, "output", AdjoinStatus::OutputUnknown)
    }

    fn output(&mut self, index: usize, dtype: RawDtype) -> Result<AdjoinOutput, Failure> {
        let outputs = self.stage.outputs()?;
        let count = outputs.iter().len();
        let past_end = || TensorError::IndexOutOfRange { index, count };
        let info = outputs.output_at(index).ok_or_else(past_end)?;
        dtype::check(info.name, info.dtype, dtype)?;
        let bytes = outputs.bytes_at(index)?;
        Ok(AdjoinOutput {
            name: self.output_names.at(index, info.name),
            dtype: info.dtype.into(),
            rank: info.shape.len(),
            shape: info.shape.as_ptr(),
            data: bytes.as_ptr().cast(),
            byte_size: bytes.len(),
        })
    }
}

/// Names of outputs in C's terms. They are the same run after run, so they are kept.
#[derive(Debug, Default)]
pub(crate) struct Names(Vec<CString>);

impl Names {
    fn at(&mut self, index: usize, name: &str) -> *const c_char {
        if self.0.len() <= index {
            self.0.resize_with(index + 1, CString::default);
        }
        let kept = &mut self.0[index];
        if kept.to_bytes() != name.as_bytes() {
            *kept = c_text(name);
        }
        kept.as_ptr()
    }
}

/// How many outputs the request has; 0 if it is not answered, or of NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_request_output_count(request: *const AdjoinRequest) -> usize {
    let count = |place: &Place| {
        let held = place.hold().ok()?;
        held.stage
            .outputs()
            .ok()
            .map(|outputs| outputs.iter().len())
    };
    // SAFETY: passed on.
    unsafe { ask(request, None, count) }.unwrap_or(0)
}

/// Writes to `output` what the output of that name is, and where.
///
/// `dtype` is the type of the elements that the caller is going to read: another one than the
/// output's is ADJOIN_STATUS_DATA_TYPE_MISMATCH; ADJOIN_DTYPE_ANY asks for no check. If the request
/// is not answered, the call fails with ADJOIN_STATUS_WRONG_STATE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_request_output(
    request: *const AdjoinRequest,
    name: *const c_char,
    dtype: RawDtype,
    output: *mut AdjoinOutput,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    // SAFETY: text of the caller's.
    let named = |held: &Held| held.index_of_output(unsafe { text(name, "name") }?);
    // SAFETY: passed on.
    unsafe { output_by(request, named, dtype, output, error) }
}

/// As adjoin_request_output, by the order in which the outputs were named to the builder, or the
/// model's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_request_output_at(
    request: *const AdjoinRequest,
    index: usize,
    dtype: RawDtype,
    output: *mut AdjoinOutput,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    // SAFETY: passed on.
    unsafe { output_by(request, |_: &Held| Ok(index), dtype, output, error) }
}

/// # Safety
/// As the header says of handles, places and error objects.
unsafe fn output_by(
    request: *const AdjoinRequest,
    index: impl FnOnce(&Held) -> Result<usize, Failure>,
    dtype: RawDtype,
    output: *mut AdjoinOutput,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let look = |held: &mut Held| {
        let nothing = AdjoinOutput {
            name: ptr::null(),
            dtype: AdjoinDtype::Any,
            rank: 0,
            shape: ptr::null(),
            data: ptr::null(),
            byte_size: 0,
        };
        // SAFETY: a place of the caller's.
        let out = unsafe { Out::new(output, "output", nothing) }?;
        let index = index(held)?;
        out.set(held.output(index, dtype)?);
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { with_held(request, error, look) }
}

/// Writes to `stats` how the request ran.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_request_stats(
    request: *const AdjoinRequest,
    stats: *mut AdjoinStats,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let look = |held: &mut Held| {
        // SAFETY: a place of the caller's.
        let out = unsafe { Out::new(stats, "stats", AdjoinStats::default()) }?;
        out.set(held.stage.outputs()?.stats().into());
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { with_held(request, error, look) }
}
