//! The GPU that a server on this machine would have, TensorRT, and what a running server has to do with them.

use std::path::Path;

use adjoin_control_api::control::DeviceStatus;
use adjoin_server::config::CheckedFile;
use adjoin_server::devices::{DeviceError, DeviceProbe, Devices};

use super::Finding;
use crate::output::bytes_text;

const DEVICE: &str = "device";
const REGISTRATION: &str = "registering with the device";
#[cfg(feature = "tensorrt")]
const TENSORRT: &str = "TensorRT";
const SERVERS_DEVICE: &str = "server's device";
const SERVERS_REGIONS: &str = "server's registered memory";
const SERVERS_BYTES: &str = "server's payload bytes";

/// What a server with this configuration would have; nothing in a build that uses no GPU.
pub(super) fn findings(config: &CheckedFile, tensorrt: Option<&Path>) -> Vec<Finding> {
    // Without a device of the configuration's, the one that an engine would open.
    let opened = Devices::new(config.cuda);
    let probed = opened.and_then(|devices| {
        let probe = devices.probe()?;
        Ok((devices, probe))
    });
    let mut findings = Vec::new();
    let devices = match probed {
        Err(DeviceError::NotBuilt) => return findings,
        Err(error) => {
            findings.push(missing(&error, config.cuda.is_some()));
            None
        }
        Ok((devices, probe)) => {
            findings.push(found(&probe));
            findings.push(registration(&probe));
            Some(devices)
        }
    };
    findings.extend(library(tensorrt, devices.as_ref()));
    findings
}

/// No device: what the driver says has what to do in it.
fn missing(error: &DeviceError, is_wanted: bool) -> Finding {
    let text = error.to_string();
    let (found, advice) = text.split_once("; ").unwrap_or((
        text.as_str(),
        "look at what `nvidia-smi` says of driver and device",
    ));
    if is_wanted {
        return Finding::fail(
            DEVICE,
            format!("{found}; the configuration names one"),
            advice,
        );
    }
    Finding::warn(
        DEVICE,
        format!("{found}: models run on the processor"),
        format!("for models on a GPU: {advice}"),
    )
}

fn found(probe: &DeviceProbe) -> Finding {
    let (major, minor) = probe.driver;
    let text = format!(
        "{} (number {}), {} free of {}, CUDA {major}.{minor}",
        probe.name,
        probe.index,
        bytes_text(probe.free_bytes),
        bytes_text(probe.memory_bytes),
    );
    // A tenth is little for a server, and a sign that another program has the rest.
    if probe.free_bytes < probe.memory_bytes / 10 {
        let advice = "see by `nvidia-smi` who has the rest; models need memory for two batches of each instance";
        return Finding::warn(DEVICE, text, advice);
    }
    Finding::ok(DEVICE, text)
}

fn registration(probe: &DeviceProbe) -> Finding {
    let budget = bytes_text(probe.budget_bytes);
    match &probe.registration {
        Ok(byte_size) => Finding::ok(
            REGISTRATION,
            format!(
                "{} of a session were registered; {budget} may be in all (cuda.registered_bytes)",
                bytes_text(*byte_size)
            ),
        ),
        Err(reason) => Finding::warn(
            REGISTRATION,
            format!("{reason}: a processor copies what goes to the device and back"),
            "let the process lock memory (ulimit -l unlimited, or the memory limit of its container), raise \
             cuda.registered_bytes, or use a driver that registers memory",
        ),
    }
}

#[cfg(not(feature = "tensorrt"))]
fn library(_: Option<&Path>, _: Option<&Devices>) -> Option<Finding> {
    None
}

/// TensorRT's library, opened if there is a device: without one it must not be touched.
#[cfg(feature = "tensorrt")]
fn library(named: Option<&Path>, devices: Option<&Devices>) -> Option<Finding> {
    use adjoin_backend::BackendError;
    use adjoin_server::repository::{find_tensorrt, open_tensorrt};

    let absent = "get libnvinfer.so of TensorRT, or the lean runtime, of the major release that this command was built for, and name \
                  it by --tensorrt or put it beside the command";
    let unusable = "install TensorRT of the major release that this command was built for";
    let refused = |error: &BackendError| {
        let advice = match error {
            BackendError::LibraryMissing { .. } => absent,
            BackendError::LibraryUnusable { .. } => unusable,
        };
        if named.is_some() {
            return Finding::fail(TENSORRT, error.to_string(), advice);
        }
        Finding::warn(TENSORRT, format!("{error}; plans are not served"), advice)
    };
    let path = match find_tensorrt(named) {
        Ok(path) => path,
        Err(error) => return Some(refused(&error)),
    };
    let Some(devices) = devices else {
        let found = format!(
            "{} is there, and is not opened without a device",
            path.display()
        );
        return Some(Finding::ok(TENSORRT, found));
    };
    Some(match open_tensorrt(named, devices) {
        Ok(engine) => {
            let found = format!("{} {}, {}", engine.name(), engine.version(), path.display());
            Finding::ok(TENSORRT, found)
        }
        Err(error) => refused(&error),
    })
}

