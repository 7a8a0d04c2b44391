//! Inputs of pixels on a device: what a batch of them is to its engine, and what the kernel is told to make it so.

use std::ops::RangeInclusive;

use adjoin_backend::{ExecuteError, Input, ModelMetadata, PixelInput};
use adjoin_cuda::{FloatType, Normalize, NormalizeInput, SlotSpec};
use adjoin_schema::{DataType, Shape};
use smallvec::SmallVec;

use crate::input::model_shape;

/// The inputs that a model on a device makes of pixels.
#[derive(Clone, Debug, Default)]
pub struct DevicePixels {
    /// For each input, where the list has it.
    inputs: Vec<Option<Image>>,
}

/// What all images of an input have in common.
#[derive(Clone, Copy, Debug)]
struct Image {
    dtype: DataType,
    /// But for height and width.
    normalize: Normalize,
}

/// An input of a batch, as the engine takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineInput {
    /// Type of its elements.
    pub dtype: DataType,
    /// All dimensions.
    pub shape: Shape,
    /// What type and shape make.
    pub byte_size: usize,
    /// How it is made of what is gathered; `None` if it is that, or empty.
    pub made: Option<NormalizeInput>,
}

impl DevicePixels {
    /// Takes pixels as an input of a model, if the kernel makes such inputs of them; then what is said of the model is said
    /// of the pixels, and room for them is in `spec`.
    pub fn take(
        &mut self,
        index: usize,
        pixels: &PixelInput,
        metadata: &mut ModelMetadata,
        sizes: &mut [Vec<RangeInclusive<i64>>],
        spec: &mut SlotSpec,
    ) -> bool {
        let image = Image::new(pixels);
        let (Some(image), Some(described)) = (image, metadata.inputs.get_mut(index)) else {
            return false;
        };
        *described = pixels.served.clone();
        if let Some(sizes) = sizes.get_mut(index) {
            sizes.clone_from(&pixels.sizes);
        }
        let count = metadata.inputs.len();
        spec.pixels.resize(count, 0);
        let byte_size = spec.inputs.get(index).copied().unwrap_or(0);
        spec.pixels[index] = byte_size / image.normalize.to.byte_size();
        self.inputs.resize(count, None);
        self.inputs[index] = Some(image);
        true
    }

    /// The inputs of a batch as the engine takes them, of such that have passed the check against what is said of the
    /// model.
    ///
    /// # Errors
    /// If images are larger than the kernel can count.
    pub fn of_batch(
        &self,
        inputs: &[Input<'_>],
    ) -> Result<SmallVec<[EngineInput; 4]>, ExecuteError> {
        let input =
            |(index, input): (usize, &Input<'_>)| match self.inputs.get(index).copied().flatten() {
                Some(image) => image.of_batch(index, input),
                None => Ok(EngineInput {
                    dtype: input.dtype,
                    shape: input.shape.into(),
                    byte_size: input.byte_size(),
                    made: None,
                }),
            };
        inputs.iter().enumerate().map(input).collect()
    }
}

impl Image {
    /// `None` if the kernel makes no such images.
    fn new(pixels: &PixelInput) -> Option<Self> {
        let to = match pixels.dtype {
            DataType::Bf16 => FloatType::Bf16,
            DataType::Fp16 => FloatType::Fp16,
            DataType::Fp32 => FloatType::Fp32,
            _ => return None,
        };
        let channels = pixels.mean.len();
        let by_channel = |numbers: &[f32], rest: f32| {
            let mut all = [rest; Normalize::CHANNELS_MAX];
            all.get_mut(..channels)?.copy_from_slice(numbers);
            Some(all)
        };
        Some(Self {
            dtype: pixels.dtype,
            normalize: Normalize {
                height: 0,
                width: 0,
                channels: u32::try_from(channels).ok()?,
                scale: pixels.scale,
                mean: by_channel(&pixels.mean, 0.0)?,
                deviation: by_channel(&pixels.deviation, 1.0)?,
                to,
            },
        })
    }

    fn of_batch(&self, index: usize, input: &Input<'_>) -> Result<EngineInput, ExecuteError> {
        let too_large = || ExecuteError::Mismatch {
            reason: format!(
                "input {index} has shape {:?}; images of 4 GiB and more are not made on a device",
                input.shape
            ),
        };
        let shape = model_shape(input.shape).ok_or_else(too_large)?;
        let elements = input.byte_size();
        let byte_size = elements.checked_mul(self.normalize.to.byte_size());
        Ok(EngineInput {
            dtype: self.dtype,
            byte_size: byte_size.ok_or_else(too_large)?,
            made: match elements {
                0 => None,
                _ => Some(self.made(index, input.shape).ok_or_else(too_large)?),
            },
            shape,
        })
    }

    /// What the kernel is told of images of this shape; `None` if it cannot count them.
    fn made(&self, index: usize, shape: &[i64]) -> Option<NormalizeInput> {
        let (rows, image) = shape.split_at_checked(shape.len().checked_sub(3)?)?;
        let normalize = Normalize {
            height: u32::try_from(image[0]).ok()?,
            width: u32::try_from(image[1]).ok()?,
            ..self.normalize
        };
        normalize.output_bytes()?;
        Some(NormalizeInput {
            input: index,
            normalize,
            images: u32::try_from(rows.iter().product::<i64>()).ok()?,
        })
    }
}
