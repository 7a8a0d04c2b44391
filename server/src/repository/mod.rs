//! The model repository: `NAME/VERSION/model.onnx`, as users of other servers have it, and how models come and go
//! while the server runs ([`Manager`]).

mod change;
mod index;
mod load;
mod manager;
mod retire;
mod scan;
mod stamp;
mod version_policy;
mod warm_up;

pub use index::{IndexEntry, IndexState, public_reason};
pub use load::{Engines, LoadVersionError, Loader, engines};
pub use manager::{ManageError, Manager, ManagerParts, Started};
pub use scan::{FoundModel, RepositoryError, Scan, scan, scan_model};
pub use version_policy::VersionPolicy;
