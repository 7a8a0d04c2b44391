//! Models in rten, an engine in Rust that is built in and needs nothing on the machine.
//!
//! rten reads tensors as Rust slices, and there must be no slice over memory that a client may be
//! writing. So every input is copied into memory of the instance's own and every result to where it is
//! wanted, both counted in [`Copied`](adjoin_backend::Copied). For this engine zero copy is no promise.
//!
//! It computes in float32, int32, int8 and uint8. INT64 and BOOL tensors are served as int32: values of
//! an input that do not fit fail the request, and results are widened. What a model computes of them in
//! between wraps around at 32 bits where another engine would go on. Other types are refused while
//! loading.

#![warn(missing_docs)]

mod convert;
mod instance;
mod model;
mod panics;

use std::path::Path;

use adjoin_backend::{Backend, LoadError, Model, ModelSource};

use crate::model::RtenModel;

/// The engine's name in configuration, logs, metrics and errors.
const NAME: &str = "rten";

/// The release that Cargo.lock holds; rten itself does not say.
const VERSION: &str = "0.27";

/// rten.
#[derive(Clone, Copy, Debug, Default)]
pub struct RtenBackend;

impl Backend for RtenBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        VERSION.to_owned()
    }

    fn accepts(&self, path: &Path) -> bool {
        path.extension()
            .is_some_and(|extension| extension == "onnx")
    }

    fn load(&self, source: &ModelSource) -> Result<Box<dyn Model>, LoadError> {
        RtenModel::load(source).map(|model| Box::new(model) as Box<dyn Model>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_the_one_that_is_built_in() {
        let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock");
        let lock = std::fs::read_to_string(lock).unwrap();
        let entry = format!("name = \"rten\"\nversion = \"{VERSION}.");
        assert!(lock.contains(&entry), "VERSION is not what Cargo.lock has");
    }
}
