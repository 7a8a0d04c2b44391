//! Building a request by shapes.

use std::ffi::c_char;
use std::ptr;

use adjoin_client::{Request, RequestBuilder, RequestError};

use crate::call::{Out, array, call, free, text};
use crate::error::AdjoinError;
use crate::failure::Failure;
use crate::handle::{self, Handle};
use crate::model::{AdjoinModel, Described};
use crate::request::AdjoinRequest;
use crate::status::AdjoinStatus;

/// A request that is being put together. It is not used up: what is built from it can be built
/// again. One thread at a time.
#[derive(Debug)]
pub struct AdjoinBuilder {
    _opaque: [u8; 0],
}

/// A builder, and the outputs that were named to it.
#[derive(Debug)]
pub struct Parts {
    builder: RequestBuilder,
    outputs: Vec<String>,
}

impl Handle for AdjoinBuilder {
    type Value = Parts;
    const NAME: &'static str = "builder";
    const TAG: [u8; 8] = *b"builder ";
}

impl Parts {
    fn build(&self) -> Result<Request, Failure> {
        let mut builder = self.builder.clone();
        if !self.outputs.is_empty() {
            let names: Vec<&str> = self.outputs.iter().map(String::as_str).collect();
            builder = builder.outputs(&names);
        }
        Ok(builder.build()?)
    }
}

/// Begins a request whose inputs have open dimensions, or of which some outputs are not wanted.
/// Writes a builder to `builder`, to be freed with adjoin_builder_free; NULL if the call fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_builder_new(
    model: *const AdjoinModel,
    builder: *mut *mut AdjoinBuilder,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let body = || {
        // SAFETY: a place of the caller's.
        let out = unsafe { Out::new(builder, "builder", ptr::null_mut()) }?;
        // SAFETY: a model of the caller's.
        let Described { model, .. } = unsafe { handle::shared(model) }?;
        out.set(handle::give(Parts {
            builder: model.request(),
            outputs: Vec::new(),
        }));
        Ok(())
    };
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}

/// Frees a builder. Requests that were built with it go on. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_builder_free(builder: *mut AdjoinBuilder) {
    // SAFETY: the caller gives the builder up.
    unsafe { free(builder) };
}

/// Adds an input with these `rank` dimensions, outermost first. Its data type is the model's. Every
/// input of the model has to be added, in any order.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_builder_input(
    builder: *mut AdjoinBuilder,
    name: *const c_char,
    shape: *const i64,
    rank: usize,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    // SAFETY: passed on.
    unsafe {
        add(builder, name, shape, rank, error, |builder, name, shape| {
            builder.input(name, shape)
        })
    }
}

/// Adds an input of strings (ADJOIN_DTYPE_BYTES), whose size does not follow from its shape:
/// `byte_size` bytes in all, see adjoin_bytes_size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_builder_bytes_input(
    builder: *mut AdjoinBuilder,
    name: *const c_char,
    shape: *const i64,
    rank: usize,
    byte_size: usize,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let input = |builder: RequestBuilder, name: &str, shape: &[i64]| {
        builder.input_with_bytes(name, shape, byte_size as u64)
    };
    // SAFETY: passed on.
    unsafe { add(builder, name, shape, rank, error, input) }
}

/// # Safety
/// As the header says of handles, text, arrays and error objects.
unsafe fn add(
    builder: *mut AdjoinBuilder,
    name: *const c_char,
    shape: *const i64,
    rank: usize,
    error: *mut AdjoinError,
    input: impl FnOnce(RequestBuilder, &str, &[i64]) -> Result<RequestBuilder, RequestError>,
) -> AdjoinStatus {
    let body = || {
        // SAFETY: a builder of the caller's, used by this thread alone.
        let parts = unsafe { handle::exclusive(builder) }?;
        // SAFETY: text of the caller's.
        let name = unsafe { text(name, "name") }?;
        // SAFETY: an array of the caller's.
        let shape = unsafe { array(shape, rank, "shape") }?;
        parts.builder = input(parts.builder.clone(), name, shape)?;
        Ok(())
    };
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}

/// Wants this output, and only those that are named so; without a call, all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_builder_output(
    builder: *mut AdjoinBuilder,
    name: *const c_char,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let body = || {
        // SAFETY: a builder of the caller's, used by this thread alone.
        let parts = unsafe { handle::exclusive(builder) }?;
        // SAFETY: text of the caller's.
        parts
            .outputs
            .push(unsafe { text(name, "name") }?.to_owned());
        Ok(())
    };
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}

/// Whether the server may keep the request in its checked form after the first submission, which
/// makes the later ones faster. Default true. The room for its outputs stays reserved then, for as
/// long as the request exists.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_builder_prepare(
    builder: *mut AdjoinBuilder,
    may_prepare: bool,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let body = || {
        // SAFETY: a builder of the caller's, used by this thread alone.
        let parts = unsafe { handle::exclusive(builder) }?;
        parts.builder = parts.builder.clone().prepare(may_prepare);
        Ok(())
    };
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}

/// Takes room for the inputs in shared memory. Writes a request to `request`, to be freed with
/// adjoin_request_free; NULL if the call fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_builder_build(
    builder: *const AdjoinBuilder,
    request: *mut *mut AdjoinRequest,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let body = || {
        // SAFETY: a place of the caller's.
        let out = unsafe { Out::new(request, "request", ptr::null_mut()) }?;
        // SAFETY: a builder of the caller's.
        let parts = unsafe { handle::shared(builder) }?;
        out.set(AdjoinRequest::give(parts.build()?));
        Ok(())
    };
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}

/// The short form for a model of which only the number of rows is open, the first dimension of its
/// inputs: all inputs with so many rows, all outputs. Writes a request to `request`, to be freed
/// with adjoin_request_free; NULL if the call fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_model_request(
    model: *const AdjoinModel,
    rows: u64,
    request: *mut *mut AdjoinRequest,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let body = || {
        // SAFETY: a place of the caller's.
        let out = unsafe { Out::new(request, "request", ptr::null_mut()) }?;
        // SAFETY: a model of the caller's.
        let Described { model, .. } = unsafe { handle::shared(model) }?;
        out.set(AdjoinRequest::give(model.request_batch(rows)?.build()?));
        Ok(())
    };
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}
