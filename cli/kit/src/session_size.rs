//! How large a session has to be for the requests of a measurement.

use crate::tensor::Tensor;

/// Room in a region beside tensors: rings, descriptors.
const OVERHEAD_BYTES: u64 = 1 << 20;
/// Room for an output whose size nobody knows.
const UNKNOWN_BYTES: u64 = 16 << 20;

/// Bytes of a region that holds these tensors for each request of a pipeline.
#[must_use]
pub fn region_bytes(tensors: &[Tensor], pipeline: u32) -> u64 {
    let bytes = tensors.iter().map(|tensor| {
        tensor
            .byte_size
            .unwrap_or(UNKNOWN_BYTES)
            .next_multiple_of(64)
            + 64
    });
    // The client library keeps a sixteenth of the request region for descriptors.
    OVERHEAD_BYTES + (u64::from(pipeline) * bytes.sum::<u64>()).div_ceil(15) * 16
}

/// Places in the completion ring for a pipeline.
#[must_use]
pub fn ring_entries(pipeline: u32) -> u32 {
    (2 * pipeline).next_power_of_two().clamp(256, 4096)
}
