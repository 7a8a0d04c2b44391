//! The model repository: `NAME/VERSION/model.onnx`, as users of other servers have it.

mod load;
mod scan;
mod version_policy;
mod warm_up;

pub use load::{Engines, LoadVersionError, Loader, engines};
pub use scan::{FoundModel, RepositoryError, scan};
pub use version_policy::VersionPolicy;
