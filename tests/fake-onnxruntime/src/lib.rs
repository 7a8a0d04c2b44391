//! ONNX Runtime with GPU providers that are none, for tests of adjoin. Never shipped.
//!
//! As a library that is loaded (`libfake_onnxruntime.so`) it is ONNX Runtime: `entry` has the functions that it replaces.
//! As a library that a test links it is the [`harness`]. README.md says what it shows, and what it cannot show.
#![allow(
    unsafe_code,
    reason = "is called from C, and calls the real library and the driver"
)]

mod driver;
mod entry;
pub mod harness;
pub mod report;
mod run;
mod state;
