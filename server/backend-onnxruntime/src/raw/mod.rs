//! The C API, where `ort` does not reach: all `unsafe` code of this crate.
//!
//! [`Library`] looks at a library before `ort` loads it. [`Value`](value::Value) owns one of the
//! engine's values. [`Binding`] holds the values of one request and can be run only as a
//! [`Ready`](binding::Ready), which proves that they lie over the memory of the batch at hand;
//! [`Runner`] runs it. A [`DeviceRunner`](device::DeviceRunner) runs a session on a device, over buffers there.

#![allow(
    unsafe_code,
    reason = "calls ONNX Runtime's C API with memory that a client may be writing"
)]

mod binding;
mod bound;
#[cfg(feature = "cuda")]
pub(crate) mod device;
mod library;
mod names;
mod runner;
mod value;

pub(crate) use binding::Binding;
#[cfg(feature = "cuda")]
pub(crate) use bound::gather_truth;
pub(crate) use library::Library;
pub(crate) use runner::Runner;

use ort::sys;

/// Makes an error of a status that the engine has just returned, and releases it.
fn outcome(status: sys::OrtStatusPtr) -> ort::Result<()> {
    // SAFETY: only this module calls this, with what a function of the API returned, once.
    unsafe { ort::Error::result_from_status(status) }
}
