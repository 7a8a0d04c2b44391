//! The C client as its users meet it: installed, compiled against by C and C++ compilers, and run by real
//! programs, under AddressSanitizer, against a real server in a process of its own.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

mod examples;
mod header;
mod library;
mod programs;
mod run;
mod stage;
