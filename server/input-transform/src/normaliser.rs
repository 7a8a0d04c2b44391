//! The pass over the bytes of a batch: from where each request has them to the model's input.

use adjoin_backend::PixelInput;
use adjoin_schema::DataType;
use adjoin_shm::{AlignedBuffer, Payload, PayloadMut};
use half::{bf16, f16};

use crate::kernel::{Float, Numbers};
use crate::spec::InputTransform;

/// Bytes that are copied from a client before they are looked at: with what becomes of a channel of them, half of the
/// nearest cache.
const STRIP_BYTES: usize = 4096;

/// Whether a type is one that is made of pixels.
pub(crate) fn is_float(dtype: DataType) -> bool {
    matches!(dtype, DataType::Fp32 | DataType::Fp16 | DataType::Bf16)
}

/// Makes a model's input of images.
#[derive(Clone, Debug)]
pub struct Normaliser {
    dtype: DataType,
    /// For each channel.
    numbers: Vec<Numbers>,
    /// Private copies of some pixels.
    strip: Vec<u8>,
    /// One channel of them, for types that are not computed in.
    line: Vec<f32>,
}

impl Normaliser {
    /// One for images of `channels` channels, 1 or more; `None` for a type that is not of floats.
    pub(crate) fn new(
        transform: &InputTransform,
        channels: usize,
        dtype: DataType,
    ) -> Option<Self> {
        let numbers = (0..channels).map(|channel| transform.of_channel(channel));
        (is_float(dtype) && channels > 0).then(|| Self::with_numbers(dtype, numbers.collect()))
    }

    /// One for images of an input, which has a channel or more.
    pub(crate) fn of(pixels: &PixelInput) -> Self {
        let numbers = pixels.mean.iter().zip(&pixels.deviation);
        let numbers = numbers.map(|(&mean, &deviation)| [pixels.scale, mean, deviation]);
        Self::with_numbers(pixels.dtype, numbers.collect())
    }

    fn with_numbers(dtype: DataType, numbers: Vec<Numbers>) -> Self {
        let channels = numbers.len();
        let strip_pixels = (STRIP_BYTES / channels.max(1)).max(1);
        Self {
            dtype,
            numbers,
            strip: vec![0; strip_pixels * channels],
            line: vec![0.0; strip_pixels],
        }
    }

    /// Type of the elements that it makes.
    #[must_use]
    pub fn dtype(&self) -> DataType {
        self.dtype
    }

    /// Fills the start of `buffer` with the images of all pieces. `image_bytes` are those of one image as clients have it.
    ///
    /// # Panics
    /// If the buffer is too small, or a piece is no whole number of images.
    pub fn run<'a>(
        &mut self,
        pieces: impl IntoIterator<Item = Payload<'a>>,
        image_bytes: usize,
        buffer: &mut AlignedBuffer,
    ) {
        match self.dtype {
            DataType::Fp16 => self.fill::<f16>(pieces, image_bytes, buffer),
            DataType::Bf16 => self.fill::<bf16>(pieces, image_bytes, buffer),
            _ => self.fill::<f32>(pieces, image_bytes, buffer),
        }
    }

    fn fill<'a, T: Float>(
        &mut self,
        pieces: impl IntoIterator<Item = Payload<'a>>,
        image_bytes: usize,
        buffer: &mut AlignedBuffer,
    ) {
        if image_bytes == 0 {
            return;
        }
        let elements = buffer.byte_size() / size_of::<T>();
        let mut images = buffer
            .as_mut_slice::<T>(elements)
            .chunks_exact_mut(image_bytes);
        for piece in pieces {
            assert!(
                piece.byte_size().is_multiple_of(image_bytes),
                "pieces are whole images"
            );
            for at in (0..piece.byte_size()).step_by(image_bytes) {
                let image = piece.part(at, image_bytes).expect("within the piece");
                let out = images.next().expect("the buffer was sized for all images");
                self.image(image, out);
            }
        }
    }

    fn image<T: Float>(&mut self, image: Payload<'_>, out: &mut [T]) {
        let Self {
            numbers,
            strip,
            line,
            ..
        } = self;
        let channels = numbers.len();
        let plane = image.byte_size() / channels;
        let strip_pixels = line.len();
        for first in (0..plane).step_by(strip_pixels) {
            let count = strip_pixels.min(plane - first);
            let strip = &mut strip[..count * channels];
            let part = image
                .part(first * channels, strip.len())
                .expect("within the image");
            part.copy_to(&mut PayloadMut::from_slice(strip));
            for (channel, &numbers) in numbers.iter().enumerate() {
                let out = &mut out[channel * plane + first..][..count];
                T::channel(strip, channels, channel, numbers, line, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_pixel_gets_to_its_place(
            channels in 1usize..6,
            planes in proptest::collection::vec(1usize..3, 1..4),
            plane in prop_oneof![1usize..40, 1360usize..1370, 4090usize..4100],
            seed: u8,
        ) {
            let transform = InputTransform::new(Some(1.0), Some(vec![1.0]), Some(vec![2.0])).unwrap();
            let image_bytes = channels * plane;
            let pieces: Vec<Vec<u8>> = planes.iter().enumerate().map(|(piece, images)| {
                let byte = |index: usize| (index * 89 + piece * 7).to_le_bytes()[0] ^ seed;
                (0..images * image_bytes).map(byte).collect()
            }).collect();
            let all = pieces.concat();
            let mut expected = Vec::new();
            for image in all.chunks(image_bytes) {
                for channel in 0..channels {
                    let bytes = image.iter().skip(channel).step_by(channels);
                    expected.extend(bytes.map(|&byte| (f32::from(byte) - 1.0) / 2.0));
                }
            }
            for dtype in [DataType::Fp32, DataType::Fp16, DataType::Bf16] {
                let mut normaliser = Normaliser::new(&transform, channels, dtype).unwrap();
                let mut buffer = AlignedBuffer::new(all.len() * 4).unwrap();
                let payloads = pieces.iter().map(|piece| Payload::from_slice(piece));
                normaliser.run(payloads, image_bytes, &mut buffer);
                let count = all.len();
                let made: Vec<f32> = match dtype {
                    DataType::Fp32 => buffer.as_mut_slice::<f32>(count).to_vec(),
                    DataType::Fp16 => buffer.as_mut_slice::<f16>(count).iter().map(|v| v.to_f32()).collect(),
                    _ => buffer.as_mut_slice::<bf16>(count).iter().map(|v| v.to_f32()).collect(),
                };
                // Halves of bytes have at most 9 significant bits; BF16 has 8.
                if dtype == DataType::Bf16 {
                    let rounded: Vec<f32> = expected.iter().map(|&v| bf16::from_f32(v).to_f32()).collect();
                    prop_assert_eq!(&made, &rounded);
                } else {
                    prop_assert_eq!(&made, &expected);
                }
            }
        }
    }

    #[test]
    fn integers_are_not_made() {
        let transform: InputTransform = "".parse().unwrap();
        assert!(Normaliser::new(&transform, 3, DataType::Int32).is_none());
        assert!(Normaliser::new(&transform, 0, DataType::Fp32).is_none());
    }
}
