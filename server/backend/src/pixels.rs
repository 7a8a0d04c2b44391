//! Inputs of pixels, for models that make their own input of them where they run.

use std::ops::RangeInclusive;

use adjoin_schema::DataType;

use crate::TensorMetadata;

/// An input of pixels in the place of one of a model's own, of floats with channels first: each element of that is
/// `(byte * scale - mean[channel]) / deviation[channel]`, rounded to FP32 after each step and then to `dtype`, to nearest
/// even. No number is infinite or none, and no deviation 0.
#[derive(Clone, Debug, PartialEq)]
pub struct PixelInput {
    /// As clients see it: UINT8, `[height, width, channels]`, or with the rows before those.
    pub served: TensorMetadata,
    /// The sizes that each of those dimensions may have; empty if the model limits none ([`Model::sizes`]).
    ///
    /// [`Model::sizes`]: crate::Model::sizes
    pub sizes: Vec<RangeInclusive<i64>>,
    /// Type of the model's own elements: FP32, FP16 or BF16.
    pub dtype: DataType,
    /// The factor of each byte.
    pub scale: f32,
    /// One for each channel.
    pub mean: Vec<f32>,
    /// One for each channel.
    pub deviation: Vec<f32>,
}
