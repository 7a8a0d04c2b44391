//! The configuration of a model as Triton's users have it: `config.pbtxt` and the JSON of a load request become a
//! [`ModelConfig`] ([`parse_text`], [`parse_json`]), what a model's file says fills the gaps ([`complete()`]), and what the
//! server acts on is a [`Checked`] form in the field's units. [`to_json`] is the way back, as Triton answers it.
//!
//! Nothing is ignored in silence: every field of every message is honoured, has no effect and earns a [`Warning`], or is
//! refused by its path. The table that decides it ([`mod@fields`]) is the one in docs/triton-migration.md.
//!
//! Everything here is a function of its arguments: no file, no clock. A file that a configuration names is one path segment,
//! which the caller opens in the model's own directory.

mod checked;
mod complete;
mod error;
pub mod fields;
mod fits;
pub mod limits;
mod parse;
mod plain;
mod steps;

pub use adjoin_control_api::inference::ModelConfig;
pub use checked::{
    Checked, DynamicBatching, Engine, Ensemble, InputConfig, OutputConfig, QueuePolicy, Step,
    TensorConfig, TimeoutAction, VersionPolicy, WarmUp, WarmUpData, WarmUpInput,
    input_transform_key,
};
pub use complete::{Defaults, MODEL_FILENAME, complete};
pub use error::{ConfigError, Refusal, Warning};
pub use parse::{CONFIG_BYTES_MAX, Form, parse_json, parse_text, to_json};
