//! The suite that every backend passes, on the device.

use std::path::Path;

use adjoin_backend::conformance::{Options, run};
use adjoin_backend::{DevicePlacement, Placement};

use crate::fixture::{Machine, fake};

#[test]
fn a_model_on_the_device_conforms() {
    let report = fake().run("conformance::a_model_on_the_device_conforms", || {
        let machine = Machine::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        run(
            &machine.backend(),
            &Options {
                models: root.join("tests/models"),
                digits: root.join("demo/digits"),
                refused: &["text"],
                has_narrow_int64: false,
                copies_payload: false,
                // A gather by an index out of range is no error of CUDA's provider.
                checks_values: false,
                placement: Placement::Device(DevicePlacement::default()),
            },
        );
        machine.end();
    });
    report.assert_clean();
    // No request's region was registered, so all of it went through memory that the driver had pinned.
    assert!(report.to_device_pinned > 0, "{report:#?}");
    assert_eq!(report.pageable(), 0, "{report:#?}");
}
