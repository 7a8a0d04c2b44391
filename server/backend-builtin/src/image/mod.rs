//! `adjoin_image`: encoded images to tensors of pixels.

mod decode;
mod fit;
mod pixels;
mod settings;

use adjoin_backend::{Dimension, LoadError, ModelMetadata, strings};
use adjoin_schema::DataType;
use fast_image_resize::Resizer;

use self::pixels::{Mapping, Tables};
use self::settings::{Layout, Settings};
use crate::model::{Step, batch, tensor};
use crate::parameters::Parameters;
use crate::value::{Elements, Tensor, Value, dimension};

/// Decodes, resizes and normalises images.
///
/// Input `image` BYTES (batch, 1): each element a JPEG, PNG, WebP or BMP file. Output `pixels`, (batch, channels,
/// height, width) or (batch, height, width, channels). See [`settings`] for the parameters.
#[derive(Clone, Debug)]
pub(crate) struct ImageStep {
    settings: Settings,
    tables: Tables,
    scratch: Scratch,
}

/// Memory that is used again for every image.
#[derive(Debug, Default)]
struct Scratch {
    resizer: Resizer,
    canvas: Vec<u8>,
}

impl Clone for Scratch {
    /// Nothing in it is worth a copy.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Step for ImageStep {
    const NAME: &'static str = "adjoin_image";
    const PARAMETERS: &'static [&'static str] = settings::NAMES;

    fn new(parameters: &Parameters<'_>) -> Result<Self, LoadError> {
        let settings = Settings::read(parameters)?;
        Ok(Self {
            tables: Tables::new(&settings),
            settings,
            scratch: Scratch::default(),
        })
    }

    fn metadata(&self) -> ModelMetadata {
        let Settings { width, height, .. } = self.settings;
        let channels = self.settings.order.channels();
        let [height, width] = [height, width].map(|size| Dimension::Fixed(i64::from(size)));
        let channels = Dimension::Fixed(dimension(channels));
        let shape = match self.settings.layout {
            Layout::ChannelsFirst => [batch(), channels, height, width],
            Layout::ChannelsLast => [batch(), height, width, channels],
        };
        ModelMetadata {
            inputs: vec![tensor(
                "image",
                DataType::Bytes,
                &[batch(), Dimension::Fixed(1)],
            )],
            outputs: vec![tensor("pixels", self.settings.dtype, &shape)],
        }
    }

    /// An image of no bytes is none.
    fn runs_on_zeros(&self) -> bool {
        false
    }

    fn compute(&mut self, inputs: &[Tensor<'_>]) -> Result<Vec<Value>, String> {
        let images = strings::split(inputs[0].bytes, inputs[0].rows())?;
        let elements = match &self.tables {
            Tables::Float(tables) => Elements::Float(run(
                &self.settings,
                &mut self.scratch,
                &images,
                &tables.view(),
            )?),
            Tables::Half(tables) => Elements::Half(run(
                &self.settings,
                &mut self.scratch,
                &images,
                &tables.view(),
            )?),
            Tables::Bytes => Elements::Bytes(run(
                &self.settings,
                &mut self.scratch,
                &images,
                &|_, value| value,
            )?),
        };
        let shape = self.metadata().outputs[0].open_shape();
        let mut shape = shape.to_vec();
        shape[0] = dimension(images.len());
        Ok(vec![Value { shape, elements }])
    }
}

/// The tensor of all images, with `value` applied to each (channel, byte).
fn run<T: Copy + Default>(
    settings: &Settings,
    scratch: &mut Scratch,
    images: &[&[u8]],
    value: &impl Fn(usize, u8) -> T,
) -> Result<Vec<T>, String> {
    let mapping = Mapping::new(settings);
    let mut tensor = vec![T::default(); mapping.len() * images.len()];
    for (row, (bytes, out)) in images
        .iter()
        .zip(tensor.chunks_exact_mut(mapping.len()))
        .enumerate()
    {
        let named = |reason: String| format!("image {row}: {reason}");
        let image = decode::decode(bytes, settings).map_err(named)?;
        let Scratch { resizer, canvas } = scratch;
        fit::fit(&image, settings, resizer, canvas).map_err(named)?;
        mapping.apply(canvas, out, value);
    }
    Ok(tensor)
}

#[cfg(test)]
mod tests;
