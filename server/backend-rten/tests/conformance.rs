//! The suite that every backend passes, on rten.

use std::path::Path;

use adjoin_backend::conformance::{Options, run};
use adjoin_backend_rten::RtenBackend;

#[test]
fn rten_conforms() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    run(
        &RtenBackend,
        &Options {
            models: root.join("tests/models"),
            digits: root.join("demo/digits"),
            // It has no float16.
            refused: &["half"],
            has_narrow_int64: true,
            copies_payload: true,
            checks_values: true,
            placement: Default::default(),
        },
    );
}
