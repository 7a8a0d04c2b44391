//! From an image of any size to a canvas of the tensor's.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{PixelType, ResizeOptions, Resizer};

use super::decode::{Decoded, PIXEL};
use super::settings::{Fit, Settings};

/// Fills `canvas` with the image, row by row, in pixels as they were decoded.
pub(super) fn fit(
    image: &Decoded,
    settings: &Settings,
    resizer: &mut Resizer,
    canvas: &mut Vec<u8>,
) -> Result<(), String> {
    let Settings { width, height, .. } = *settings;
    let options = ResizeOptions::new()
        .resize_alg(settings.resize)
        .use_alpha(false);
    canvas.clear();
    match settings.fit {
        Fit::Stretch => {
            canvas.resize(bytes(width, height), 0);
            resize(image, resizer, options, (width, height), canvas)
        }
        Fit::Crop { shorter_side } => {
            canvas.resize(bytes(width, height), 0);
            let options = crop(image, (width, height), shorter_side, options);
            resize(image, resizer, options, (width, height), canvas)
        }
        Fit::Letterbox { pad } => {
            let inner = inside(image, (width, height));
            let mut resized = vec![0; bytes(inner.0, inner.1)];
            resize(image, resizer, options, inner, &mut resized)?;
            canvas.resize(bytes(width, height), pad);
            let (left, top) = ((width - inner.0) / 2, (height - inner.1) / 2);
            let rows = canvas.chunks_exact_mut(bytes(width, 1));
            let inner_row = bytes(inner.0, 1);
            let start = bytes(left, 1);
            for (row, from) in rows.skip(size(top)).zip(resized.chunks_exact(inner_row)) {
                row[start..start + inner_row].copy_from_slice(from);
            }
            Ok(())
        }
    }
}

/// Bytes of so many pixels.
fn bytes(width: u32, height: u32) -> usize {
    size(width) * size(height) * PIXEL
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The part of the image from the middle that becomes the canvas.
fn crop(
    image: &Decoded,
    (width, height): (u32, u32),
    shorter_side: Option<u32>,
    options: ResizeOptions,
) -> ResizeOptions {
    let [from_width, from_height] = [image.width, image.height].map(f64::from);
    let [to_width, to_height] = [width, height].map(f64::from);
    let scale = match shorter_side {
        Some(side) => f64::from(side) / from_width.min(from_height),
        None => (to_width / from_width).max(to_height / from_height),
    };
    // Rounding must not reach past the image.
    let cut_width = (to_width / scale).min(from_width);
    let cut_height = (to_height / scale).min(from_height);
    let left = (from_width - cut_width) / 2.0;
    let top = (from_height - cut_height) / 2.0;
    options.crop(left, top, cut_width, cut_height)
}

/// The largest size of the image's proportions within the canvas.
fn inside(image: &Decoded, (width, height): (u32, u32)) -> (u32, u32) {
    let (from_width, from_height) = (u64::from(image.width), u64::from(image.height));
    // Rounded to the nearest; a pixel at least stays.
    let scaled = |side: u64, to: u32, from: u64, most: u32| {
        let size = (side * u64::from(to) + from / 2) / from;
        u32::try_from(size).unwrap_or(most).clamp(1, most)
    };
    if u64::from(width) * from_height <= u64::from(height) * from_width {
        (width, scaled(from_height, width, from_width, height))
    } else {
        (scaled(from_width, height, from_height, width), height)
    }
}

fn resize(
    image: &Decoded,
    resizer: &mut Resizer,
    options: ResizeOptions,
    (width, height): (u32, u32),
    room: &mut [u8],
) -> Result<(), String> {
    let from = ImageRef::new(image.width, image.height, &image.bytes, PixelType::U8x4);
    let from = from.map_err(|error| error.to_string())?;
    let to = Image::from_slice_u8(width, height, room, PixelType::U8x4);
    let mut to = to.map_err(|error| error.to_string())?;
    let resized = resizer.resize(&from, &mut to, &options);
    resized.map_err(|error| error.to_string())
}
