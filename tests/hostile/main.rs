//! Clients that lie: raw programs that write whatever bytes they like where a client may write. Each ends its own
//! session at worst; a neighbour's answers are checked bit for bit meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::type_complexity,
    reason = "helpers of tests: a failure is a failed test"
)]

mod attach;
mod descriptors;
mod memory;
mod neighbour;
mod rings;
