//! Arrays on the device from Python, whose package `make python` puts into an environment of its own.

use std::process::Command;

use adjoin_tests::gpu::GpuSetup;
use fake_cuda::harness::FakeCuda;

use crate::affine;

#[test]
#[ignore = "needs the Python package: `make python-gpu`"]
fn arrays_on_the_device_are_inputs_and_outputs() {
    let python = std::env::var_os("ADJOIN_PYTHON").expect("ADJOIN_PYTHON names an interpreter");
    let server = GpuSetup::new(FakeCuda::new().delay_us("0-300"), &["add"])
        .plan("affine", affine(), "max_batch_size: 8")
        .start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/gpu/device_arrays.py");
    let mut command = Command::new(python);
    command.arg(script).arg(server.socket_dir());
    server.on_its_driver(&mut command);
    let output = command.output().unwrap();
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}");
    // Three runs of two rows.
    let within = ["gather", "scatter"].map(|path| server.bytes("within", path));
    assert_eq!(within, [3 * 32, 3 * 32]);
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
    assert_eq!(report.to_device_registered + report.to_host_registered, 0);
}
