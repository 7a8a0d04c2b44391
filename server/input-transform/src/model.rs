//! A model behind its input transforms.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use adjoin_backend::{
    BindingKey, Copied, Dimension, ExecuteError, Execution, Input, InputAccess, Instance,
    LoadError, Model, ModelMetadata, Output, OutputSink, PixelInput, TensorMetadata,
};
use adjoin_schema::DataType;
use smallvec::SmallVec;
use thiserror::Error;

use crate::input::{Made, TransformedInput};
use crate::normaliser::{Normaliser, is_float};
use crate::spec::{CHANNELS_MAX, InputTransform};

/// Why a model cannot have a transform.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransformError {
    /// It has no input of this name.
    #[error("input_transform: the model has no input {name:?}; it has {inputs}")]
    InputMissing {
        /// The name.
        name: String,
        /// What there is.
        inputs: String,
    },
    /// The input is no image of floats with channels first.
    #[error("input_transform of {name:?}: the model's input is {is}; {expected}")]
    Input {
        /// Name of the input.
        name: String,
        /// What it is.
        is: String,
        /// What it has to be.
        expected: &'static str,
    },
    /// There are numbers for other channels.
    #[error(
        "input_transform of {name:?} has numbers for {given} channels; the model's input has {channels}"
    )]
    Channels {
        /// Name of the input.
        name: String,
        /// How many channels have numbers.
        given: usize,
        /// How many there are.
        channels: usize,
    },
}

/// The model with bytes in the place of those inputs that `transforms` names. What it does not make of bytes where it runs
/// ([`Model::take_pixels`]) is made before it, on the processor.
///
/// # Errors
/// If there is no such input, or it cannot be transformed.
pub fn transformed(
    mut model: Box<dyn Model>,
    transforms: &BTreeMap<String, InputTransform>,
) -> Result<Box<dyn Model>, TransformError> {
    if transforms.is_empty() {
        return Ok(model);
    }
    let mut inputs = pixel_inputs(&*model, transforms)?;
    for (index, input) in inputs.iter_mut().enumerate() {
        input.take_if(|pixels| model.take_pixels(index, pixels));
    }
    if inputs.iter().all(Option::is_none) {
        return Ok(model);
    }
    let mut metadata = model.metadata().clone();
    let mut sizes = model.sizes().to_vec();
    let mut normalisers = vec![None; inputs.len()];
    for (index, pixels) in inputs.into_iter().enumerate() {
        let Some(pixels) = pixels else {
            continue;
        };
        normalisers[index] = Some(Normaliser::of(&pixels));
        metadata.inputs[index] = pixels.served;
        if let Some(sizes) = sizes.get_mut(index) {
            *sizes = pixels.sizes;
        }
    }
    Ok(Box::new(TransformedModel {
        model,
        metadata,
        sizes,
        normalisers,
    }))
}

/// For each input of a model, what takes its place.
fn pixel_inputs(
    model: &dyn Model,
    transforms: &BTreeMap<String, InputTransform>,
) -> Result<Vec<Option<PixelInput>>, TransformError> {
    let inputs = &model.metadata().inputs;
    let is_missing = |name: &&String| inputs.iter().all(|input| input.name != **name);
    if let Some(name) = transforms.keys().find(is_missing) {
        let names: Vec<_> = inputs
            .iter()
            .map(|input| format!("{:?}", input.name))
            .collect();
        return Err(TransformError::InputMissing {
            name: name.clone(),
            inputs: names.join(", "),
        });
    }
    let pixels = |(index, input): (usize, &TensorMetadata)| {
        let sizes = model.sizes().get(index).map_or(&[][..], Vec::as_slice);
        let transform = transforms.get(&input.name);
        transform
            .map(|transform| pixel_input(input, sizes, transform))
            .transpose()
    };
    inputs.iter().enumerate().map(pixels).collect()
}

