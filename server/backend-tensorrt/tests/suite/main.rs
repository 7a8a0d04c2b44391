//! The backend on a TensorRT and a CUDA driver of ours (tests/fake-nvinfer, tests/fake-cuda). Every test runs in a process of
//! its own; what the fake driver found wrong fails it, and so does whatever was not given back.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "helpers of tests, and small numbers"
)]

mod fixture;
mod library;
mod pixels;
mod plans;
mod runs;
