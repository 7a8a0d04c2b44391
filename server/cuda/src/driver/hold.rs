//! What a transfer needs to stay where it is until it is over.

use std::fmt;
use std::sync::Arc;

use adjoin_shm::Region;

use super::graph::GraphParts;
use super::host::PinnedMemory;
use super::memory::DeviceMemory;
use super::module::Module;
use crate::registry::Registered;

/// Keeps something alive for a transfer. Dropped once an event behind the transfer has fired.
#[derive(Debug)]
#[allow(
    dead_code,
    reason = "most fields are there to be dropped, not to be read"
)]
pub(crate) enum Hold {
    /// A region that is registered in a context of which nobody knows what it still does.
    Mapping(Region, Option<Owner>),
    Registered(Arc<Registered>),
    Pinned(Arc<PinnedMemory>),
    Device(Arc<DeviceMemory>),
    Module(Arc<Module>),
    Graph(Arc<GraphParts>),
}

/// Whatever its owner wants to be dropped with a mapping.
pub(crate) struct Owner(
    #[allow(dead_code, reason = "there to be dropped, not to be read")] pub(crate) Box<dyn Send>,
);

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Owner")
    }
}

impl Hold {
    /// Whether both keep the same memory.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Registered(one), Self::Registered(two)) => Arc::ptr_eq(one, two),
            (Self::Pinned(one), Self::Pinned(two)) => Arc::ptr_eq(one, two),
            (Self::Device(one), Self::Device(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }
}
