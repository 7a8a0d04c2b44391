//! Benchmarks of adjoin's pieces: `cargo bench -p adjoin-benches`. What users feel is measured by `adjoin bench`.
