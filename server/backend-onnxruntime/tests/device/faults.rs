//! What is missing or fails: an error for the model or the batch that it concerns, and nothing else.

use std::sync::Arc;

use adjoin_backend::conformance::onnx::Graph;
use adjoin_backend::{Backend, ExecuteError, Instance};
use adjoin_backend_onnxruntime::{DeviceAccess, OnnxRuntimeBackend};
use adjoin_cuda::Driver;
use fake_onnxruntime::harness::{self, FAIL};

use crate::fixture::{
    Machine, accelerated, add_of_rows, double, doubled, expect, fake, plain, request,
};

#[test]
fn a_provider_whose_library_is_missing_is_an_error_that_says_what_to_do() {
    for provider in ["cuda", "tensorrt"] {
        let fake = fake().set(FAIL, provider);
        let test = "faults::a_provider_whose_library_is_missing_is_an_error_that_says_what_to_do";
        fake.run(test, || {
            let machine = Machine::new();
            // A child runs the first turn of the loop, whichever provider was to fail in it.
            let asked = std::env::var(FAIL).unwrap();
            let refused = machine.refusal(&add_of_rows(), accelerated(&asked, &[]), 8);
            let library = format!("libonnxruntime_providers_{asked}.so");
            for word in [&*library, "docs/onnxruntime-gpu.md"] {
                assert!(
                    refused.contains(word),
                    "{refused:?} should contain {word:?}"
                );
            }
            machine.end();
        });
    }
}

#[test]
fn without_a_device_a_model_for_it_is_refused_with_the_reason() {
    let test = "faults::without_a_device_a_model_for_it_is_refused_with_the_reason";
    fake().run(test, || {
        let machine = Machine::new();
        // Another device than there is, by the number that a server would be configured with.
        let access = DeviceAccess {
            open: Arc::new(|| {
                let device = Driver::find().and_then(|driver| driver.device(3));
                Err(device.map(drop).unwrap_err().to_string())
            }),
            engine_cache: None,
        };
        let backend = OnnxRuntimeBackend::open(&harness::library()).unwrap();
        let source = machine.source(&add_of_rows(), plain(), 8);
        let refused = backend.clone().with_device(access).load(&source);
        let refused = refused.map(drop).unwrap_err().to_string();
        for word in ["KIND_GPU", "there is no CUDA device 3"] {
            assert!(
                refused.contains(word),
                "{refused:?} should contain {word:?}"
            );
        }
        // And by an engine that was given none.
        let refused = backend.load(&source).map(drop).unwrap_err().to_string();
        assert!(refused.contains("KIND_CPU"), "{refused}");
        machine.end();
    });
}

#[test]
fn models_of_strings_and_wrong_parameters_are_refused() {
    const STRING: u64 = 8;
    let test = "faults::models_of_strings_and_wrong_parameters_are_refused";
    let report = fake().run(test, || {
        let machine = Machine::new();
        let graph = Graph::default()
            .node("Identity", &["x"], &["y"])
            .input("x", STRING, &["n"])
            .output("y", STRING, &["n"])
            .model();
        let refused = machine.refusal(&graph, plain(), 8);
        for word in ["\"x\"", "strings", "KIND_CPU"] {
            assert!(
                refused.contains(word),
                "{refused:?} should contain {word:?}"
            );
        }
        let unknown = accelerated("cuda", &[("cudnn_speed", "11")]);
        let refused = machine.refusal(&add_of_rows(), unknown, 8);
        assert!(refused.contains("\"cudnn_speed\""), "{refused}");
        machine.end();
    });
    report.assert_clean();
}

