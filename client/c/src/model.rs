//! Models: what a server says about them.

use std::ffi::{CString, c_char};
use std::ptr;

use adjoin_client::{DataType, Model, TensorSpec};

use crate::call::{Out, ask, call, free, text};
use crate::client::AdjoinClient;
use crate::dtype::AdjoinDtype;
use crate::error::{AdjoinError, c_text};
use crate::failure::Failure;
use crate::handle::{self, Handle};
use crate::status::AdjoinStatus;

/// A model as the server described it when it was asked. Any number of threads at a time.
#[derive(Debug)]
pub struct AdjoinModel {
    _opaque: [u8; 0],
}

/// What a model takes or gives. The pointers are there for as long as the model.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct AdjoinSpec {
    /// Name of the input or output.
    pub name: *const c_char,
    /// Type of the elements.
    pub dtype: AdjoinDtype,
    /// How many dimensions.
    pub rank: usize,
    /// Dimensions, outermost first; -1 where the request decides.
    pub shape: *const i64,
    /// A name for each dimension, empty where it has none.
    pub dimension_names: *const *const c_char,
}

/// A model, and its description in C's terms.
#[derive(Debug)]
pub struct Described {
    pub(crate) model: Model,
    name: CString,
    engine: CString,
    inputs: Vec<Spec>,
    outputs: Vec<Spec>,
}

/// Owner of what an [`AdjoinSpec`] points at.
#[derive(Debug)]
struct Spec {
    name: CString,
    dtype: DataType,
    shape: Vec<i64>,
    dimension_names: Vec<*const c_char>,
    #[expect(dead_code, reason = "owns what `dimension_names` points at")]
    dimension_texts: Vec<CString>,
}

impl Spec {
    fn new(spec: &TensorSpec) -> Self {
        let text = |index| spec.dimension_names.get(index).map_or("", String::as_str);
        let texts: Vec<CString> = (0..spec.shape.len()).map(|i| c_text(text(i))).collect();
        Self {
            name: c_text(&spec.name),
            dtype: spec.dtype,
            shape: spec.shape.to_vec(),
            dimension_names: texts.iter().map(|text| text.as_ptr()).collect(),
            dimension_texts: texts,
        }
    }

    fn view(&self) -> AdjoinSpec {
        AdjoinSpec {
            name: self.name.as_ptr(),
            dtype: self.dtype.into(),
            rank: self.shape.len(),
            shape: self.shape.as_ptr(),
            dimension_names: self.dimension_names.as_ptr(),
        }
    }
}

impl Handle for AdjoinModel {
    type Value = Described;
    const NAME: &'static str = "model";
    const TAG: [u8; 8] = *b"model   ";
}

fn describe(model: Model) -> *mut AdjoinModel {
    let info = model.info();
    let specs = |specs: &[TensorSpec]| specs.iter().map(Spec::new).collect();
    handle::give(Described {
        name: c_text(&info.model),
        engine: c_text(&info.engine),
        inputs: specs(&info.inputs),
        outputs: specs(&info.outputs),
        model,
    })
}

/// Asks the server for a model: its newest ready version. Writes a model to `model`, to be freed
/// with adjoin_model_free; NULL if the call fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_client_model(
    client: *const AdjoinClient,
    name: *const c_char,
    model: *mut *mut AdjoinModel,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let body = || {
        // SAFETY: a place of the caller's.
        let out = unsafe { Out::new(model, "model", ptr::null_mut()) }?;
        // SAFETY: a client of the caller's.
        let client = unsafe { handle::shared(client) }?;
        // SAFETY: text of the caller's.
        let name = unsafe { text(name, "name") }?;
        out.set(describe(client.model(name)?));
        Ok(())
    };
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}

/// The same model with all requests for one version. Writes a model of its own to `versioned`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_model_with_version(
    model: *const AdjoinModel,
    version: u64,
    versioned: *mut *mut AdjoinModel,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let body = || {
        // SAFETY: a place of the caller's.
        let out = unsafe { Out::new(versioned, "versioned", ptr::null_mut()) }?;
        // SAFETY: a model of the caller's.
        let described = unsafe { handle::shared(model) }?;
        out.set(describe(described.model.version(version)?));
        Ok(())
    };
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}

