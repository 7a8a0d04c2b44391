//! Images of bytes to normalised planes of floats, on the device.

use std::sync::Arc;

use super::lane::Lane;
use super::memory::DeviceBuffer;
use super::module::{Grid, Kernel, Module, argument};
use crate::error::CudaError;

/// Element type of normalised planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfOrFloat {
    /// 16-bit floats.
    Half,
    /// 32-bit floats.
    Float,
}

impl HalfOrFloat {
    /// Bytes of an element.
    #[must_use]
    pub fn byte_size(self) -> usize {
        match self {
            Self::Half => 2,
            Self::Float => 4,
        }
    }
}

/// From `images` x `height` x `width` x `channels` bytes (NHWC) to `images` x `channels` x `height` x `width` floats
/// (NCHW), each `value * scale[channel] + offset[channel]` rounded once, as a fused multiply-add rounds.
///
/// For the usual `(value / 255 - mean) / deviation`, the scale is `1 / (255 * deviation)` and the offset
/// `-mean / deviation`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalize {
    /// Rows of an image.
    pub height: u32,
    /// Columns of an image.
    pub width: u32,
    /// 1 to 4.
    pub channels: u32,
    /// By channel.
    pub scale: [f32; 4],
    /// By channel.
    pub offset: [f32; 4],
    /// Elements of the result.
    pub to: HalfOrFloat,
}

const THREADS: u32 = 256;
/// Blocks along the pixels of an image at most; a thread goes on from there.
const BLOCKS_MAX: u32 = 1024;

impl Normalize {
    /// Bytes of an image that goes in; `None` if they cannot be counted, or the channels are not 1 to 4.
    #[must_use]
    pub fn input_bytes(&self) -> Option<usize> {
        if !(1..=4).contains(&self.channels) {
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
        let [mut scale_0, mut scale_1, mut scale_2, mut scale_3] = normalize.scale;
        let [mut offset_0, mut offset_1, mut offset_2, mut offset_3] = normalize.offset;
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
            HalfOrFloat::Half => Kernel::NormalizeF16,
            HalfOrFloat::Float => Kernel::NormalizeF32,
        };
        let arguments = &mut [
            argument(&mut source),
            argument(&mut destination),
            argument(&mut images),
            argument(&mut pixels),
            argument(&mut channels),
            argument(&mut scale_0),
            argument(&mut scale_1),
            argument(&mut scale_2),
            argument(&mut scale_3),
            argument(&mut offset_0),
            argument(&mut offset_1),
            argument(&mut offset_2),
            argument(&mut offset_3),
        ];
        self.launch(module, kernel, grid, arguments)
    }
}