/// What a server says of its device.
pub(super) fn of_server(device: &DeviceStatus) -> Vec<Finding> {
    vec![works(device), regions(device), bytes(device)]
}

fn works(device: &DeviceStatus) -> Finding {
    let resets = match device.resets + device.failed_resets {
        0 => String::new(),
        _ => format!(
            "; lost and brought back {} times, {} attempts failed",
            device.resets, device.failed_resets
        ),
    };
    if device.is_working {
        return Finding::ok(SERVERS_DEVICE, format!("{} works{resets}", device.name));
    }
    Finding::fail(
        SERVERS_DEVICE,
        format!("{} is lost{resets}", device.name),
        "its models take no requests until it is back; `adjoin models` says whether that is still tried. If not, restart the server",
    )
}

fn regions(device: &DeviceStatus) -> Finding {
    let shared = match device.shared_regions {
        0 => String::new(),
        count => format!(
            "; {} in {count} regions of clients on the device",
            bytes_text(device.shared_bytes)
        ),
    };
    let found = format!(
        "{} of {} in {} regions, {} waiting, {} staged{shared}",
        bytes_text(device.registered_bytes),
        bytes_text(device.registered_limit_bytes),
        device.registered_regions,
        device.pending_regions,
        device.refused_regions,
    );
    if device.refused_regions == 0 {
        return Finding::ok(SERVERS_REGIONS, found);
    }
    Finding::warn(
        SERVERS_REGIONS,
        found,
        "a processor copies for the sessions that are staged: raise cuda.registered_bytes, have clients open smaller regions, or \
         let the process lock memory (ulimit -l)",
    )
}

fn bytes(device: &DeviceStatus) -> Finding {
    let found = format!(
        "{} direct, {} staged, {} pageable, {} within the device",
        bytes_text(device.direct_bytes),
        bytes_text(device.staged_bytes),
        bytes_text(device.pageable_bytes),
        bytes_text(device.within_bytes),
    );
    if device.pageable_bytes == 0 {
        return Finding::ok(SERVERS_BYTES, found);
    }
    Finding::warn(
        SERVERS_BYTES,
        found,
        "the device waited for what was pageable: raise cuda.staging_bytes, or have the sessions registered",
    )
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn device() -> DeviceStatus {
        DeviceStatus {
            name: "a device".into(),
            is_working: true,
            registered_regions: 4,
            ..DeviceStatus::default()
        }
    }

    #[test]
    fn what_is_wrong_with_a_servers_device_is_said_with_what_to_do() {
        let states = |device: &DeviceStatus| {
            let findings = of_server(device);
            let advised =
                |finding: &Finding| finding.advice.is_some() == (finding.state != State::Ok);
            assert!(findings.iter().all(advised), "{findings:?}");
            findings
                .iter()
                .map(|finding| finding.state)
                .collect::<Vec<_>>()
        };
        assert_eq!(states(&device()), [State::Ok; 3]);
        let lost = DeviceStatus {
            is_working: false,
            failed_resets: 2,
            ..device()
        };
        assert_eq!(states(&lost), [State::Fail, State::Ok, State::Ok]);
        let staged = DeviceStatus {
            refused_regions: 2,
            staged_bytes: 1,
            ..device()
        };
        assert_eq!(states(&staged), [State::Ok, State::Warn, State::Ok]);
        let pageable = DeviceStatus {
            pageable_bytes: 1,
            ..device()
        };
        assert_eq!(states(&pageable), [State::Ok, State::Ok, State::Warn]);
    }

    #[test]
    fn a_device_that_is_missing_is_a_failure_only_where_one_is_wanted() {
        let error = DeviceError::Before("no driver; install one".into());
        let finding = missing(&error, false);
        assert_eq!(finding.state, State::Warn);
        assert_eq!(
            finding.advice.as_deref(),
            Some("for models on a GPU: install one")
        );
        let finding = missing(&error, true);
        assert_eq!(finding.state, State::Fail);
    }

    #[test]
    fn little_memory_and_refused_registrations_are_warnings() {
        let probe = DeviceProbe {
            index: 0,
            name: "a device".into(),
            driver: (13, 0),
            memory_bytes: 1 << 30,
            free_bytes: 1 << 20,
            budget_bytes: 1 << 30,
            registration: Err("no".into()),
        };
        assert_eq!(found(&probe).state, State::Warn);
        assert_eq!(registration(&probe).state, State::Warn);
    }
}
