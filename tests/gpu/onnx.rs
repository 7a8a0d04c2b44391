//! ONNX models on the device, by ONNX Runtime's provider of CUDA as tests/fake-onnxruntime plays it.

use adjoin_client::{InferError, Request, Status};
use adjoin_tests::gpu::GpuSetup;
use adjoin_tests::{add_request, wait_for};
use fake_cuda::harness::FakeCuda;

const CONFIG: &str = "backend: \"onnxruntime\" max_batch_size: 8
    instance_group { kind: KIND_GPU }";

/// Runs `a + b` on values from `base` on, and looks at its answer.
fn run(request: &mut Request, base: f32) -> Result<(), InferError> {
    for (name, offset) in [("a", base), ("b", 2.0 * base)] {
        let values = request.input_mut::<f32>(name).unwrap().iter_mut();
        for (index, value) in values.enumerate() {
            *value = offset + index as f32;
        }
    }
    let outputs = request.infer()?;
    for (index, value) in outputs.get::<f32>("sum").unwrap().iter().enumerate() {
        assert_eq!(*value, 3.0 * base + 2.0 * index as f32, "element {index}");
    }
    Ok(())
}

#[test]
fn no_processor_copies_what_sessions_send_to_an_onnx_model_and_get() {
    const SESSIONS: u64 = 3;
    const TURNS: u8 = 20;
    const ROWS: i64 = 2;
    let server = GpuSetup::new(FakeCuda::new().delay_us("0-500"), &["add"])
        .onnxruntime()
        .file("add/config.pbtxt", CONFIG)
        .start();
    let models = server.control().models();
    assert_eq!(models[0].engine, "onnxruntime", "{models:?}");
    let clients: Vec<_> = (0..SESSIONS).map(|_| server.client()).collect();
    server.wait_for_regions(SESSIONS);
    // Warm-up ran in memory of the server's own.
    let bytes = |path| ["to_device", "to_host"].map(|way| server.bytes(way, path));
    let (staged, pageable) = (bytes("staged"), bytes("pageable"));
    std::thread::scope(|scope| {
        for (session, client) in clients.iter().enumerate() {
            scope.spawn(move || {
                let mut request = add_request(&client.model("add").unwrap(), ROWS);
                for turn in 0..TURNS {
                    run(&mut request, f32::from(turn) + 1000.0 * session as f32).unwrap();
                }
            });
        }
    });
    let tensor = SESSIONS * u64::from(TURNS) * u64::try_from(ROWS).unwrap() * 16;
    assert_eq!(bytes("direct"), [2 * tensor, tensor], "each byte once");
    assert_eq!((bytes("staged"), bytes("pageable")), (staged, pageable));
    let counted = server.control().statistics("add");
    assert_eq!(counted.gathered_bytes + counted.scattered_bytes, 0);
    assert_eq!(counted.engine_copied_bytes + counted.copied_first_bytes, 0);
    let log = server.log();
    drop(clients);
    let report = server.end();
    assert!(!log.contains("violation"), "{log}");
    assert_eq!(report.violations, Vec::<String>::new());
    assert_eq!((report.pageable(), report.pending), (0, 0));
    let seen = [report.to_device_registered, report.to_host_registered];
    assert_eq!(seen, [2 * tensor, tensor], "as the driver has seen it");
}

/// The trial of graphs and warm-up of the two batches that an instance works on make 26 runs, so it is a client's that loses the
/// device.
#[test]
fn an_onnx_model_comes_back_when_the_device_was_lost() {
    let fake = FakeCuda::new().fail("exec.host_call:40:700");
    let server = GpuSetup::new(fake, &["add"])
        .onnxruntime()
        .file("add/config.pbtxt", CONFIG)
        .start();
    let client = server.client();
    server.wait_for_regions(1);
    let mut request = add_request(&client.model("add").unwrap(), 2);
    let error = wait_for("a request fails", || run(&mut request, 3.0).err());
    assert_eq!(error.status(), Some(Status::ExecutionFailed), "{error}");
    wait_for("the model is back", || {
        (server.is_model_ready("add") && run(&mut request, 4.0).is_ok()).then_some(())
    });
    for turn in 0..10_u8 {
        run(&mut request, f32::from(turn)).unwrap();
    }
    assert_eq!(
        server.metric("adjoin_device_resets_total{outcome=\"done\"}"),
        1
    );
    let log = server.log();
    drop((request, client));
    let report = server.end();
    assert!(!log.contains("violation"), "{log}");
    assert_eq!(report.violations, Vec::<String>::new());
}
