//! From a file to a version that is ready: engine, instances, warm-up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adjoin_backend::{
    Backend, BackendError, InputAccess, LoadError, Model, ModelMetadata, ModelSource,
};
#[cfg(feature = "cuda")]
use adjoin_backend_onnxruntime::DeviceAccess;
use adjoin_backend_onnxruntime::OnnxRuntimeBackend;
use adjoin_backend_rten::RtenBackend;
use adjoin_input_transform::{TransformError, transformed};
use adjoin_schema::attach::{AttachMessage, ModelInfo};
use adjoin_schema::descriptor::response_descriptor_bytes;
use adjoin_schema::limits::{
    ATTACH_MESSAGE_BYTES_MAX, DESCRIPTOR_BYTES_MAX, RANK_MAX, TENSOR_NAME_BYTES_MAX, TENSORS_MAX,
};
use thiserror::Error;

use super::configure::{Complete, ConfigureError, Configured};
use super::view::view;
use super::{FoundModel, labels, sample, warm_up};
use crate::cgroup::Cgroup;
use crate::config::CheckedFile;
use crate::devices::Devices;
use crate::ensemble::{self, EnsemblePlan};
use crate::metrics::Metrics;
use crate::model::version::VersionParts;
use crate::model::{InstanceSlot, ModelVersion, Signature, Timing};

/// Why a version is not served.
#[derive(Debug, Error)]
pub enum LoadVersionError {
    /// No engine of that name is there.
    #[error("engine {wanted:?} is not available; available: {available}")]
    EngineMissing {
        /// What the configuration names.
        wanted: String,
        /// What is there.
        available: String,
    },
    /// No engine takes the file.
    #[error("no engine accepts {}", path.display())]
    NotAccepted {
        /// The file.
        path: PathBuf,
    },
    /// The engine refused it.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It has more or longer tensors than the protocol carries.
    #[error("{what} is above the protocol's limit of {limit}")]
    Limit {
        /// What is.
        what: String,
        /// The limit.
        limit: usize,
    },
    /// It cannot be joined as configured.
    #[error(
        "max_batch_size is {max_batch_size}, but {kind} {name:?} has no dimension that could be a batch"
    )]
    NoBatchDimension {
        /// The configured size.
        max_batch_size: u32,
        /// `input` or `output`.
        kind: &'static str,
        /// Name of the tensor.
        name: String,
    },
    /// It has no input that could be transformed as configured.
    #[error(transparent)]
    Transform(#[from] TransformError),
    /// Batches of the configured size do not fit it.
    #[error("max_batch_size is {max_batch_size}, and the model takes at most {rows} rows")]
    RowsBeyondModel {
        /// The configured size.
        max_batch_size: u32,
        /// What the model takes.
        rows: u32,
    },
    /// It should be made of steps, and its whole configuration has none.
    #[error("the ensemble has no steps")]
    NoSteps,
    /// Its configuration is wrong.
    #[error(transparent)]
    Configure(#[from] ConfigureError),
    /// The memory limit has no room for it.
    #[error(
        "the file has {byte_size} bytes, and the memory limit of {limit} bytes leaves {free}; raise the limit"
    )]
    Memory {
        /// Bytes of the model's file: weights take about as many, and the engine takes more.
        byte_size: u64,
        /// Bytes that are left.
        free: u64,
        /// The limit of the control group.
        limit: u64,
    },
    /// It failed in its first run.
    #[error("warm-up failed: {0}")]
    WarmUp(String),
}

/// Engines in the order of preference, and why ONNX Runtime is not among them, if it is not.
pub type Engines = (Vec<Arc<dyn Backend>>, Option<BackendError>);

/// Libraries of engines that were named, and are not to be searched for, and where they keep what they build.
#[derive(Clone, Debug, Default)]
pub struct EngineLibraries {
    /// That of ONNX Runtime.
    pub onnxruntime: Option<PathBuf>,
    /// That of TensorRT; of no meaning in a build without the feature.
    pub tensorrt: Option<PathBuf>,
    /// Where engines are kept that a library builds of a model for the device.
    pub engine_cache: Option<PathBuf>,
}

