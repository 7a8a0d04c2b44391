//! From a file's bytes to pixels, within limits.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

use super::settings::{Order, Settings};

/// Bytes that a decoder may need for one pixel: four channels of 16 bits, and as much again to work with.
const BYTES_PER_PIXEL: u64 = 16;
/// Bytes that a decoder may need whatever the pixels.
const BYTES_BESIDES: u64 = 1 << 20;
/// How many of the first bytes an error shows.
const SHOWN: usize = 8;

/// Bytes of a decoded pixel: red, green, blue, and one that is not looked at. A resizer for these alone is a third of
/// one for all kinds.
pub(super) const PIXEL: usize = 4;

/// Pixels of an image, row by row, without gaps.
pub(super) struct Decoded {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) bytes: Vec<u8>,
}

/// Decodes an image; an alpha channel is not applied. Its size is compared with the limit before anything of that
/// size is allocated.
pub(super) fn decode(bytes: &[u8], settings: &Settings) -> Result<Decoded, String> {
    let reader = ImageReader::new(Cursor::new(bytes));
    let mut reader = reader.with_guessed_format().map_err(|e| e.to_string())?;
    if reader.format().is_none() {
        let shown = &bytes[..bytes.len().min(SHOWN)];
        return Err(format!(
            "{} bytes that begin with {shown:02x?}; expected a JPEG, PNG, WebP or BMP file",
            bytes.len()
        ));
    }
    let pixels_max = u64::from(settings.pixels_max);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(pixels_max * BYTES_PER_PIXEL + BYTES_BESIDES);
    reader.limits(limits);
    let invalid = |error: image::ImageError| error.to_string();
    let decoder = reader.into_decoder().map_err(invalid)?;
    let (width, height) = decoder.dimensions();
    // Resizing works on rows of the one width and the other height in between, so no side may be all there is.
    let between = u64::from(settings.width) * u64::from(height);
    let pixels = u64::from(width) * u64::from(height);
    if pixels.max(between) > pixels_max {
        return Err(format!(
            "it is {width} x {height}; the most is {pixels_max} pixels, before and while it is resized"
        ));
    }
    if pixels == 0 {
        return Err(format!(
            "it is {width} x {height}; expected a pixel at least"
        ));
    }
    let image = DynamicImage::from_decoder(decoder).map_err(invalid)?;
    let image = match settings.order {
        Order::Gray => DynamicImage::ImageLuma8(image.into_luma8()),
        Order::Rgb | Order::Bgr => image,
    };
    let bytes = image.into_rgba8().into_raw();
    Ok(Decoded {
        width,
        height,
        bytes,
    })
}
