//! Pixels as clients have them, numbers as a model wants them: an input transform.
//!
//! A model whose input is floats, channels first, is served with an input of bytes, channels last: what a camera or a
//! decoder gives. The server makes the one of the other while it brings the requests of a batch together, in one pass
//! over the bytes, so that a request is a quarter (FP32) or half (FP16) of what it would be, and no client normalises.
//!
//! ```text
//! model's input      FP32, FP16 or BF16   [batch, channels, height, width]   or without the batch
//! served input       UINT8                [batch, height, width, channels]
//! each element       (byte * scale - mean[channel]) / std[channel], rounded to FP32 after each step
//! ```
//!
//! [`transformed`] asks the model first whether it makes its input of bytes where it runs
//! ([`Model::take_pixels`](adjoin_backend::Model::take_pixels)): engines on a device do (feature `cuda`, `device`), by a
//! kernel between the copies to the device and the engine. For all others it puts the transform before the model, which
//! sees nothing of it: its instances get their own input, in memory of the wrapper's. The wrapper takes its inputs in
//! pieces ([`InputAccess::InPieces`](adjoin_backend::InputAccess::InPieces)), so the server gathers nothing for it. The
//! bits are the same either way.
//!
//! On a processor the bytes of a client are never looked at where they lie. They are copied in strips that stay in the
//! processor's nearest cache, and a strip is looked at: a client that writes meanwhile changes its own pixels.

#![warn(missing_docs)]

#[cfg(feature = "cuda")]
mod device;
mod input;
mod kernel;
mod model;
mod normaliser;
mod spec;

#[cfg(feature = "cuda")]
pub use device::{DevicePixels, EngineInput};
pub use model::{TransformError, transformed};
pub use normaliser::Normaliser;
pub use spec::{InputTransform, SpecError};
