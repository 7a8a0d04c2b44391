//! Loaded models: their versions, what a request must look like, what a run needs.

mod instance;
pub mod registry;
pub mod request;
mod signature;
mod split;
mod timing;
pub mod version;

pub use instance::InstanceSlot;
pub use registry::{ModelEntry, Models};
pub use signature::{InputFacts, Resolved, ResolvedOutput, Signature};
pub use split::{Split, SplitError};
pub use timing::{Estimate, Timing};
pub use version::{Claim, ModelSettings, ModelVersion, Retired, State};
