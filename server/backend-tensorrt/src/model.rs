//! A loaded plan.

use std::ops::RangeInclusive;
use std::sync::Arc;

use adjoin_backend::{Instance, LoadError, Model, ModelMetadata, ModelSource, PixelInput};
use adjoin_cuda::{BatchSlot, SlotSpec, Stream, Transfers};
use adjoin_schema::DataType;

use crate::instance::TensorRtInstance;
use crate::metadata::{Description, refused};
use crate::raw::{Context, Engine, Library};

/// The parameter that chooses one of the plan's optimization profiles, from 0; 0 if it is absent.
const PROFILE: &str = "optimization_profile";
/// The parameter that lets a version-compatible plan run code of its own on the host: `true` or `false`, which is the default.
const HOST_CODE: &str = "engine_host_code";

#[derive(Debug)]
pub(crate) struct TensorRtModel {
    source: ModelSource,
    transfers: Transfers,
    engine: Arc<Engine>,
    profile: i32,
    description: Arc<Description>,
    /// What an instance needs of the device.
    spec: SlotSpec,
}

impl TensorRtModel {
    pub(crate) fn load(
        library: &Arc<Library>,
        transfers: &Transfers,
        source: &ModelSource,
    ) -> Result<Self, LoadError> {
        let refused = |reason: String| refused(source, reason);
        let parameters = Parameters::read(source)?;
        let plan = std::fs::read(&source.path).map_err(|error| LoadError::Unreadable {
            path: source.path.clone(),
            source: error,
        })?;
        make_current(transfers).map_err(refused)?;
        let engine = Engine::load(library, transfers.device(), &plan, parameters.is_trusted);
        let engine = Arc::new(engine.map_err(refused)?);
        let profile = parameters.profile;
        let count = engine.profile_count();
        if profile >= count {
            return Err(refused(format!(
                "{PROFILE} is {profile}, and the plan has {count} profiles, counted from 0"
            )));
        }
        let description = Description::new(&engine, profile, source)?;
        let spec = measure(&engine, profile, &description, transfers).map_err(refused)?;
        Ok(Self {
            source: source.clone(),
            transfers: transfers.clone(),
            engine,
            profile,
            description: Arc::new(description),
            spec,
        })
    }
}

impl Model for TensorRtModel {
    fn metadata(&self) -> &ModelMetadata {
        &self.description.metadata
    }

    fn sizes(&self) -> &[Vec<RangeInclusive<i64>>] {
        &self.description.sizes
    }

    fn is_on_device(&self) -> bool {
        true
    }

    fn takes_on_device(&self, _input: &str) -> bool {
        true
    }

    fn gives_on_device(&self, _output: &str) -> bool {
        true
    }

    /// One batch is copied while another is computed. Each has an execution context of its own over the one engine, so the
    /// weights are there once and the memory for what lies between layers twice. With one context for both, two graphs
    /// that were captured in it could run at once over the same memory between layers, and every shape that is set
    /// would have to wait until the batch before it is enqueued.
    fn batches_at_once(&self) -> usize {
        2
    }

    /// Profile and memory are those of the plan's own input; what the server and clients see is the pixels'.
    fn take_pixels(&mut self, index: usize, pixels: &PixelInput) -> bool {
        let Some(description) = Arc::get_mut(&mut self.description) else {
            return false; // an instance has it already
        };
        let Description {
            metadata, sizes, ..
        } = description;
        let spec = &mut self.spec;
        (description.pixels).take(index, pixels, metadata, sizes, spec)
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        let refused = |reason: String| refused(&self.source, reason);
        make_current(&self.transfers).map_err(refused)?;
        let slot = BatchSlot::new(&self.transfers, self.spec.clone());
        let slot = slot.map_err(|error| refused(error.to_string()))?;
        let stream = Stream::new(self.transfers.device());
        let stream = stream.map_err(|error| refused(error.to_string()))?;
        let context = Context::new(&self.engine, self.profile, &stream).map_err(refused)?;
        let instance = TensorRtInstance::new(slot, context, Arc::clone(&self.description));
        Ok(Box::new(instance.map_err(refused)?))
    }
}

/// TensorRT works in the context that is current on the calling thread.
pub(crate) fn make_current(transfers: &Transfers) -> Result<(), String> {
    transfers
        .device()
        .make_current()
        .map_err(|error| error.to_string())
}

/// Device memory for the largest batch. Shapes of outputs have to follow from those of inputs.
fn measure(
    engine: &Arc<Engine>,
    profile: i32,
    description: &Description,
    transfers: &Transfers,
) -> Result<SlotSpec, String> {
    let stream = Stream::new(transfers.device()).map_err(|error| error.to_string())?;
    let mut context = Context::new(engine, profile, &stream)?;
    let bytes = |name: &str, dtype: DataType, shape: &[i64]| {
        let bytes = dtype.byte_size(shape).ok().flatten();
        let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
        bytes.ok_or_else(|| {
            format!(
                "{name:?} has shape {shape:?} at the largest input; outputs whose shape only a run shows, or beyond memory, \
                 are not served"
            )
        })
    };
    let metadata = &description.metadata;
    let mut inputs = Vec::new();
    for ((input, known), largest) in description
        .inputs
        .iter()
        .zip(&metadata.inputs)
        .zip(description.largest())
    {
        context.set_shape(&input.name, &largest)?;
        inputs.push(bytes(&known.name, known.dtype, &largest)?);
    }
    let mut outputs = Vec::new();
    for (output, known) in description.outputs.iter().zip(&metadata.outputs) {
        outputs.push(bytes(
            &known.name,
            known.dtype,
            &context.shape_of(&output.name)?,
        )?);
    }
    let rows = description
        .sizes
        .iter()
        .filter_map(|sizes| sizes.first())
        .map(|range| *range.end());
    let rows = rows.min().unwrap_or(1).max(1);
    Ok(SlotSpec {
        inputs,
        outputs,
        pieces_max: usize::try_from(rows).unwrap_or(1).min(PIECES_MAX),
        ..SlotSpec::default()
    })
}

/// Requests of a batch at most; the server's limit for rows.
const PIECES_MAX: usize = 65_536;

/// The parameters of the model's configuration.
struct Parameters {
    profile: i32,
    is_trusted: bool,
}

impl Parameters {
    fn read(source: &ModelSource) -> Result<Self, LoadError> {
        let wrong = |name: &str, value: &str, expected: &str| LoadError::Parameters {
            model: source.name.clone(),
            reason: format!("parameter {name:?} is {value:?}; expected {expected}"),
        };
        let mut parameters = Self {
            profile: 0,
            is_trusted: false,
        };
        for (name, value) in &source.parameters {
            match name.as_str() {
                PROFILE => {
                    let profile = value.parse().ok().filter(|&number| number >= 0);
                    parameters.profile =
                        profile.ok_or_else(|| wrong(name, value, "a whole number from 0"))?;
                }
                HOST_CODE => {
                    let is_trusted = value.parse();
                    parameters.is_trusted =
                        is_trusted.map_err(|_| wrong(name, value, "true or false"))?;
                }
                _ => {
                    let reason = format!(
                        "tensorrt has no parameter {name:?}; it has {PROFILE} and {HOST_CODE}"
                    );
                    let model = source.name.clone();
                    return Err(LoadError::Parameters { model, reason });
                }
            }
        }
        Ok(parameters)
    }
}