/// The engines of this machine: ONNX Runtime first, if its library is found, then rten, TensorRT, if its library and a
/// device of `devices` are found, then the built-in models, which run nothing that does not ask for them by name. Beside them, why ONNX
/// Runtime is not there, if it is not.
///
/// # Errors
/// If a library was named and cannot be used: that is a mistake, not a reason to take another engine.
pub fn engines(libraries: &EngineLibraries, devices: &Devices) -> Result<Engines, BackendError> {
    let mut engines: Vec<Arc<dyn Backend>> = vec![Arc::new(RtenBackend)];
    #[cfg(not(feature = "cuda"))]
    let _ = devices;
    #[cfg(feature = "tensorrt")]
    engines.extend(super::tensorrt::open(
        libraries.tensorrt.as_deref(),
        devices,
    )?);
    engines.extend(adjoin_backend_builtin::backends());
    let onnxruntime = libraries.onnxruntime.as_deref();
    let found =
        OnnxRuntimeBackend::find(onnxruntime).and_then(|path| OnnxRuntimeBackend::open(&path));
    match found {
        Ok(backend) => {
            #[cfg(feature = "cuda")]
            let backend = backend.with_device(DeviceAccess {
                open: {
                    let devices = devices.clone();
                    Arc::new(move || devices.open().map_err(|error| error.to_string()))
                },
                engine_cache: libraries.engine_cache.clone(),
            });
            engines.insert(0, Arc::new(backend));
            Ok((engines, None))
        }
        Err(error) if onnxruntime.is_some() => Err(error),
        Err(error) => Ok((engines, Some(error))),
    }
}

/// The file that holds a model version, usually.
const MODEL_FILE: &str = "model.onnx";

/// How a model is to be loaded.
#[derive(Debug)]
pub(super) struct Plan {
    /// Its configuration.
    pub(super) configured: Configured,
    /// Its directory.
    directory: PathBuf,
    /// Files of the versions to serve.
    pub(super) files: BTreeMap<u64, PathBuf>,
    /// Directories of versions without a model.
    pub(super) empty: Vec<u64>,
    /// Versions that the policy names and the repository does not have.
    pub(super) missing: Vec<u64>,
}

/// Loads model versions.
#[derive(Clone, Debug)]
pub struct Loader {
    engines: Vec<Arc<dyn Backend>>,
    config: CheckedFile,
    metrics: Arc<Metrics>,
    cgroup: Cgroup,
}

impl Plan {
    /// Name of the file that a version's directory should hold.
    pub(super) fn file_name(&self) -> &str {
        let configured = self.configured.checked.default_model_filename.as_deref();
        configured.unwrap_or(MODEL_FILE)
    }
}

impl Loader {
    /// A loader with engines in the order of preference.
    #[must_use]
    pub fn new(engines: Vec<Arc<dyn Backend>>, config: CheckedFile, metrics: Arc<Metrics>) -> Self {
        Self {
            engines,
            config,
            metrics,
            cgroup: Cgroup::of_this_process(),
        }
    }

    /// How a model is to be loaded that was found in the repository; `json` of a load request takes the place of its
    /// configuration file.
    ///
    /// # Errors
    /// If the configuration of the model is wrong.
    pub(super) fn plan(
        &self,
        found: &FoundModel,
        json: Option<&str>,
    ) -> Result<Plan, ConfigureError> {
        let configured = Configured::new(&self.config, found, json)?;
        let mut files = BTreeMap::new();
        let mut empty = Vec::new();
        for (&number, directory) in &found.versions {
            match self.model_file(directory, &configured) {
                Some(file) => drop(files.insert(number, file)),
                None => empty.push(number),
            }
        }
        let numbers: Vec<u64> = files.keys().copied().collect();
        let policy = &configured.config.version_policy;
        let selected = policy.select(&numbers);
        files.retain(|number, _| selected.contains(number));
        Ok(Plan {
            directory: found.path.clone(),
            missing: policy.missing(&numbers),
            configured,
            files,
            empty,
        })
    }

    /// What an engine is to load of a version's directory: the file that is configured, or else the usual one, or the
    /// only one that an engine accepts. A step model that is built in needs none, and gets the directory.
    fn model_file(&self, directory: &Path, configured: &Configured) -> Option<PathBuf> {
        if let Some(name) = &configured.checked.default_model_filename {
            return Some(directory.join(name)).filter(|file| file.is_file());
        }
        if configured.special_engine().is_some() {
            return Some(directory.to_owned());
        }
        let usual = directory.join(MODEL_FILE);
        if usual.is_file() {
            return Some(usual);
        }
        let accepted = |path: &PathBuf| {
            path.is_file() && self.engines.iter().any(|engine| engine.accepts(path))
        };
        let entries = std::fs::read_dir(directory).ok()?;
        let mut files = entries.flatten().map(|entry| entry.path()).filter(accepted);
        files.next().filter(|_| files.next().is_none())
    }

