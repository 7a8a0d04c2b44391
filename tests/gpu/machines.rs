//! Machines without what a server with a device needs: it says what is missing, and does not start if that was asked for by
//! name.

use adjoin_client::Status;
use adjoin_fake_nvinfer::Plan;
use adjoin_tests::gpu::GpuSetup;
use adjoin_tests::wait_for;
use fake_cuda::harness::FakeCuda;

use crate::affine;
use crate::clients::{request, run};

/// A server on such a machine, with and without a device in its configuration; both say the same.
fn does_not_start(fake: &FakeCuda, says: &[&str]) {
    for config in ["", "[cuda]\nregistered_bytes = 1048576"] {
        let log = GpuSetup::new(fake.clone(), &[])
            .plan("affine", affine(), "")
            .config(config)
            .start_in_vain();
        for words in says {
            assert!(log.contains(words), "{words:?} is not in\n{log}");
        }
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[test]
fn without_a_driver() {
    if std::path::Path::new("/dev/nvidiactl").exists() {
        eprintln!("skipped: this machine has a driver, which cannot be hidden from the loader");
        return;
    }
    does_not_start(
        &FakeCuda::absent(),
        &["no CUDA driver on this machine", "install NVIDIA's driver"],
    );
}

#[test]
fn without_a_device() {
    let fake = FakeCuda::new().set("FAKE_CUDA_DEVICES", 0);
    does_not_start(
        &fake,
        &["the CUDA driver sees no device", "CUDA_VISIBLE_DEVICES"],
    );
}

#[test]
fn with_a_driver_that_is_too_old() {
    let fake = FakeCuda::new().lacking(&["cuMemcpyDtoDAsync_v2"]);
    does_not_start(
        &fake,
        &[
            "the CUDA driver lacks cuMemcpyDtoDAsync_v2",
            "install driver 525 or later",
        ],
    );
}

#[test]
fn with_a_driver_that_does_not_start() {
    let fake = FakeCuda::new().fail("cuInit:1+:999");
    does_not_start(&fake, &["cuInit failed: CUDA_ERROR_UNKNOWN (999)"]);
}

#[test]
fn with_another_device_than_the_one_that_is_configured() {
    let log = GpuSetup::new(FakeCuda::new(), &[])
        .plan("affine", affine(), "")
        .config("[cuda]\ndevice = 7")
        .start_in_vain();
    assert!(
        log.contains("there is no CUDA device 7: this machine has 1"),
        "{log}"
    );
}

#[test]
fn a_device_without_room_for_one_model_serves_the_others() {
    // Enough for what a device is measured with, and for both batches of the small one.
    let fake = FakeCuda::new().set("FAKE_CUDA_MEMORY", 32 << 20);
    let huge = Plan::new(adjoin_fake_nvinfer::major())
        .line("input x FP32 -1,4194304")
        .line("output y FP32 -1,4194304")
        .line("profile 0 x 1,4194304 2,4194304 4,4194304")
        .line("affine x y 2 1");
    let server = GpuSetup::new(fake, &["add"])
        .plan("affine", affine(), "max_batch_size: 8")
        .plan("huge", huge, "max_batch_size: 4")
        .start();
    let (state, reason) = server.index("huge");
    assert_eq!(state, "UNAVAILABLE");
    assert!(reason.contains("out of memory"), "{reason}");
    assert_eq!(server.index("affine").0, "READY");
    assert!(!server.is_model_ready("huge") && server.is_model_ready("affine"));
    assert!(server.is_ready());
    let client = server.client();
    run(&mut request(&client, "affine", 2), 5.0).unwrap();
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
}

#[test]
fn without_memory_for_an_enqueue_one_batch_fails_and_the_model_stays() {
    // Warm-up makes no 30 runs; each takes one of these.
    let fake = FakeCuda::new().fail("cuLaunchHostFunc:30:2,cuEventRecord:200:2,cuGraphLaunch:9:2");
    let server = GpuSetup::new(fake, &[])
        .plan("affine", affine(), "max_batch_size: 8")
        .start();
    let client = server.client();
    server.wait_for_regions(1);
    let mut failed = 0;
    // Sizes that come once are enqueued, those that come again are graphs.
    for turn in 0..60_i64 {
        let mut request = request(&client, "affine", turn % 8 + 1);
        match run(&mut request, turn as f32) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.status(), Some(Status::ExecutionFailed), "{error}");
                failed += 1;
            }
        }
    }
    assert!((1..=3).contains(&failed), "{failed} requests failed");
    assert!(server.is_model_ready("affine"));
    assert_eq!(server.metric("adjoin_device_working"), 1);
    wait_for("nothing is under way", || {
        (server.regions("registered") == 2).then_some(())
    });
    let report = server.end();
    assert_eq!(
        (report.violations.len(), report.resets),
        (0, 0),
        "{report:#?}"
    );
}
