//! Memory shared between processes that do not trust each other.
//!
//! The only crate of adjoin that maps memory. What it gives out is safe to use whatever the other
//! process does, short of this process handing out its own descriptors.
//!
//! # The rules of the shared ground
//!
//! * No reference or slice is ever formed over bytes that a peer may be writing, unless of atomics.
//!   Payload is passed on as [`Payload`]: a pointer with a size, bound to the mapping's life.
//! * A word that a peer writes is read once into a local, checked against what this side knows
//!   privately, then used. Nothing is read twice.
//! * Descriptors are copied out ([`Region::copy_out`]) before anything looks into them.
//! * Offsets cross the boundary, addresses never do.
//! * The server creates every region and seals its size, so no peer can take pages from under it. Memory that a client
//!   names ([`NamedObject`]) has no such seal and is never mapped.
//!
//! # What is where
//!
//! [`SessionMemory`] creates the regions of a session (server); [`ClientMemory`] maps what came over
//! the attach socket (client). [`ring`] has the logic of rings, [`doorbell`] sleeping and waking,
//! [`socket`] the attach socket with descriptor passing, [`Arena`] hands out payload space.

#![warn(missing_docs)]
#![allow(
    unsafe_code,
    reason = "maps memory, reads what a peer may be writing, and passes descriptors"
)]

#[cfg(not(loom))]
mod aligned;
#[cfg(not(loom))]
mod arena;
#[cfg(not(loom))]
mod bell;
#[cfg(not(loom))]
mod blank;
#[cfg(not(loom))]
mod buffer;
#[cfg(not(loom))]
pub mod clock;
pub mod doorbell;
#[cfg(not(loom))]
mod fork;
#[cfg(not(loom))]
mod mapping;
#[cfg(not(loom))]
mod memfd;
#[cfg(not(loom))]
mod named;
#[cfg(not(loom))]
mod payload;
#[cfg(all(feature = "tokio", not(loom)))]
mod readiness;
#[cfg(not(loom))]
mod region;
pub mod ring;
#[cfg(not(loom))]
mod session;
#[cfg(not(loom))]
pub mod socket;
#[cfg(not(loom))]
mod spin;
#[cfg(not(loom))]
mod stand_in;
mod sync;
#[cfg(not(loom))]
mod view;
#[cfg(not(loom))]
mod writable;

#[cfg(not(loom))]
pub use aligned::{AlignedBytes, padding};
#[cfg(not(loom))]
pub use arena::{Arena, OwnedRange};
#[cfg(not(loom))]
pub use bell::Bell;
#[cfg(not(loom))]
pub use buffer::AlignedBuffer;
#[cfg(not(loom))]
pub use fork::ForkGuard;
#[cfg(not(loom))]
pub use memfd::MemfdError;
#[cfg(not(loom))]
pub use named::{NamedDirectory, NamedError, NamedObject};
#[cfg(not(loom))]
pub use payload::{Payload, PayloadMut};
#[cfg(all(feature = "tokio", not(loom)))]
pub use readiness::Readiness;
#[cfg(not(loom))]
pub use region::{Region, RegionError};
#[cfg(not(loom))]
pub use session::{ClientMemory, SessionMemory};
#[cfg(not(loom))]
pub use spin::SpinBudget;
#[cfg(not(loom))]
pub use stand_in::StandIn;
#[cfg(not(loom))]
pub use view::{Element, ElementError, output_slice};
#[cfg(not(loom))]
pub use writable::WritablePart;
