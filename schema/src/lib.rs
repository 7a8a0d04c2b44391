//! The wire contract of adjoin: what two processes must agree on to share memory.
//!
//! This crate knows no operating system, no thread and no clock. Two builds that agree on it work
//! together. What lies in shared memory is described in three parts:
//!
//! * [`layout`]: fixed-size records (ring entries, headers) and where the parts of a region begin;
//! * [`descriptor`]: FlatBuffers that say what is in a request or a response, read from a private
//!   copy into owned, bounded values and never in place;
//! * [`attach`]: the messages of the attach socket.
//!
//! [`limits`] holds every maximum with its reason, [`status`] every outcome with its stable number.

#![warn(missing_docs)]

pub mod attach;
pub mod descriptor;
mod dtype;
pub mod layout;
pub mod limits;
mod shape;
pub mod status;
pub mod text;

#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    clippy::nursery,
    clippy::style,
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    unused_imports,
    unused_qualifications,
    unreachable_pub,
    unsafe_code,
    elided_lifetimes_in_paths,
    missing_debug_implementations,
    mismatched_lifetime_syntaxes,
    rustdoc::all,
    reason = "written by flatc; tests/generated.rs checks that it is what flatc writes"
)]
#[rustfmt::skip]
mod generated;

pub use dtype::DataType;
pub use shape::{Shape, ShapeError, element_count};

/// Version of everything in this crate that both sides must agree on: the handshake, the layout of
/// regions and rings, the descriptors. A server speaks this one and, once there is one, the one before.
pub const PROTOCOL_VERSION: u32 = 1;

#[cfg(not(target_endian = "little"))]
compile_error!(
    "regions hold little-endian integers that are read in place; this target is big-endian"
);
