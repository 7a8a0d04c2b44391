//! Models that are built in: the steps before and after a model, so that a pipeline needs no code.
//!
//! | name | from | to |
//! |---|---|---|
//! | `adjoin_image` | encoded images | tensors of pixels: decoded, resized, normalised |
//! | `adjoin_tokenizer` | texts | token ids and masks, by a `tokenizer.json` |
//! | `adjoin_softmax` | scores | probabilities |
//! | `adjoin_top_k` | scores | the highest ones: indices, values, labels |
//!
//! Such a model has no file that it computes by: its configuration says all, as parameters. Each is an engine
//! of its own, by whose name a configuration asks for it (`backend: "adjoin_image"`).
//!
//! Requests bring values that are none, such as bytes that are no image. Those fail the request with a reason for
//! its client ([`ExecuteError::Refused`](adjoin_backend::ExecuteError::Refused)).
//!
//! All inputs are copied to memory of the instance's own before a value is looked at, and results are copied to where
//! they are wanted: the safe code here reads slices, and there must be no slice over memory that a client may be
//! writing. Both copies are counted.

#![warn(missing_docs)]

#[cfg(feature = "image")]
mod image;
mod labels;
mod model;
mod parameters;
mod softmax;
#[cfg(feature = "tokenizer")]
mod tokenizer;
mod top_k;
mod value;

use std::path::Path;
use std::sync::Arc;

use adjoin_backend::{Backend, LoadError, Model, ModelSource};

use crate::model::{BuiltinModel, Step};

/// Every built-in model of this build.
#[must_use]
pub fn backends() -> Vec<Arc<dyn Backend>> {
    vec![
        #[cfg(feature = "image")]
        backend::<image::ImageStep>(),
        backend::<softmax::Softmax>(),
        #[cfg(feature = "tokenizer")]
        backend::<tokenizer::TokenizerStep>(),
        backend::<top_k::TopK>(),
    ]
}

fn backend<S: Step>() -> Arc<dyn Backend> {
    Arc::new(Builtin {
        name: S::NAME,
        load: |source| BuiltinModel::<S>::load(source).map(|model| Box::new(model) as _),
    })
}

/// A built-in model as an engine.
#[derive(Debug)]
struct Builtin {
    name: &'static str,
    load: fn(&ModelSource) -> Result<Box<dyn Model>, LoadError>,
}

impl Backend for Builtin {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    /// Never: a file does not ask for a built-in model, only a configuration does.
    fn accepts(&self, _: &Path) -> bool {
        false
    }

    fn load(&self, source: &ModelSource) -> Result<Box<dyn Model>, LoadError> {
        (self.load)(source)
    }
}
