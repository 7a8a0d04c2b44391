//! A loaded model version.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use adjoin_backend::{InputAccess, Instance, LoadError, Model, ModelMetadata, ModelSource};
use adjoin_onnx_graph::{OnnxFile, OnnxModel};
use adjoin_schema::DataType;
use ort::ep::ExecutionProviderDispatch;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{AutoDevicePolicy, GraphOptimizationLevel, SessionBuilder};

use crate::NAME;
use crate::environment::Runtime;
use crate::instance::OnnxRuntimeInstance;

/// Where the engine looks for weights that are in files of their own, since it gets the model as bytes.
const WEIGHTS_DIRECTORY: &str = "session.model_external_initializers_file_folder_path";

#[derive(Debug)]
pub(crate) struct OnnxRuntimeModel {
    runtime: Runtime,
    source: ModelSource,
    description: OnnxModel,
    metadata: Arc<ModelMetadata>,
    /// Made while loading, which is how a damaged model is found; the first instance gets it.
    first: Mutex<Option<Session>>,
}

impl OnnxRuntimeModel {
    pub(crate) fn load(runtime: Runtime, source: &ModelSource) -> Result<Self, LoadError> {
        let OnnxFile { bytes, model } = OnnxFile::read(NAME, source)?;
        refuse_divisors(source, &model)?;
        let session = start_session(&runtime, source, &bytes, &[])?;
        check_names(source, &session, &model.metadata)?;
        let mut metadata = model.metadata.clone();
        for input in &mut metadata.inputs {
            // Copied here before the engine sees them, so a copy of the server's would be one too many.
            if matches!(input.dtype, DataType::Bool | DataType::Bytes) {
                input.access = InputAccess::InPlace;
            }
        }
        Ok(Self {
            runtime,
            source: source.clone(),
            description: model,
            metadata: Arc::new(metadata),
            first: Mutex::new(Some(session)),
        })
    }

    /// A further session, on the condition that the file still says what this model promises.
    fn further_session(&self) -> Result<Session, LoadError> {
        let OnnxFile { bytes, model } = OnnxFile::read(NAME, &self.source)?;
        if model != self.description {
            return Err(refused(
                &self.source,
                "the file has changed since it was loaded",
            ));
        }
        let session = start_session(&self.runtime, &self.source, &bytes, &[])?;
        check_names(&self.source, &session, &model.metadata)?;
        Ok(session)
    }
}

impl Model for OnnxRuntimeModel {
    fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        let first = self
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let session = match first {
            Some(session) => session,
            None => self.further_session()?,
        };
        let instance = OnnxRuntimeInstance::new(session, self.metadata.clone())
            .map_err(|error| refused(&self.source, error))?;
        Ok(Box::new(instance))
    }
}

pub(crate) fn refused(source: &ModelSource, reason: impl ToString) -> LoadError {
    LoadError::Refused {
        engine: NAME,
        path: source.path.clone(),
        reason: reason.to_string(),
    }
}

/// The engine divides integers with the processor's instruction, which ends the process for a divisor
/// of 0 (up to some release) and for -1 under the smallest number (in all that were tried). One client
/// would end the server for all, so such a model is not loaded.
pub(crate) fn refuse_divisors(source: &ModelSource, model: &OnnxModel) -> Result<(), LoadError> {
    match model.integer_divisors.first() {
        None => Ok(()),
        Some(name) => Err(refused(
            source,
            format!(
                "it divides integers by values of input {name:?}, and a request with a divisor of 0 or \
                 -1 can end the process; have the model cast to a float type before it divides"
            ),
        )),
    }
}

/// The engine's idea of what a request gives must be the one that the server goes by.
pub(crate) fn check_names(
    source: &ModelSource,
    session: &Session,
    metadata: &ModelMetadata,
) -> Result<(), LoadError> {
    let same = |seen: &[ort::value::Outlet], told: &[adjoin_backend::TensorMetadata]| {
        let names = told.iter().map(|tensor| tensor.name.as_str());
        seen.iter().map(|outlet| outlet.name()).eq(names)
    };
    if same(session.inputs(), &metadata.inputs) && same(session.outputs(), &metadata.outputs) {
        return Ok(());
    }
    Err(refused(
        source,
        "the engine finds other inputs or outputs in it than the file lists",
    ))
}

/// A session whose nodes run on `providers`, the most preferred first, and otherwise on the processor.
pub(crate) fn start_session(
    runtime: &Runtime,
    source: &ModelSource,
    bytes: &[u8],
    providers: &[ExecutionProviderDispatch],
) -> Result<Session, LoadError> {
    let builder = builder(runtime, source).map_err(|error| refused(source, error))?;
    let mut builder = match providers {
        [] => builder,
        _ => builder
            .with_execution_providers(providers)
            .map_err(|error| {
                refused(
                    source,
                    format!(
                        "{error}; a model on a GPU needs ONNX Runtime's build for it, with its providers and the libraries                          that these name (docs/onnxruntime-gpu.md)"
                    ),
                )
            })?,
    };
    builder
        .commit_from_memory(bytes)
        .map_err(|error| refused(source, error))
}

fn builder(runtime: &Runtime, source: &ModelSource) -> ort::Result<SessionBuilder> {
    let directory = source
        .path
        .parent()
        .unwrap_or_else(|| Path::new(""))
        .to_string_lossy();
    let builder = Session::builder(&runtime.environment)?
        // `ort` would have the engine pick the most thrifty device there is.
        .with_auto_device(AutoDevicePolicy::PreferCPU)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_memory_pattern(true)?
        .with_intra_threads(source.intra_op_threads.max(1))?
        // Threads that spin between batches would take the cores from the clients.
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        .with_log_level(LogLevel::Fatal)?;
    if directory.is_empty() {
        return Ok(builder);
    }
    Ok(builder.with_config_entry(WEIGHTS_DIRECTORY, &directory)?)
}
