//! A model version on the device, and its sessions.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use adjoin_backend::{
    DevicePlacement, Dimension, InputAccess, Instance, LoadError, Model, ModelMetadata,
    ModelSource, PixelInput, TensorMetadata,
};
use adjoin_cuda::{SlotSpec, Stream, Transfers};
use adjoin_input_transform::DevicePixels;
use adjoin_onnx_graph::{OnnxFile, OnnxModel};
use adjoin_schema::DataType;

use super::DeviceAccess;
use super::engine_cache;
use super::filling::BatchSizes;
use super::instance::{DeviceInstance, Served};
use super::options::{Graphs, Options};
use super::profile::Profile;
use super::session::DeviceSession;
use super::slot::Slot;
use super::trial;
use crate::environment::Runtime;
use crate::model::{check_names, refuse_divisors, refused, start_session};
use crate::raw::device::{self, DeviceRunner};

/// Slots that share a session: one batch is copied while another is computed.
const SLOTS: usize = 2;

#[derive(Debug)]
pub(crate) struct DeviceModel {
    runtime: Runtime,
    source: ModelSource,
    description: OnnxModel,
    served: Arc<Served>,
    transfers: Transfers,
    options: ProviderOptions,
    /// What a slot is made for at first.
    spec: SlotSpec,
    sessions: Mutex<Sessions>,
}

