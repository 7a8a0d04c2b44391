//! One input of an instance, and the memory in which the model's input is made.

use adjoin_backend::{ExecuteError, Input};
use adjoin_schema::{DataType, Shape};
use adjoin_shm::{AlignedBuffer, Payload};

use crate::normaliser::Normaliser;

/// An input that is transformed.
#[derive(Debug)]
pub(crate) struct TransformedInput {
    normaliser: Normaliser,
    /// The model's input, of all images of a batch.
    buffer: AlignedBuffer,
}

/// The model's input of one run.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) dtype: DataType,
    pub(crate) shape: Shape,
    pub(crate) byte_size: usize,
    /// Whether it lies elsewhere than that of the run before.
    pub(crate) is_moved: bool,
}

impl TransformedInput {
    pub(crate) fn new(normaliser: Normaliser) -> Self {
        let buffer = AlignedBuffer::default();
        Self { normaliser, buffer }
    }

    /// Makes the model's input of all pieces of `input`, which has passed the check against the served metadata.
    ///
    /// # Errors
    /// If there is no memory, or a piece is no whole number of images.
    pub(crate) fn make(&mut self, input: &Input<'_>) -> Result<Made, ExecuteError> {
        let mismatch = |reason: String| ExecuteError::Mismatch { reason };
        let wrong_shape = || mismatch(format!("no images have shape {:?}", input.shape));
        let shape = model_shape(input.shape).ok_or_else(wrong_shape)?;
        let dtype = self.normaliser.dtype();
        let bytes = |dtype: DataType, shape: &[i64]| {
            let bytes = dtype.byte_size(shape).ok().flatten();
            bytes
                .and_then(|bytes| usize::try_from(bytes).ok())
                .ok_or_else(wrong_shape)
        };
        let byte_size = bytes(dtype, &shape)?;
        let image_bytes = bytes(DataType::Uint8, &shape[shape.len() - 3..])?;
        let is_whole =
            |piece: &Payload<'_>| piece.byte_size().checked_rem(image_bytes).unwrap_or(0) == 0;
        if let Some(piece) = input.pieces().find(|piece| !is_whole(piece)) {
            let bytes = piece.byte_size();
            return Err(mismatch(format!(
                "a piece of {bytes} bytes is no whole number of images of {image_bytes} bytes"
            )));
        }
        let is_moved = byte_size > self.buffer.byte_size();
        let reserved = self.buffer.reserve(byte_size);
        reserved.map_err(|error| mismatch(error.to_string()))?;
        self.normaliser
            .run(input.pieces(), image_bytes, &mut self.buffer);
        Ok(Made {
            dtype,
            shape,
            byte_size,
            is_moved,
        })
    }

    /// What was made last.
    pub(crate) fn payload(&self, byte_size: usize) -> Payload<'_> {
        self.buffer.payload(byte_size)
    }
}

/// Channels first, of a shape with channels last; `None` if it has too few dimensions.
pub(crate) fn model_shape(shape: &[i64]) -> Option<Shape> {
    let (rows, image) = shape.split_at_checked(shape.len().checked_sub(3)?)?;
    let [height, width, channels] = image.try_into().ok()?;
    Some(
        rows.iter()
            .copied()
            .chain([channels, height, width])
            .collect(),
    )
}
