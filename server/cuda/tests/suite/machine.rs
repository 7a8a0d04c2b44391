//! What a machine lacks is said in one clear error.

use adjoin_cuda::{CudaError, Driver};
use fake_cuda::harness::FakeCuda;

#[test]
fn no_driver() {
    FakeCuda::absent().run("machine::no_driver", || {
        // A machine with a driver of its own finds that one: then there is nothing to see here.
        match Driver::find() {
            Err(error) => {
                assert_eq!(error, CudaError::NoDriver);
                assert!(error.to_string().contains("libcuda.so.1"));
            }
            Ok(_) => assert!(std::path::Path::new("/dev/nvidiactl").exists()),
        }
    });
}

#[test]
fn a_driver_that_is_too_old() {
    let lacking = ["cuMemcpyDtoDAsync_v2", "cuMemSetAccess"];
    let fake = FakeCuda::new().lacking(&lacking);
    fake.run("machine::a_driver_that_is_too_old", || {
        let error = Driver::find().unwrap_err();
        let CudaError::DriverTooOld { missing } = &error else {
            panic!("{error}");
        };
        assert_eq!(missing, &lacking.join(", "));
        assert!(error.to_string().contains("install driver 525 or later"));
        // The same each time.
        assert_eq!(Driver::find().unwrap_err(), error);
    });
}

#[test]
fn a_driver_without_what_only_newer_ones_have() {
    let fake = FakeCuda::new().lacking(&["cuMemcpyBatchAsync"]);
    let report = fake.run(
        "machine::a_driver_without_what_only_newer_ones_have",
        || {
            let driver = Driver::find().unwrap();
            assert!(!driver.has_batched_copy());
            driver.device(0).unwrap();
        },
    );
    report.assert_clean();
}

#[test]
fn no_device() {
    let fake = FakeCuda::new().set("FAKE_CUDA_DEVICES", 0);
    fake.run("machine::no_device", || {
        assert_eq!(Driver::find().unwrap_err(), CudaError::NoDevice);
    });
}

#[test]
fn a_driver_that_does_not_start() {
    let fake = FakeCuda::new().fail("cuInit:1+:999");
    fake.run("machine::a_driver_that_does_not_start", || {
        let error = Driver::find().unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cuInit failed: CUDA_ERROR_UNKNOWN (999)"),
            "{error}"
        );
    });
}

#[test]
fn a_number_that_no_driver_explains() {
    let fake = FakeCuda::new().fail("cuInit:1+:424242");
    fake.run("machine::a_number_that_no_driver_explains", || {
        let error = Driver::find().unwrap_err();
        assert!(
            error
                .to_string()
                .contains("unknown to this driver (424242)"),
            "{error}"
        );
    });
}

#[test]
fn wrong_device() {
    let fake = FakeCuda::new().set("FAKE_CUDA_DEVICES", 2);
    let report = fake.run("machine::wrong_device", || {
        let driver = Driver::find().unwrap();
        assert_eq!(driver.device_count(), 2);
        assert!(driver.device(1).is_ok());
        let error = driver.device(2).unwrap_err();
        assert_eq!(error, CudaError::WrongDevice { index: 2, count: 2 });
        let error = driver.device(u32::MAX).unwrap_err();
        assert!(matches!(error, CudaError::WrongDevice { .. }));
    });
    report.assert_clean();
}

#[test]
fn facts() {
    FakeCuda::new().run_anywhere("machine::facts", || {
        let driver = Driver::find().unwrap();
        let facts = driver.facts(0).unwrap();
        assert!(!facts.name.is_empty() && facts.memory_bytes > 0);
        assert!(facts.compute_capability >= (7, 0));
        assert!(driver.version() >= (12, 0));
    });
}