#[test]
fn a_device_without_room_fails_the_batch_that_needs_it_and_no_other() {
    let fake = fake().set("FAKE_CUDA_MEMORY", 8 << 20);
    let test = "faults::a_device_without_room_fails_the_batch_that_needs_it_and_no_other";
    let report = fake.run(test, || {
        let machine = Machine::new();
        let model = machine.load(&add_of_rows(), 4);
        let mut instance = model.instance().unwrap();
        expect(&mut *instance, 0, &[1, 2]);
        // 3 MiB for each of three tensors.
        let large = [request(1, 3 << 16)];
        let error = double(&mut *instance, &large).unwrap_err();
        assert!(error.to_string().contains("OUT_OF_MEMORY"), "{error}");
        expect(&mut *instance, 2, &[1, 2]);
        // What fits without reserve is served, although there is no room to grow ahead.
        let fits = [request(3, 3 << 14)];
        assert_eq!(double(&mut *instance, &fits).unwrap(), doubled(&fits));
        // A model that needs more from the start is not loaded.
        let none = machine.load(&add_of_rows(), 1 << 18);
        let refused = none.instance().map(drop).unwrap_err().to_string();
        assert!(refused.contains("OUT_OF_MEMORY"), "{refused}");
        drop((none, instance, model));
        machine.end();
    });
    report.assert_clean();
}

#[test]
fn a_session_that_does_not_start_is_an_error_of_its_model() {
    let fake = fake().set(FAIL, "session:2");
    let test = "faults::a_session_that_does_not_start_is_an_error_of_its_model";
    let report = fake.run(test, || {
        let machine = Machine::new();
        let model = machine.load(&add_of_rows(), 4);
        let refused = machine.refusal(&add_of_rows(), plain(), 4);
        assert!(refused.contains("out of memory"), "{refused}");
        let mut instance = model.instance().unwrap();
        expect(&mut *instance, 0, &[1, 2]);
        drop((instance, model));
        machine.end();
    });
    report.assert_clean();
}

/// How many of some batches were right; every one that came back was.
fn right(instance: &mut dyn Instance, turns: usize) -> usize {
    let turn = |turn: usize| {
        let requests = [request(turn, 1), request(turn + 1, 2)];
        let answer = double(instance, &requests).ok()?;
        assert_eq!(answer, doubled(&requests));
        Some(())
    };
    (0..turns).filter_map(turn).count()
}

#[test]
fn a_run_that_the_engine_refuses_fails_alone() {
    let fake = fake().set(FAIL, "run:3").delay_us("0-200");
    let report = fake.run("faults::a_run_that_the_engine_refuses_fails_alone", || {
        let machine = Machine::new();
        let model = machine.load(&add_of_rows(), 4);
        let mut instance = model.instance().unwrap();
        assert_eq!(right(&mut *instance, 12), 11);
        drop((instance, model));
        machine.end();
    });
    report.assert_clean();
}

#[test]
fn failures_of_the_driver_fail_the_batch_and_leave_nothing_under_way() {
    for failure in [
        "cuMemcpyHtoDAsync_v2:4:1",
        "cuMemcpyDtoHAsync_v2:3:1",
        "cuEventRecord:20:1",
        "cuLaunchHostFunc:4:1",
    ] {
        let fake = fake().fail(failure).delay_us("0-200");
        let test = "faults::failures_of_the_driver_fail_the_batch_and_leave_nothing_under_way";
        let report = fake.run(test, || {
            let machine = Machine::new();
            let model = machine.load(&add_of_rows(), 4);
            let mut instance = model.instance().unwrap();
            let right = right(&mut *instance, 12);
            assert!(right >= 10, "one failure, and {right} of 12 were right");
            drop((instance, model));
            machine.end();
        });
        report.assert_clean();
    }
}

#[test]
fn a_lost_device_is_told_as_such() {
    let fake = fake().fail("exec.copy:9:700").delay_us("0-200");
    fake.run("faults::a_lost_device_is_told_as_such", || {
        let machine = Machine::new();
        let model = machine.load(&add_of_rows(), 4);
        assert!(model.is_on_device());
        let mut instance = model.instance().unwrap();
        let mut lost = 0;
        for turn in 0..12 {
            let requests = [request(turn, 1), request(turn, 2)];
            match double(&mut *instance, &requests) {
                Ok(answer) => assert_eq!((answer, lost), (doubled(&requests), 0)),
                Err(ExecuteError::DeviceLost { engine, .. }) => {
                    assert_eq!(engine, "onnxruntime");
                    lost += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(lost > 0 && machine.transfers.device().is_lost());
    });
}
