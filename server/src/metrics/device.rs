//! What goes between sessions and a device. Without a device the families have no value.

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::devices::{BytesByPath, BytesWithin, DeviceNumbers, Devices};

/// Tells of the device of a server; clones tell of the same.
#[derive(Clone, Debug, Default)]
pub struct DeviceMetrics {
    devices: Arc<OnceLock<Devices>>,
}

impl DeviceMetrics {
    /// Tells of these from now on. Only the first call counts.
    pub fn tell_of(&self, devices: Devices) {
        let _ = self.devices.set(devices);
    }
}

impl Collector for DeviceMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let numbers = self.devices.get().and_then(Devices::numbers);
        let numbers = numbers.as_ref();
        let mut copied = encoder.encode_descriptor(
            "device_bytes",
            "Payload bytes between host and device, and within the device, by direction and path",
            None,
            MetricType::Counter,
        )?;
        if let Some(numbers) = numbers {
            for (direction, bytes) in [
                ("to_device", numbers.to_device),
                ("to_host", numbers.to_host),
            ] {
                for (path, byte_size) in paths(bytes) {
                    let labels = [("direction", direction), ("path", path)];
                    ConstCounter::new(byte_size).encode(copied.encode_family(&labels)?)?;
                }
            }
            let BytesWithin {
                gathered,
                scattered,
            } = numbers.within;
            for (path, byte_size) in [("gather", gathered), ("scatter", scattered)] {
                let labels = [("direction", "within"), ("path", path)];
                ConstCounter::new(byte_size).encode(copied.encode_family(&labels)?)?;
            }
        }
        let mut regions = encoder.encode_descriptor(
            "device_regions",
            "Regions of sessions, by where they stand with the device",
            None,
            MetricType::Gauge,
        )?;
        if let Some(numbers) = numbers {
            for (state, count) in states(numbers) {
                let count = u64::try_from(count).unwrap_or(u64::MAX);
                let labels = [("state", state)];
                ConstGauge::new(count).encode(regions.encode_family(&labels)?)?;
            }
        }
        let mut resets = encoder.encode_descriptor(
            "device_resets",
            "Times that a lost device was to be brought back, by what came of it",
            None,
            MetricType::Counter,
        )?;
        if let Some(numbers) = numbers {
            for (outcome, count) in [("done", numbers.resets), ("failed", numbers.failed_resets)] {
                ConstCounter::new(count).encode(resets.encode_family(&[("outcome", outcome)])?)?;
            }
        }
        for (name, help, value) in [
            (
                "device_working",
                "1 while the device works, 0 from an error that spoiled its context until it is back",
                numbers.map(|numbers| u64::from(numbers.is_working)),
            ),
            (
                "device_registered_bytes",
                "Bytes of regions that are registered with the device",
                numbers.map(|numbers| numbers.registered_bytes),
            ),
            (
                "device_shared_regions",
                "Regions on the device that clients share",
                numbers.map(|numbers| u64::try_from(numbers.shared_regions).unwrap_or(u64::MAX)),
            ),
            (
                "device_shared_bytes",
                "Bytes of regions on the device that clients share",
                numbers.map(|numbers| numbers.shared_bytes),
            ),
            (
                "device_registered_limit_bytes",
                "Bytes of regions that may be registered with the device",
                numbers.map(|numbers| numbers.budget_bytes),
            ),
        ] {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            if let Some(value) = value {
                ConstGauge::new(value).encode(family)?;
            }
        }
        Ok(())
    }
}

fn paths(bytes: BytesByPath) -> [(&'static str, u64); 3] {
    [
        ("direct", bytes.direct),
        ("staged", bytes.staged),
        ("pageable", bytes.pageable),
    ]
}

fn states(numbers: &DeviceNumbers) -> [(&'static str, usize); 4] {
    [
        ("registered", numbers.registered),
        ("pending", numbers.pending),
        ("refused", numbers.refused),
        ("retired", numbers.retired),
    ]
}
