//! The arithmetic, over strips of pixels in private memory.
//!
//! One channel after the other: its bytes are taken out of the pixels, widened, scaled, shifted and divided, and written
//! as one stream. The loop is plain Rust that the compiler makes vectors of; a copy of it is compiled for AVX2, as the
//! x86 processors that Rust targets by default have no instruction that picks every third byte. Nothing is fused and
//! nothing is approximated, so the bits do not depend on the processor.

use adjoin_shm::Element;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Factor, mean and standard deviation of a channel.
pub(crate) type Numbers = [f32; 3];

/// A type that models take.
pub(crate) trait Float: Element {
    /// Writes the `channel` of each pixel of the strip; `line` has room for as many as `out`.
    fn channel(
        strip: &[u8],
        channels: usize,
        channel: usize,
        numbers: Numbers,
        line: &mut [f32],
        out: &mut [Self],
    );
}

impl Float for f32 {
    fn channel(
        strip: &[u8],
        channels: usize,
        channel: usize,
        numbers: Numbers,
        _: &mut [f32],
        out: &mut [Self],
    ) {
        normalise(strip, channels, channel, numbers, out);
    }
}

impl Float for f16 {
    fn channel(
        strip: &[u8],
        channels: usize,
        channel: usize,
        numbers: Numbers,
        line: &mut [f32],
        out: &mut [Self],
    ) {
        let line = &mut line[..out.len()];
        normalise(strip, channels, channel, numbers, line);
        out.convert_from_f32_slice(line);
    }
}

impl Float for bf16 {
    fn channel(
        strip: &[u8],
        channels: usize,
        channel: usize,
        numbers: Numbers,
        line: &mut [f32],
        out: &mut [Self],
    ) {
        let line = &mut line[..out.len()];
        normalise(strip, channels, channel, numbers, line);
        out.convert_from_f32_slice(line);
    }
}

/// Writes `(byte * scale - mean) / std` for the `channel` of each pixel.
fn normalise(strip: &[u8], channels: usize, channel: usize, numbers: Numbers, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[allow(
            unsafe_code,
            reason = "a safe function that needs a feature of the processor"
        )]
        // SAFETY: the processor has AVX2, looked at in the line above.
        return unsafe { normalise_avx2(strip, channels, channel, numbers, out) };
    }
    normalise_plain(strip, channels, channel, numbers, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn normalise_avx2(
    strip: &[u8],
    channels: usize,
    channel: usize,
    numbers: Numbers,
    out: &mut [f32],
) {
    normalise_plain(strip, channels, channel, numbers, out);
}

#[inline(always)]
fn normalise_plain(
    strip: &[u8],
    channels: usize,
    channel: usize,
    numbers: Numbers,
    out: &mut [f32],
) {
    // With the number of channels known, the bytes are picked by shuffles.
    match channels {
        1 => each(strip.as_chunks::<1>().0, channel, numbers, out),
        2 => each(strip.as_chunks::<2>().0, channel, numbers, out),
        3 => each(strip.as_chunks::<3>().0, channel, numbers, out),
        4 => each(strip.as_chunks::<4>().0, channel, numbers, out),
        _ => {
            for (out, pixel) in out.iter_mut().zip(strip.chunks_exact(channels)) {
                *out = element(pixel[channel], numbers);
            }
        }
    }
}

#[inline(always)]
fn each<const CHANNELS: usize>(
    pixels: &[[u8; CHANNELS]],
    channel: usize,
    numbers: Numbers,
    out: &mut [f32],
) {
    for (out, pixel) in out.iter_mut().zip(pixels) {
        *out = element(pixel[channel], numbers);
    }
}

#[inline(always)]
fn element(byte: u8, [scale, mean, std]: Numbers) -> f32 {
    (f32::from(byte) * scale - mean) / std
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_processor_gives_the_same_bits() {
        let numbers = [1.0 / 255.0, 0.485, 0.229];
        for channels in 1..=6 {
            let strip: Vec<u8> = (0_usize..channels * 301)
                .map(|index| index.to_le_bytes()[0].wrapping_mul(89))
                .collect();
            for channel in 0..channels {
                let (mut one, mut other) = ([0.0; 301], [1.0; 301]);
                normalise(&strip, channels, channel, numbers, &mut one);
                normalise_plain(&strip, channels, channel, numbers, &mut other);
                assert_eq!(one.map(f32::to_bits), other.map(f32::to_bits));
                for (value, pixel) in one.iter().zip(strip.chunks(channels)) {
                    let expected =
                        (f32::from(pixel[channel]) * numbers[0] - numbers[1]) / numbers[2];
                    assert_eq!(value.to_bits(), expected.to_bits());
                }
            }
        }
    }
}
