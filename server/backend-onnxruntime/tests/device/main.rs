//! Models on the device: on a CUDA driver and GPU providers of ours (tests/fake-cuda, tests/fake-onnxruntime). Every test
//! runs in a process of its own; what either of them found wrong fails it, and so does whatever was not given back.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "helpers of tests, and small numbers"
)]

mod conformance;
mod faults;
mod filling;
mod fixture;
mod graphs;
mod pixels;
mod runs;
mod tensorrt;
