//! A CUDA driver without a device, for tests of adjoin. Never shipped.
//!
//! As a library that is loaded (`libfake_cuda.so`, under the name `libcuda.so`) it is the driver: `driver` is what it
//! does, `entry` has the functions of the driver's C interface. As a library that a test links it is the [`harness`]
//! that runs a test in a process of its own with this driver.
//!
//! README.md says what it shows, and what it cannot show.
#![allow(
    unsafe_code,
    reason = "is called from C, and plays a device that reaches memory by address"
)]

mod driver;
mod entry;
pub mod harness;
pub mod report;