/// What takes the place of an input.
fn pixel_input(
    input: &TensorMetadata,
    sizes: &[RangeInclusive<i64>],
    transform: &InputTransform,
) -> Result<PixelInput, TransformError> {
    let name = &input.name;
    let wrong = |is: String, expected| {
        let name = name.clone();
        Err(TransformError::Input { name, is, expected })
    };
    let rank = input.dimensions.len();
    if rank != 3 && rank != 4 {
        let expected =
            "it has to be (batch, channels, height, width), or (channels, height, width)";
        return wrong(format!("of {rank} dimensions"), expected);
    }
    let at = rank - 3;
    let channels = match &input.dimensions[at] {
        Dimension::Fixed(count) => usize::try_from(*count).unwrap_or(0),
        Dimension::Named(_) | Dimension::Unknown => 0,
    };
    if !(1..=CHANNELS_MAX).contains(&channels) {
        let shape = input.open_shape();
        let expected = "dimension channels, the third from the end, has to be fixed, and 1 to 1024";
        return wrong(format!("of shape {:?}", shape.as_slice()), expected);
    }
    if let Some(given) = transform.channels().filter(|&given| given != channels) {
        let name = name.clone();
        return Err(TransformError::Channels {
            name,
            given,
            channels,
        });
    }
    if !is_float(input.dtype) {
        return wrong(input.dtype.to_string(), "it has to be FP32, FP16 or BF16");
    }
    let mut served = input.clone();
    served.dtype = DataType::Uint8;
    // What the model gets is memory of the server's or the device's, so values that steer accesses are copies in any case.
    served.access = InputAccess::InPieces;
    served.dimensions[at..].rotate_left(1);
    let mut sizes = sizes.to_vec();
    if sizes.len() == rank {
        sizes[at..].rotate_left(1);
    }
    let numbers: Vec<_> = (0..channels)
        .map(|channel| transform.of_channel(channel))
        .collect();
    Ok(PixelInput {
        served,
        sizes,
        dtype: input.dtype,
        scale: transform.scale(),
        mean: numbers.iter().map(|&[_, mean, _]| mean).collect(),
        deviation: numbers.iter().map(|&[.., std]| std).collect(),
    })
}

#[derive(Debug)]
struct TransformedModel {
    model: Box<dyn Model>,
    metadata: ModelMetadata,
    sizes: Vec<Vec<RangeInclusive<i64>>>,
    /// For each input, if it is transformed.
    normalisers: Vec<Option<Normaliser>>,
}

#[derive(Debug)]
struct TransformedInstance {
    instance: Box<dyn Instance>,
    metadata: ModelMetadata,
    inputs: Vec<Option<TransformedInput>>,
    /// How often memory of an input has moved. It is part of the key under which the engine sees a set that the server
    /// names: the server's key says nothing of our memory, and one key never names two sets. The server counts its keys
    /// from 0, so their upper bits are free; memory only ever doubles, so an input moves fewer than 64 times.
    moves: u16,
}

impl Model for TransformedModel {
    fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    fn runs_on_zeros(&self) -> bool {
        self.model.runs_on_zeros()
    }

    fn sizes(&self) -> &[Vec<RangeInclusive<i64>>] {
        &self.sizes
    }

    fn is_on_device(&self) -> bool {
        self.model.is_on_device()
    }

    /// What is transformed is read by the processor.
    fn takes_on_device(&self, input: &str) -> bool {
        let mut inputs = self.metadata.inputs.iter().zip(&self.normalisers);
        let is_as_it_comes = inputs.any(|(tensor, own)| tensor.name == input && own.is_none());
        is_as_it_comes && self.model.takes_on_device(input)
    }

    fn gives_on_device(&self, output: &str) -> bool {
        self.model.gives_on_device(output)
    }

    fn batches_at_once(&self) -> usize {
        self.model.batches_at_once()
    }

    fn prepared_sizes(&self) -> &[u32] {
        self.model.prepared_sizes()
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        let input = |own: &Option<Normaliser>| own.clone().map(TransformedInput::new);
        Ok(Box::new(TransformedInstance {
            instance: self.model.instance()?,
            metadata: self.metadata.clone(),
            inputs: self.normalisers.iter().map(input).collect(),
            moves: 0,
        }))
    }
}

impl Instance for TransformedInstance {
    fn run(
        &mut self,
        execution: Execution<'_, '_>,
        sink: &mut dyn OutputSink,
    ) -> Result<Copied, ExecuteError> {
        execution.check(&self.metadata)?;
        let mut made: SmallVec<[Option<Made>; 4]> = SmallVec::new();
        let mut transformed_bytes = 0;
        for (input, given) in self.inputs.iter_mut().zip(execution.inputs) {
            made.push(match input {
                Some(input) => Some(input.make(given)?),
                None => None,
            });
            if let Some(Some(made)) = made.last() {
                transformed_bytes += given.byte_size() as u64;
                self.moves = self.moves.wrapping_add(u16::from(made.is_moved));
            }
        }
        let inputs: SmallVec<[Input<'_>; 4]> = execution
            .inputs
            .iter()
            .zip(&self.inputs)
            .zip(&made)
            .map(|((given, input), made)| match (input, made) {
                (Some(input), Some(made)) => {
                    Input::whole(made.dtype, &made.shape, input.payload(made.byte_size))
                }
                _ => *given,
            })
            .collect();
        let mut outputs: SmallVec<[Output<'_>; 4]> = (execution.outputs.iter_mut())
            .map(|output| std::mem::replace(output, Output::Skipped))
            .collect();
        let key = execution
            .key
            .map(|key| BindingKey(key.0 ^ (u64::from(self.moves) << 48)));
        let of_model = Execution {
            key,
            inputs: &inputs,
            outputs: &mut outputs,
        };
        let mut copied = self.instance.run(of_model, sink)?;
        copied.transformed_bytes += transformed_bytes;
        Ok(copied)
    }
}
