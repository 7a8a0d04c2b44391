//! The crate on a driver: tests/fake-cuda, or the machine's own with `ADJOIN_REAL_CUDA=1`.
//!
//! Every test runs in a process of its own, as a program loads one driver once. What the fake driver found wrong fails
//! the test, and so does whatever was not given back.
#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

mod faults;
mod fixture;
mod gather;
mod graphs;
mod kernels;
mod machine;
mod ptx;
mod regions;
mod registry;
mod sharing;
