//! Loaded models: their versions, what a request must look like, what a run needs.

mod instance;
pub mod registry;
pub mod request;
mod signature;
mod timing;
pub mod version;

pub use instance::InstanceSlot;
pub use registry::{ModelEntry, Models};
pub use signature::{InputFacts, Resolved, ResolvedOutput, Signature};
pub use timing::{Estimate, Timing};
pub use version::{ModelSettings, ModelVersion, State};