    fn engine_for(
        &self,
        configured: &Configured,
        path: &Path,
    ) -> Result<&Arc<dyn Backend>, LoadVersionError> {
        let named = configured.config.engine.as_deref();
        let Some(wanted) = configured.special_engine().or(named) else {
            // A file that is named is taken at its word.
            let is_named = configured.checked.default_model_filename.is_some();
            let accepts = |engine: &&Arc<dyn Backend>| engine.accepts(path);
            let mut engines = self.engines.iter();
            return engines
                .find(accepts)
                .or_else(|| self.engines.first().filter(|_| is_named))
                .ok_or_else(|| LoadVersionError::NotAccepted { path: path.into() });
        };
        self.engines
            .iter()
            .find(|engine| engine.name() == wanted)
            .ok_or_else(|| {
                let available: Vec<_> = self.engines.iter().map(|engine| engine.name()).collect();
                LoadVersionError::EngineMissing {
                    wanted: wanted.to_owned(),
                    available: available.join(", "),
                }
            })
    }

    /// Refuses a file that is larger than what is left of the memory limit: loading it would end the server, and with it
    /// what it serves already. That a model passes does not say that it fits.
    fn check_memory(&self, path: &Path) -> Result<(), LoadVersionError> {
        let limit = self.cgroup.tightest_memory_limit();
        let Some(limit) = limit.filter(|_| self.config.memory_percent > 0) else {
            return Ok(());
        };
        let byte_size = path.metadata().map_or(0, |file| file.len());
        let free = limit.free();
        if byte_size <= free {
            return Ok(());
        }
        Err(LoadVersionError::Memory {
            byte_size,
            free,
            limit: limit.bytes,
        })
    }

    /// Loads a version of a plan.
    ///
    /// # Errors
    /// See [`LoadVersionError`].
    pub(super) fn load_version(
        &self,
        plan: &Plan,
        number: u64,
        path: &Path,
    ) -> Result<ModelVersion, LoadVersionError> {
        let configured = &plan.configured;
        let name = &configured.checked.name;
        if configured.checked.ensemble.is_some() {
            return self.load_ensemble(plan, number);
        }
        let engine = self.engine_for(configured, path)?;
        self.check_memory(path)?;
        configured.check_device(self.config.device())?;
        let source = ModelSource {
            name: name.clone(),
            version: number,
            path: path.to_owned(),
            intra_op_threads: configured.config.intra_op_threads,
            parameters: configured.checked.parameters.clone(),
            placement: configured.checked.placement.clone(),
            rows_max: configured.rows_max(),
        };
        let transforms = &configured.checked.input_transforms;
        let model = transformed(engine.load(&source)?, transforms)?;
        let Complete {
            message,
            checked,
            settings,
        } = configured.complete(engine.name(), model.metadata(), rows_max(&*model))?;
        check_rows(settings.max_batch_size, rows_max(&*model))?;
        check_limits(model.metadata(), settings.max_batch_size)?;
        configured.check_fit(&checked, model.metadata())?;
        let model = view(model, &checked);
        let metadata = model.metadata().clone();
        check_messages(name, &metadata)?;
        let labels = labels::read(&plan.directory, &checked, &metadata)?;
        let signature = Signature::new(metadata, settings.max_batch_size);
        let mut signature = signature.with_sizes(model.sizes());
        let mut instances = Vec::new();
        let timing = Timing::new(signature.rows_are_alike());
        let slots = settings.instances as usize * model.batches_at_once().max(1);
        for _ in 0..slots {
            let mut instance = InstanceSlot::new(model.instance()?, signature.metadata());
            if configured.config.warm_up {
                if model.runs_on_zeros() {
                    warm_up::run(
                        &mut signature,
                        &mut instance,
                        &timing,
                        model.prepared_sizes(),
                    )
                    .map_err(LoadVersionError::WarmUp)?;
                }
                for sample in &checked.warm_up {
                    sample::run(&signature, &mut instance, &timing, sample, &plan.directory)
                        .map_err(LoadVersionError::WarmUp)?;
                }
            }
            instances.push(instance);
        }
        for input in signature
            .metadata()
            .inputs
            .iter()
            .filter(|input| input.access == InputAccess::CopyFirst)
        {
            tracing::info!(
                model = name,
                input = input.name,
                "input is copied before use: its values may steer memory accesses"
            );
        }
        Ok(ModelVersion::new(VersionParts {
            name: name.as_str().into(),
            version: number,
            engine: engine.name(),
            signature,
            settings,
            config: message,
            labels,
            metrics: self.metrics.model(name, number),
            model,
            instances,
            timing,
        }))
    }
}

