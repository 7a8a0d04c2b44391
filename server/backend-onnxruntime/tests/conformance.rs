//! The suite that every backend passes, on ONNX Runtime.

mod library;

use std::path::Path;

use adjoin_backend::conformance::{Options, run};

#[test]
fn onnxruntime_conforms() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    run(
        &library::backend(),
        &Options {
            models: root.join("tests/models"),
            digits: root.join("demo/digits"),
            refused: &[],
            has_narrow_int64: false,
            copies_payload: false,
            checks_values: true,
            placement: Default::default(),
        },
    );
}
