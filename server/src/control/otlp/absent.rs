//! Stands in for the sender in builds that have none.

use tokio::task::JoinHandle;

use crate::control::Shared;

/// Whether traces can be sent to an address.
pub(in crate::control) fn is_collector(_: &str) -> bool {
    false
}

/// Sends traces.
pub(in crate::control) fn spawn(_: &Shared) -> Option<JoinHandle<()>> {
    None
}