/// The same model with all requests for the version that the server's operator labelled so, such as
/// "stable"; the server looks the label up for every request. Writes a model of its own to
/// `labelled`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_model_with_label(
    model: *const AdjoinModel,
    label: *const c_char,
    labelled: *mut *mut AdjoinModel,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    let body = || {
        // SAFETY: a place of the caller's.
        let out = unsafe { Out::new(labelled, "labelled", ptr::null_mut()) }?;
        // SAFETY: a model of the caller's.
        let described = unsafe { handle::shared(model) }?;
        // SAFETY: text of the caller's.
        let label = unsafe { text(label, "label") }?;
        out.set(describe(described.model.label(label)?));
        Ok(())
    };
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}

/// Frees a model. Requests made from it go on. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_model_free(model: *mut AdjoinModel) {
    // SAFETY: the caller gives the model up.
    unsafe { free(model) };
}

/// Name of the model; NULL of NULL. It is there for as long as the model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_model_name(model: *const AdjoinModel) -> *const c_char {
    // SAFETY: passed on.
    unsafe { ask(model, ptr::null(), |described| described.name.as_ptr()) }
}

/// Name of the engine that runs the model; NULL of NULL. It is there for as long as the model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_model_engine(model: *const AdjoinModel) -> *const c_char {
    // SAFETY: passed on.
    unsafe { ask(model, ptr::null(), |described| described.engine.as_ptr()) }
}

/// The version that is described; 0 of NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_model_version(model: *const AdjoinModel) -> u64 {
    // SAFETY: passed on.
    unsafe { ask(model, 0, |described| described.model.info().version) }
}

/// Most rows of one execution; 0 if requests are never batched, or of NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_model_max_batch_size(model: *const AdjoinModel) -> u32 {
    // SAFETY: passed on.
    unsafe { ask(model, 0, |described| described.model.info().max_batch_size) }
}

/// All versions that are ready, ascending. Writes how many to `count`, which may not be NULL. They
/// are there for as long as the model; NULL of NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_model_ready_versions(
    model: *const AdjoinModel,
    count: *mut usize,
) -> *const u64 {
    let versions = |described: &Described| {
        let versions = &described.model.info().ready_versions;
        // SAFETY: a place of the caller's.
        match unsafe { Out::new(count, "count", versions.len()) } {
            Ok(_) => versions.as_ptr(),
            Err(_) => ptr::null(),
        }
    };
    // SAFETY: passed on.
    unsafe { ask(model, ptr::null(), versions) }
}

/// How many inputs the model has; 0 of NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_model_input_count(model: *const AdjoinModel) -> usize {
    // SAFETY: passed on.
    unsafe { ask(model, 0, |described| described.inputs.len()) }
}

/// How many outputs the model has; 0 of NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_model_output_count(model: *const AdjoinModel) -> usize {
    // SAFETY: passed on.
    unsafe { ask(model, 0, |described| described.outputs.len()) }
}

/// Writes what an input is to `spec`, by the model's order.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_model_input(
    model: *const AdjoinModel,
    index: usize,
    spec: *mut AdjoinSpec,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    // SAFETY: passed on.
    unsafe {
        spec_of(model, index, spec, error, "inputs", |described| {
            &described.inputs
        })
    }
}

/// Writes what an output is to `spec`, by the model's order.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adjoin_model_output(
    model: *const AdjoinModel,
    index: usize,
    spec: *mut AdjoinSpec,
    error: *mut AdjoinError,
) -> AdjoinStatus {
    // SAFETY: passed on.
    unsafe {
        spec_of(model, index, spec, error, "outputs", |described| {
            &described.outputs
        })
    }
}

/// # Safety
/// As the header says of handles, places and error objects.
unsafe fn spec_of(
    model: *const AdjoinModel,
    index: usize,
    spec: *mut AdjoinSpec,
    error: *mut AdjoinError,
    what: &str,
    specs: impl FnOnce(&Described) -> &[Spec],
) -> AdjoinStatus {
    let body = || {
        let nothing = AdjoinSpec {
            name: ptr::null(),
            dtype: AdjoinDtype::Any,
            rank: 0,
            shape: ptr::null(),
            dimension_names: ptr::null(),
        };
        // SAFETY: a place of the caller's.
        let out = unsafe { Out::new(spec, "spec", nothing) }?;
        // SAFETY: a model of the caller's.
        let specs = specs(unsafe { handle::shared(model) }?);
        let count = specs.len();
        let past_end = || Failure::argument(format!("index {index} of {count} {what}"));
        out.set(specs.get(index).ok_or_else(past_end)?.view());
        Ok(())
    };
    // SAFETY: an error object of the caller's.
    unsafe { call(error, body) }
}