impl Loader {
    /// An ensemble: there is nothing to load but its configuration. The models of its steps are found by its requests.
    fn load_ensemble(&self, plan: &Plan, number: u64) -> Result<ModelVersion, LoadVersionError> {
        let name = &plan.configured.checked.name;
        // There is no file that could say more than the configuration.
        let nothing = ModelMetadata::default();
        let Complete {
            message,
            checked,
            settings,
        } = plan.configured.complete(ensemble::ENGINE, &nothing, None)?;
        let steps = EnsemblePlan::new(&checked).ok_or(LoadVersionError::NoSteps)?;
        let metadata = steps.metadata().clone();
        check_limits(&metadata, settings.max_batch_size)?;
        check_messages(name, &metadata)?;
        let labels = labels::read(&plan.directory, &checked, &metadata)?;
        let parts = VersionParts {
            name: name.as_str().into(),
            version: number,
            engine: ensemble::ENGINE,
            signature: Signature::new(metadata, settings.max_batch_size),
            settings: steps.settings(settings),
            config: message,
            labels,
            metrics: self.metrics.model(name, number),
            model: steps.model(),
            instances: steps.places(),
            timing: Timing::default(),
        };
        Ok(ModelVersion::new(parts).with_plan(Arc::new(steps)))
    }
}

/// Most rows that all inputs of a model may have, if it limits them.
fn rows_max(model: &dyn Model) -> Option<u32> {
    let rows = model.sizes().iter().filter_map(|sizes| sizes.first());
    let most = rows.map(|range| *range.end()).min()?;
    u32::try_from(most).ok()
}

fn check_rows(max_batch_size: u32, rows: Option<u32>) -> Result<(), LoadVersionError> {
    match rows {
        Some(rows) if max_batch_size > rows => Err(LoadVersionError::RowsBeyondModel {
            max_batch_size,
            rows,
        }),
        _ => Ok(()),
    }
}

fn check_limits(metadata: &ModelMetadata, max_batch_size: u32) -> Result<(), LoadVersionError> {
    let limit = |what, limit| Err(LoadVersionError::Limit { what, limit });
    for (kind, tensors) in [("input", &metadata.inputs), ("output", &metadata.outputs)] {
        if tensors.len() > TENSORS_MAX {
            return limit(
                format!("the number of {kind}s, {},", tensors.len()),
                TENSORS_MAX,
            );
        }
        for tensor in tensors {
            if tensor.name.len() > TENSOR_NAME_BYTES_MAX {
                return limit(
                    format!("the name of an {kind}, {} bytes,", tensor.name.len()),
                    TENSOR_NAME_BYTES_MAX,
                );
            }
            if tensor.dimensions.len() > RANK_MAX {
                return limit(
                    format!(
                        "the rank of {kind} {:?}, {},",
                        tensor.name,
                        tensor.dimensions.len()
                    ),
                    RANK_MAX,
                );
            }
            let can_batch = tensor
                .dimensions
                .first()
                .is_some_and(|dimension| dimension.or_open() < 0);
            if max_batch_size > 0 && !can_batch {
                return Err(LoadVersionError::NoBatchDimension {
                    max_batch_size,
                    kind,
                    name: tensor.name.clone(),
                });
            }
        }
    }
    Ok(())
}

/// What is said of a model must fit the messages that say it.
fn check_messages(name: &str, metadata: &ModelMetadata) -> Result<(), LoadVersionError> {
    let outputs = metadata
        .outputs
        .iter()
        .map(|output| (output.name.as_str(), RANK_MAX));
    let response = response_descriptor_bytes(outputs);
    if response > u64::from(DESCRIPTOR_BYTES_MAX) {
        let what = format!("the description of all outputs, {response} bytes,");
        return Err(LoadVersionError::Limit {
            what,
            limit: DESCRIPTOR_BYTES_MAX as usize,
        });
    }
    let info = ModelInfo {
        model: name.to_owned(),
        inputs: metadata
            .inputs
            .iter()
            .map(adjoin_backend::TensorMetadata::spec)
            .collect(),
        outputs: metadata
            .outputs
            .iter()
            .map(adjoin_backend::TensorMetadata::spec)
            .collect(),
        ..ModelInfo::default()
    };
    let byte_size = AttachMessage::ModelInfo(info).encode().len();
    // Room for the list of ready versions.
    let limit = ATTACH_MESSAGE_BYTES_MAX - 4096;
    if byte_size > limit {
        return Err(LoadVersionError::Limit {
            what: format!("its description, {byte_size} bytes,"),
            limit,
        });
    }
    Ok(())
}
