//! From bytes of pixels to elements of a tensor: order, layout, numbers.

use adjoin_schema::DataType;
use half::f16;

use super::decode::PIXEL;
use super::settings::{Layout, Order, Settings};

/// The element for each byte of each channel, so that normalising costs a look-up.
#[derive(Clone, Debug)]
pub(super) enum Tables {
    Float(Table<f32>),
    Half(Table<f16>),
    /// Bytes stay as they are.
    Bytes,
}

/// One row of 256 elements for each channel of the tensor.
#[derive(Clone, Debug)]
pub(super) struct Table<T>(Vec<[T; 256]>);

impl<T: Copy> Table<T> {
    fn new(settings: &Settings, zero: T, element: impl Fn(f32) -> T) -> Self {
        let channel = |(&mean, &std): (&f32, &f32)| {
            let mut row = [zero; 256];
            for (byte, value) in (0..=u8::MAX).zip(&mut row) {
                *value = element((f32::from(byte) * settings.scale - mean) / std);
            }
            row
        };
        Self(
            settings
                .mean
                .iter()
                .zip(&settings.std)
                .map(channel)
                .collect(),
        )
    }

    pub(super) fn view(&self) -> impl Fn(usize, u8) -> T {
        |channel, byte| self.0[channel][usize::from(byte)]
    }
}

impl Tables {
    pub(super) fn new(settings: &Settings) -> Self {
        match settings.dtype {
            DataType::Uint8 => Self::Bytes,
            DataType::Fp16 => Self::Half(Table::new(settings, f16::ZERO, f16::from_f32)),
            _ => Self::Float(Table::new(settings, 0.0, |value| value)),
        }
    }
}

/// Where each byte of the canvas goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping {
    layout: Layout,
    order: Order,
    /// Pixels of the canvas.
    area: usize,
}

impl Mapping {
    pub(super) fn new(settings: &Settings) -> Self {
        let sides = [settings.width, settings.height];
        let sides = sides.map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        Self {
            layout: settings.layout,
            order: settings.order,
            area: sides[0] * sides[1],
        }
    }

    /// Elements of one image.
    pub(super) fn len(&self) -> usize {
        self.area * self.order.channels()
    }

    /// Writes the canvas as elements.
    pub(super) fn apply<T>(&self, canvas: &[u8], out: &mut [T], value: &impl Fn(usize, u8) -> T) {
        let channels = self.order.channels();
        for channel in 0..channels {
            let from = match self.order {
                Order::Bgr => channels - 1 - channel,
                Order::Rgb | Order::Gray => channel,
            };
            let bytes = canvas.iter().skip(from).step_by(PIXEL);
            match self.layout {
                Layout::ChannelsFirst => {
                    let plane = &mut out[channel * self.area..][..self.area];
                    plane
                        .iter_mut()
                        .zip(bytes)
                        .for_each(|(out, &byte)| *out = value(channel, byte));
                }
                Layout::ChannelsLast => {
                    let places = out.iter_mut().skip(channel).step_by(channels);
                    places
                        .zip(bytes)
                        .for_each(|(out, &byte)| *out = value(channel, byte));
                }
            }
        }
    }
}
