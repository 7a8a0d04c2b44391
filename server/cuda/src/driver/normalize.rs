//! Images of bytes to normalised planes of floats, on the device.

use std::sync::Arc;

use super::lane::Lane;
use super::memory::DeviceBuffer;
use super::module::{Grid, Kernel, Module, argument};
use crate::error::CudaError;

/// Element type of normalised planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatType {
    /// Brain floats of 16 bits.
    Bf16,
    /// 16-bit floats.
    Fp16,
    /// 32-bit floats.
    Fp32,
}

impl FloatType {
    /// Bytes of an element.
    #[must_use]
    pub const fn byte_size(self) -> usize {
        match self {
            Self::Bf16 | Self::Fp16 => 2,
            Self::Fp32 => 4,
        }
    }
}

/// From `images` x `height` x `width` x `channels` bytes (NHWC) to `images` x `channels` x `height` x `width` floats
/// (NCHW), each `(value * scale - mean[channel]) / deviation[channel]`, rounded to 32 bits after each step, and then to
/// the result's type, always to nearest even.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalize {
    /// Rows of an image.
    pub height: u32,
    /// Columns of an image.
    pub width: u32,
    /// 1 to [`Normalize::CHANNELS_MAX`].
    pub channels: u32,
    /// Of all channels, finite.
    pub scale: f32,
    /// By channel, finite.
    pub mean: [f32; Self::CHANNELS_MAX],
    /// By channel, finite and not 0.
    pub deviation: [f32; Self::CHANNELS_MAX],
    /// Elements of the result.
    pub to: FloatType,
}

const THREADS: u32 = 256;
/// Blocks along the pixels of an image at most; a thread goes on from there.
const BLOCKS_MAX: u32 = 1024;

impl Normalize {
    /// Most channels of an image.
    pub const CHANNELS_MAX: usize = 4;

    /// Bytes of an image that goes in; `None` if there are none, they cannot be counted in 32 bits, or there are too many
    /// channels.
    #[must_use]
    pub fn input_bytes(&self) -> Option<usize> {
        if usize::try_from(self.channels).ok()? > Self::CHANNELS_MAX {
            return None;
        }
        [self.height, self.width, self.channels]
            .iter()
            .try_fold(1_usize, |product, &size| {
                product.checked_mul(usize::try_from(size).ok()?)
            })
            // The kernel counts the pixels of an image in 32 bits.
            .filter(|&bytes| u32::try_from(bytes).is_ok() && bytes > 0)
    }

    /// Bytes of an image that comes out.
    #[must_use]
    pub fn output_bytes(&self) -> Option<usize> {
        self.input_bytes()?.checked_mul(self.to.byte_size())
    }
}

impl Lane {
    /// Enqueues the normalisation of `images` images from the start of `from` to the start of `to`.
    ///
    /// # Errors
    /// If they do not fit the buffers, or the driver refuses.
    pub(crate) fn launch_normalize(
        &mut self,
        module: &Arc<Module>,
        normalize: &Normalize,
        images: u32,
        from: &DeviceBuffer,
        to: &DeviceBuffer,
    ) -> Result<(), CudaError> {
        let misfit = || CudaError::Arguments {
            reason: format!("{images} images of {normalize:?} cannot be counted"),
        };
        let count = usize::try_from(images).map_err(|_| misfit())?;
        let bytes_in = normalize
            .input_bytes()
            .and_then(|bytes| bytes.checked_mul(count));
        let bytes_out = normalize
            .output_bytes()
            .and_then(|bytes| bytes.checked_mul(count));
        let (Some(bytes_in), Some(bytes_out)) = (bytes_in, bytes_out) else {
            return Err(misfit());
        };
        let mut source = from.range(0, bytes_in)?;
        let mut destination = to.range(0, bytes_out)?;
        if images == 0 {
            return Ok(());
        }
        self.check_buffer(from)?;
        self.check_buffer(to)?;
        self.keep(from);
        self.keep(to);
        self.keep_module(module);
        let mut pixels = normalize.height * normalize.width;
        let mut channels = normalize.channels;
        let mut scale = normalize.scale;
        let [mut mean_0, mut mean_1, mut mean_2, mut mean_3] = normalize.mean;
        let [
            mut deviation_0,
            mut deviation_1,
            mut deviation_2,
            mut deviation_3,
        ] = normalize.deviation;
        let grid = Grid {
            blocks: [
                pixels.div_ceil(THREADS).min(BLOCKS_MAX),
                1,
                images.min(65_535),
            ],
            threads: THREADS,
        };
        let mut images = images;
        let kernel = match normalize.to {
            FloatType::Bf16 => Kernel::NormalizeBf16,
            FloatType::Fp16 => Kernel::NormalizeF16,
            FloatType::Fp32 => Kernel::NormalizeF32,
        };
        let arguments = &mut [
            argument(&mut source),
            argument(&mut destination),
            argument(&mut images),
            argument(&mut pixels),
            argument(&mut channels),
            argument(&mut scale),
            argument(&mut mean_0),
            argument(&mut mean_1),
            argument(&mut mean_2),
            argument(&mut mean_3),
            argument(&mut deviation_0),
            argument(&mut deviation_1),
            argument(&mut deviation_2),
            argument(&mut deviation_3),
        ];
        self.launch(module, kernel, grid, arguments)
    }
}
