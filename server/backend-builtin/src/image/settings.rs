//! The parameters of `adjoin_image`.
//!
//! | parameter | values | default |
//! |---|---|---|
//! | `width`, `height` | 1 to 16384 | must be given |
//! | `layout` | `NCHW`, `NHWC` | `NCHW` |
//! | `channels` | `RGB`, `BGR`, `GRAY` | `RGB` |
//! | `data_type` | `FP32`, `FP16`, `UINT8` | `FP32` |
//! | `scale` | what each byte is multiplied with first | 1/255 |
//! | `mean`, `std` | one for all channels or one for each, in the order of `channels`: (x - mean) / std | 0, 1 |
//! | `resize` | `nearest`, `box`, `bilinear`, `bicubic`, `lanczos` | `bilinear` |
//! | `fit` | `stretch`, `crop`, `letterbox` | `stretch` |
//! | `shorter_side` | with `crop`: pixels of the shorter side before the middle is cut out | as many as cover the tensor |
//! | `pad` | with `letterbox`: byte of the border | 0 |
//! | `pixels_max` | pixels of an image that is decoded | 33554432 |

use adjoin_backend::LoadError;
use adjoin_schema::DataType;
use fast_image_resize::{FilterType, ResizeAlg};

use crate::parameters::Parameters;

/// All of them.
pub(super) const NAMES: &[&str] = &[
    "width",
    "height",
    "layout",
    "channels",
    "data_type",
    "scale",
    "mean",
    "std",
    "resize",
    "fit",
    "shorter_side",
    "pad",
    "pixels_max",
];

const SIDE_MAX: u32 = 1 << 14;
const PIXELS_MAX_DEFAULT: u32 = 1 << 25;
const PIXELS_MAX: u32 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    ChannelsFirst,
    ChannelsLast,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Rgb,
    Bgr,
    Gray,
}

impl Order {
    pub(super) fn channels(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Gray => 1,
        }
    }
}

/// How an image of other proportions gets the tensor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Stretch,
    /// The middle is cut out.
    Crop {
        shorter_side: Option<u32>,
    },
    /// A border is put around it.
    Letterbox {
        pad: u8,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) layout: Layout,
    pub(super) order: Order,
    pub(super) dtype: DataType,
    pub(super) scale: f32,
    /// One for each channel.
    pub(super) mean: Vec<f32>,
    pub(super) std: Vec<f32>,
    pub(super) resize: ResizeAlg,
    pub(super) fit: Fit,
    pub(super) pixels_max: u32,
}

impl Settings {
    pub(super) fn read(parameters: &Parameters<'_>) -> Result<Self, LoadError> {
        let p = parameters;
        let orders = [
            ("RGB", Order::Rgb),
            ("BGR", Order::Bgr),
            ("GRAY", Order::Gray),
        ];
        let layouts = [
            ("NCHW", Layout::ChannelsFirst),
            ("NHWC", Layout::ChannelsLast),
        ];
        let types = [DataType::Fp32, DataType::Fp16, DataType::Uint8].map(|t| (t.name(), t));
        let filters = [
            ("nearest", ResizeAlg::Nearest),
            ("box", ResizeAlg::Convolution(FilterType::Box)),
            ("bilinear", ResizeAlg::Convolution(FilterType::Bilinear)),
            ("bicubic", ResizeAlg::Convolution(FilterType::CatmullRom)),
            ("lanczos", ResizeAlg::Convolution(FilterType::Lanczos3)),
        ];
        let order = p.choice("channels", &orders)?.unwrap_or(Order::Rgb);
        let dtype = p.choice("data_type", &types)?.unwrap_or(DataType::Fp32);
        let settings = Self {
            width: p.required("width", 1..=SIDE_MAX)?,
            height: p.required("height", 1..=SIDE_MAX)?,
            layout: p
                .choice("layout", &layouts)?
                .unwrap_or(Layout::ChannelsFirst),
            order,
            dtype,
            scale: of_channels(p, "scale", 1, 1.0 / 255.0)?[0],
            mean: of_channels(p, "mean", order.channels(), 0.0)?,
            std: of_channels(p, "std", order.channels(), 1.0)?,
            resize: p
                .choice("resize", &filters)?
                .unwrap_or(ResizeAlg::Convolution(FilterType::Bilinear)),
            fit: read_fit(p)?,
            pixels_max: p
                .number("pixels_max", 1..=PIXELS_MAX)?
                .unwrap_or(PIXELS_MAX_DEFAULT),
        };
        settings.check(p)?;
        Ok(settings)
    }

    fn check(&self, parameters: &Parameters<'_>) -> Result<(), LoadError> {
        let is_scaled = |name: &&&str| parameters.text(name).is_some();
        if self.dtype == DataType::Uint8
            && let Some(name) = ["scale", "mean", "std"].iter().find(is_scaled)
        {
            return Err(parameters.refused(format!(
                "parameter {name:?} is of no meaning with the data_type UINT8, which has the image's own bytes"
            )));
        }
        if self.std.contains(&0.0) {
            return Err(parameters.refused("parameter \"std\" has a 0, and it is divided by"));
        }
        if let Fit::Crop {
            shorter_side: Some(side),
        } = self.fit
            && side < self.width.max(self.height)
        {
            let (width, height) = (self.width, self.height);
            return Err(parameters.refused(format!(
                "parameter \"shorter_side\" is {side}; expected at least the {width} x {height} that are cut out"
            )));
        }
        Ok(())
    }
}

/// One number for each channel; one alone stands for all.
fn of_channels(
    parameters: &Parameters<'_>,
    name: &str,
    channels: usize,
    default: f32,
) -> Result<Vec<f32>, LoadError> {
    let numbers = parameters.list(name)?.unwrap_or_else(|| vec![default]);
    match numbers.as_slice() {
        [all] => Ok(vec![*all; channels]),
        each if each.len() == channels => Ok(numbers),
        each => Err(parameters.refused(format!(
            "parameter {name:?} has {} numbers; expected 1 or {channels}",
            each.len()
        ))),
    }
}

fn read_fit(parameters: &Parameters<'_>) -> Result<Fit, LoadError> {
    let shorter_side = parameters.number("shorter_side", 1..=SIDE_MAX)?;
    let pad = parameters.number("pad", 0..=u32::from(u8::MAX))?;
    let pad_byte = pad.and_then(|pad| u8::try_from(pad).ok()).unwrap_or(0);
    let words = [
        ("stretch", Fit::Stretch),
        ("crop", Fit::Crop { shorter_side }),
        ("letterbox", Fit::Letterbox { pad: pad_byte }),
    ];
    let fit = parameters.choice("fit", &words)?.unwrap_or(Fit::Stretch);
    let belongings = [
        (
            "shorter_side",
            shorter_side,
            "crop",
            matches!(fit, Fit::Crop { .. }),
        ),
        (
            "pad",
            pad,
            "letterbox",
            matches!(fit, Fit::Letterbox { .. }),
        ),
    ];
    let is_stray =
        |(_, value, _, is_used): &&(_, Option<u32>, _, bool)| value.is_some() && !is_used;
    match belongings.iter().find(is_stray) {
        None => Ok(fit),
        Some((name, _, wanted, _)) => Err(parameters.refused(format!(
            "parameter {name:?} is of a meaning only with fit {wanted:?}"
        ))),
    }
}