/// What the providers of each session are told, files included.
#[derive(Debug)]
struct ProviderOptions {
    tensorrt: Option<Vec<(&'static str, String)>>,
    cuda: Vec<(&'static str, String)>,
    has_graphs: bool,
}

#[derive(Debug, Default)]
struct Sessions {
    /// Made while loading, which is how a damaged model is found; the first slots get it.
    first: Option<Arc<DeviceSession>>,
    /// One that has room for so many further slots.
    open: Option<(Arc<DeviceSession>, usize)>,
}

impl DeviceModel {
    pub(crate) fn load(
        runtime: Runtime,
        source: &ModelSource,
        placement: &DevicePlacement,
        access: &DeviceAccess,
    ) -> Result<Self, LoadError> {
        let wrong = |reason: String| LoadError::Parameters {
            model: source.name.clone(),
            reason,
        };
        let OnnxFile { bytes, model } = OnnxFile::read(crate::NAME, source)?;
        refuse_divisors(source, &model)?;
        let metadata = on_device(source, &model.metadata)?;
        let rows_max = source.rows_max.of(&metadata);
        let options = Options::new(placement).map_err(wrong)?;
        let mut graphs = options.graphs;
        match check_graphs(&metadata) {
            Err(reason) if graphs == Graphs::Wanted => return Err(wrong(reason)),
            Err(_) => graphs = Graphs::Never,
            Ok(()) => {}
        }
        let profile = match &options.tensorrt {
            Some(tensorrt) => {
                Profile::new(&metadata, &tensorrt.profile, rows_max).map_err(wrong)?
            }
            None => Profile::default(),
        };
        let transfers = (access.open)().map_err(|reason| {
            refused(
                source,
                format!("it is configured for a GPU (KIND_GPU), and there is none: {reason}"),
            )
        })?;
        let batch_sizes = match &options.tensorrt {
            Some(_) => BatchSizes::default(),
            None => {
                BatchSizes::new(options.batch_sizes.as_ref(), &metadata, rows_max).map_err(wrong)?
            }
        };
        let options = told(
            &options, &profile, &runtime, source, &bytes, &transfers, access,
        )
        .map_err(wrong)?;
        let spec = largest(&metadata, &profile, rows_max);
        let mut model = Self {
            runtime,
            source: source.clone(),
            description: model,
            served: Arc::new(Served {
                metadata,
                sizes: profile.sizes,
                pixels: DevicePixels::default(),
                batch_sizes,
            }),
            transfers,
            options,
            spec,
            sessions: Mutex::default(),
        };
        let first = model.first_session(&bytes, graphs)?;
        model.sessions().first = Some(first);
        Ok(model)
    }

    /// The first session; with it comes out whether there are graphs.
    fn first_session(
        &mut self,
        bytes: &[u8],
        graphs: Graphs,
    ) -> Result<Arc<DeviceSession>, LoadError> {
        self.options.has_graphs = graphs != Graphs::Never;
        if graphs != Graphs::IfPossible {
            return self.session(bytes);
        }
        let (model, version) = (&self.source.name, self.source.version);
        match self.tried_session(bytes) {
            Ok(session) => {
                tracing::info!(model, version, "runs are captured as CUDA graphs");
                Ok(session)
            }
            Err(reason) => {
                tracing::info!(
                    model,
                    version,
                    reason,
                    "runs are not captured as CUDA graphs"
                );
                self.options.has_graphs = false;
                self.session(bytes)
            }
        }
    }

    /// A session that has captured a run.
    fn tried_session(&self, bytes: &[u8]) -> Result<Arc<DeviceSession>, String> {
        let session = self.session(bytes).map_err(|error| error.to_string())?;
        let nothing = SlotSpec {
            inputs: vec![0; self.spec.inputs.len()],
            pixels: vec![0; self.spec.pixels.len()],
            outputs: vec![0; self.spec.outputs.len()],
            pieces_max: 1,
        };
        let slot = Slot::new(&self.transfers, nothing).map_err(|error| error.to_string())?;
        let served = Arc::new(Served {
            metadata: self.served.metadata.clone(),
            ..Served::default()
        });
        let mut instance = DeviceInstance::new(slot, Arc::clone(&session), served);
        trial::capture(&mut instance, &self.served.metadata)?;
        Ok(session)
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self, bytes: &[u8]) -> Result<Arc<DeviceSession>, LoadError> {
        let refused = |reason: String| refused(&self.source, reason);
        let device = self.transfers.device();
        device
            .make_current()
            .map_err(|error| refused(error.to_string()))?;
        let stream = Stream::new(device).map_err(|error| refused(error.to_string()))?;
        let index = i32::try_from(device.facts().index).unwrap_or(i32::MAX);
        let ProviderOptions {
            tensorrt,
            cuda,
            has_graphs,
        } = &self.options;
        let mut cuda = cuda.clone();
        if *has_graphs {
            cuda.push(("enable_cuda_graph", "1".to_owned()));
        }
        let tensorrt = tensorrt.iter();
        let providers: Vec<_> = tensorrt
            .map(|options| device::tensorrt(index, &stream, options))
            .chain([device::cuda(index, &stream, &cuda)])
            .collect();
        let session = start_session(&self.runtime, &self.source, bytes, &providers)?;
        check_names(&self.source, &session, &self.description.metadata)?;
        let runner = DeviceRunner::new(session, index, &self.served.metadata, *has_graphs)
            .map_err(|error| refused(error.to_string()))?;
        let usual_graphs = SLOTS * self.served.batch_sizes.as_slice().len();
        let usual_graphs = has_graphs.then_some(usual_graphs);
        let session = DeviceSession::new(runner, stream, &self.transfers, usual_graphs)
            .map_err(|error| refused(format!("a thread for its session: {error}")))?;
        Ok(Arc::new(session))
    }

    /// A further session, on the condition that the file still says what this model promises.
    fn further_session(&self) -> Result<Arc<DeviceSession>, LoadError> {
        let OnnxFile { bytes, model } = OnnxFile::read(crate::NAME, &self.source)?;
        if model != self.description {
            return Err(refused(
                &self.source,
                "the file has changed since it was loaded",
            ));
        }
        self.session(&bytes)
    }

    /// A session for a further slot.
    fn session_for_slot(&self) -> Result<Arc<DeviceSession>, LoadError> {
        let mut sessions = self.sessions();
        let (session, left) = match sessions.open.take() {
            Some(open) => open,
            None => match sessions.first.take() {
                Some(first) => (first, SLOTS),
                None => (self.further_session()?, SLOTS),
            },
        };
        sessions.open = Some((Arc::clone(&session), left - 1)).filter(|(_, left)| *left > 0);
        Ok(session)
    }
}

impl Model for DeviceModel {
    fn metadata(&self) -> &ModelMetadata {
        &self.served.metadata
    }

    fn sizes(&self) -> &[Vec<RangeInclusive<i64>>] {
        &self.served.sizes
    }

    fn is_on_device(&self) -> bool {
        true
    }

    /// Truth values are made 0 or 1 by the processor first.
    fn takes_on_device(&self, input: &str) -> bool {
        let mut inputs = self.served.metadata.inputs.iter();
        inputs.any(|tensor| tensor.name == input && tensor.dtype != DataType::Bool)
    }

    fn gives_on_device(&self, _output: &str) -> bool {
        true
    }

    fn batches_at_once(&self) -> usize {
        SLOTS
    }

    fn prepared_sizes(&self) -> &[u32] {
        self.served.batch_sizes.as_slice()
    }

    /// Session, profile and graphs are those of the model's own input; what the server and clients see is the pixels'.
    fn take_pixels(&mut self, index: usize, pixels: &PixelInput) -> bool {
        let Some(served) = Arc::get_mut(&mut self.served) else {
            return false; // an instance has it already
        };
        let Served {
            metadata,
            sizes,
            pixels: taken,
            ..
        } = served;
        taken.take(index, pixels, metadata, sizes, &mut self.spec)
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        let session = self.session_for_slot()?;
        let slot = Slot::new(&self.transfers, self.spec.clone())
            .map_err(|error| refused(&self.source, error))?;
        Ok(Box::new(DeviceInstance::new(
            slot,
            session,
            Arc::clone(&self.served),
        )))
    }
}

/// The description of a model whose pieces the device brings together and takes apart.
fn on_device(source: &ModelSource, model: &ModelMetadata) -> Result<ModelMetadata, LoadError> {
    let mut metadata = model.clone();
    let inputs = metadata.inputs.iter_mut().map(|tensor| ("input", tensor));
    let outputs = metadata.outputs.iter_mut().map(|tensor| ("output", tensor));
    for (kind, tensor) in inputs.chain(outputs) {
        if tensor.dtype == DataType::Bytes {
            return Err(LoadError::Unsupported {
                model: source.name.clone(),
                kind,
                name: tensor.name.clone(),
                what: "is of strings, which no device has memory for; run the model on the processor (KIND_CPU)"
                    .to_owned(),
            });
        }
        tensor.access = InputAccess::InPieces;
    }
    Ok(metadata)
}

/// A graph is for one set of shapes, so a model that has graphs leaves its rows open at most.
fn check_graphs(metadata: &ModelMetadata) -> Result<(), String> {
    let is_open = |dimension: &Dimension| dimension.or_open() < 0;
    let has_more = |input: &&TensorMetadata| input.dimensions.iter().skip(1).any(is_open);
    match metadata.inputs.iter().find(has_more) {
        None => Ok(()),
        Some(input) => Err(format!(
            "optimization.cuda.graphs is true, and input {:?} has shape {:?}; graphs are for models that leave no more open \
             than their rows",
            input.name,
            input.open_shape().as_slice()
        )),
    }
}

/// What the providers are told in the end.
fn told(
    options: &Options,
    profile: &Profile,
    runtime: &Runtime,
    source: &ModelSource,
    bytes: &[u8],
    transfers: &Transfers,
    access: &DeviceAccess,
) -> Result<ProviderOptions, String> {
    let mut tensorrt = None;
    if let Some(own) = &options.tensorrt {
        let mut told = own.options.clone();
        if let Some(texts) = &profile.texts {
            let keys = super::options::PROFILE.into_iter();
            told.extend(keys.zip(texts.iter().cloned()));
        }
        if own.engine_cache || own.timing_cache {
            let root = access.engine_cache.as_deref().ok_or(
                "there is no place to keep engines in: name one in cuda.engine_cache_dir, or set trt_engine_cache_enable \
                 and trt_timing_cache_enable to 0 to build them at each start",
            )?;
            let facts = transfers.device().facts();
            let described = format!("{} {:?} {told:?}", facts.name, facts.compute_capability);
            let parts = [&*runtime.version, &described];
            let directory = engine_cache::directory(root, source, bytes, &parts)?;
            let directory = directory.to_string_lossy().into_owned();
            for (is_on, enable, path) in [
                (
                    own.engine_cache,
                    "trt_engine_cache_enable",
                    "trt_engine_cache_path",
                ),
                (
                    own.timing_cache,
                    "trt_timing_cache_enable",
                    "trt_timing_cache_path",
                ),
            ] {
                if is_on {
                    told.push((enable, "1".to_owned()));
                    told.push((path, directory.clone()));
                }
            }
        }
        tensorrt = Some(told);
    }
    Ok(ProviderOptions {
        tensorrt,
        cuda: options.cuda.clone(),
        has_graphs: false,
    })
}

/// Bytes of each tensor at the largest batch, as far as they are known: what only requests decide counts as 0, and makes
/// the slot grow.
fn largest(metadata: &ModelMetadata, profile: &Profile, rows_max: u32) -> SlotSpec {
    let rows = i64::from(rows_max);
    let of_profile = profile.largest();
    let size = |index: usize, dimension: &Dimension| match dimension {
        Dimension::Fixed(size) => *size,
        _ if index == 0 => rows,
        Dimension::Named(_) | Dimension::Unknown => 0,
    };
    let plain = |tensor: &TensorMetadata| -> Vec<i64> {
        let sizes = tensor.dimensions.iter().enumerate();
        sizes
            .map(|(index, dimension)| size(index, dimension))
            .collect()
    };
    let bytes = |tensor: &TensorMetadata, shape: &[i64]| {
        let byte_size = tensor.dtype.byte_size(shape).ok().flatten();
        byte_size
            .and_then(|byte_size| usize::try_from(byte_size).ok())
            .unwrap_or(0)
    };
    let inputs = metadata.inputs.iter().enumerate().map(|(index, input)| {
        let shape = of_profile.get(index).cloned();
        bytes(input, &shape.unwrap_or_else(|| plain(input)))
    });
    let outputs = metadata.outputs.iter();
    SlotSpec {
        inputs: inputs.collect(),
        pixels: vec![0; metadata.inputs.len()],
        outputs: outputs
            .map(|output| bytes(output, &plain(output)))
            .collect(),
        pieces_max: usize::try_from(rows_max).unwrap_or(1).max(1),
    }
}
