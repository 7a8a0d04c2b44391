//! The C ABI of adjoin's client. `include/adjoin.h` is made of this crate by cbindgen and is its
//! documentation: what stands at an exported item here is the comment there.
//!
//! Every exported function is a thin edge around `adjoin_client`: it checks its arguments
//! ([`call`], [`handle`]), does one thing, and turns errors and panics into a status ([`status`],
//! [`failure`]). A handle is a box whose address C has; no Rust type crosses. Enums come in as
//! plain numbers and are looked up, as C can pass any.

#![allow(
    unsafe_code,
    reason = "C passes addresses, and the exported names must not be mangled"
)]
#![allow(
    clippy::missing_safety_doc,
    reason = "what callers owe is said once for all functions, at the top of include/adjoin.h"
)]

pub mod version;

pub mod status;

pub mod error;

pub mod dtype;

pub mod options;

pub mod client;

pub mod model;

pub mod builder;

pub mod request;

pub mod run;

pub mod output;

pub mod watch;

pub mod bytes;

mod call;
mod failure;
mod handle;

/// No limit of time, where a call takes one in nanoseconds.
pub const ADJOIN_FOREVER: u64 = u64::MAX;
