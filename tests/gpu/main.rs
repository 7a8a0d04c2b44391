//! A whole server with a device, and real clients of all kinds: the `adjoin` command on a CUDA driver, a TensorRT and GPU
//! providers of ours (tests/fake-cuda, tests/fake-nvinfer, tests/fake-onnxruntime). What those cannot show, these tests cannot
//! either; `tools/gpu-check` has a server on a GPU. `make gpu` builds the command and runs them.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "helpers of tests: a failure is a failed test"
)]

mod clients;
mod doctor;
mod hostile_shared;
mod lost;
mod machines;
mod onnx;
mod overlap;
mod pixels;
mod plans;
mod python;
mod serving;
mod shared;

use adjoin_fake_nvinfer::Plan;

/// Columns of [`wide`].
const WIDE: u64 = 65_536;
/// A model on the device that is bound by its copies: rows of 256 KiB, up to 4 of them.
fn wide() -> Plan {
    Plan::new(adjoin_fake_nvinfer::major())
        .line("input x FP32 -1,65536")
        .line("output y FP32 -1,65536")
        .line("profile 0 x 1,65536 2,65536 4,65536")
        .line("affine x y 2 1")
}

/// A small one: rows of four, up to 8 of them.
fn affine() -> Plan {
    Plan::affine(adjoin_fake_nvinfer::major())
}
