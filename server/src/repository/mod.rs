//! The model repository: `NAME/VERSION/model.onnx`, as users of other servers have it, and how models come and go
//! while the server runs ([`Manager`]).

mod change;
mod configure;
mod device;
mod index;
mod labels;
mod load;
mod manager;
mod recovery;
mod retire;
mod sample;
mod scan;
mod spoilers;
mod stamp;
#[cfg(feature = "tensorrt")]
mod tensorrt;
mod version_policy;
mod view;
mod warm_up;

pub use configure::ConfigureError;
pub use index::{IndexEntry, IndexState, public_reason};
pub use load::{EngineLibraries, Engines, LoadVersionError, Loader, engines};
pub use manager::{ManageError, Manager, ManagerParts, Started};
pub use scan::{FoundModel, Repository, RepositoryError, Scan};
#[cfg(feature = "tensorrt")]
pub use tensorrt::{find_tensorrt, open_tensorrt};
pub use version_policy::VersionPolicy;
