//! The load generator as a user runs it, against real servers: adjoin's, one of iceoryx2, and one of HTTP that
//! is in this program.

#![allow(
    clippy::unwrap_used,
    reason = "a test harness: a failure here is a failed test"
)]

mod errors;
mod harness;
mod interrupt;
mod measuring;
mod stub;
