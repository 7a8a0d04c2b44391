//! `adjoin doctor` on machines with and without a device, and beside a server that has one.

use std::process::Output;

use adjoin_tests::gpu::GpuSetup;
use adjoin_tests::wait_for;
use fake_cuda::harness::FakeCuda;
use serde_json::Value;

use crate::affine;
use crate::clients::{request, run};

/// State, text and advice of a finding; `None` if there is none of that name.
fn finding(output: &Output, name: &str) -> Option<(String, String, String)> {
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["name"] == name)?;
    let part = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Some((part("state"), part("found"), part("advice")))
}

/// The doctor on such a machine, where no server runs.
fn doctor(fake: FakeCuda, arguments: &[&str]) -> Output {
    let arguments = [&["doctor", "--json", "--socket-dir", "nowhere"], arguments].concat();
    GpuSetup::new(fake, &[]).run(&arguments)
}

#[test]
fn a_device_and_tensorrt_that_work_are_said_with_what_they_are() {
    let directory = adjoin_fake_nvinfer::directory();
    let output = doctor(
        FakeCuda::new(),
        &["--tensorrt", directory.to_str().unwrap()],
    );
    let (state, found, _) = finding(&output, "device").unwrap();
    assert_eq!(state, "ok");
    assert!(
        found.contains("1.0 GiB") || found.contains("1 GiB"),
        "{found}"
    );
    let (state, found, _) = finding(&output, "registering with the device").unwrap();
    assert_eq!(state, "ok", "{found}");
    assert!(found.contains("cuda.registered_bytes"), "{found}");
    let (state, found, _) = finding(&output, "TensorRT").unwrap();
    assert_eq!(state, "ok", "{found}");
    let version = format!("tensorrt {}.4.0", adjoin_fake_nvinfer::major());
    assert!(
        found.contains(&version) && found.contains("libnvinfer.so"),
        "{found}"
    );
}

#[test]
fn what_is_missing_is_said_with_what_to_do() {
    let too_old = FakeCuda::new().lacking(&["cuMemSetAccess"]);
    let mut machines = vec![
        (
            FakeCuda::new().set("FAKE_CUDA_DEVICES", 0),
            "sees no device",
            "CUDA_VISIBLE_DEVICES",
        ),
        (
            too_old,
            "lacks cuMemSetAccess",
            "install driver 525 or later",
        ),
    ];
    if !std::path::Path::new("/dev/nvidiactl").exists() {
        machines.push((
            FakeCuda::absent(),
            "no CUDA driver",
            "install NVIDIA's driver",
        ));
    } else {
        eprintln!("left out: a machine without a driver; this one has one");
    }
    for (fake, says, advises) in machines {
        let output = doctor(fake.clone(), &[]);
        let (state, found, advice) = finding(&output, "device").unwrap();
        assert_eq!(state, "warn");
        assert!(found.contains(says), "{found}");
        assert!(advice.contains(advises), "{advice}");
        assert_eq!(finding(&output, "registering with the device"), None);
        // Nobody opens TensorRT without a device: its lean runtime would end the process.
        let directory = adjoin_fake_nvinfer::directory();
        let output = doctor(fake, &["--tensorrt", directory.to_str().unwrap()]);
        let (state, found, _) = finding(&output, "TensorRT").unwrap();
        assert_eq!(state, "ok");
        assert!(found.contains("not opened without a device"), "{found}");
    }
}

#[test]
fn a_device_that_the_configuration_names_has_to_be_there() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("adjoin.toml");
    std::fs::write(&config, "[cuda]\ndevice = 3\n").unwrap();
    let output = doctor(FakeCuda::new(), &["--config", config.to_str().unwrap()]);
    let (state, found, _) = finding(&output, "device").unwrap();
    assert_eq!(state, "fail");
    assert!(found.contains("no CUDA device 3"), "{found}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn registrations_that_are_refused_and_libraries_that_are_none_are_said_with_what_to_do() {
    let fake = FakeCuda::new().fail("cuMemHostRegister_v2:1+:2");
    let output = doctor(fake, &["--tensorrt", "/nowhere/at/all"]);
    let (state, found, advice) = finding(&output, "registering with the device").unwrap();
    assert_eq!(state, "warn");
    assert!(found.contains("CUDA_ERROR_OUT_OF_MEMORY"), "{found}");
    assert!(advice.contains("ulimit -l"), "{advice}");
    let (state, found, advice) = finding(&output, "TensorRT").unwrap();
    assert_eq!(state, "fail", "{found}");
    assert!(advice.contains("--tensorrt"), "{advice}");
}

#[test]
fn a_running_servers_device_is_told_by_what_it_has_registered_and_copied() {
    let server = GpuSetup::new(FakeCuda::new(), &[])
        .plan("affine", affine(), "max_batch_size: 8")
        .config("[cuda]\nregistered_bytes = 2621440")
        .start();
    let clients = [server.client(), server.client()];
    wait_for("the second session is refused", || {
        (server.regions("refused") == 2).then_some(())
    });
    run(&mut request(&clients[0], "affine", 2), 1.0).unwrap();
    let socket_dir = server.socket_dir();
    let arguments = [
        "doctor",
        "--json",
        "--socket-dir",
        socket_dir.to_str().unwrap(),
    ];
    let output = GpuSetup::new(FakeCuda::new(), &[]).run(&arguments);
    let (state, found, _) = finding(&output, "server's device").unwrap();
    assert_eq!(state, "ok", "{found}");
    let (state, found, advice) = finding(&output, "server's registered memory").unwrap();
    assert_eq!(state, "warn", "{found}");
    assert!(found.contains("2 staged"), "{found}");
    assert!(advice.contains("cuda.registered_bytes"), "{advice}");
    let (state, found, _) = finding(&output, "server's payload bytes").unwrap();
    assert_eq!(state, "ok", "{found}");
    assert!(
        found.starts_with("64 B") || found.starts_with("64 bytes"),
        "{found}"
    );
}
