//! The memory limit of the control group. Where there is none, its families have no value: a 0 would read as "nothing left".

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// What is told of the memory limit; clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct MemoryGauges {
    values: Arc<Mutex<Option<MemoryValues>>>,
}

/// What the memory limit comes to at a moment, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct MemoryValues {
    /// The limit.
    pub limit: u64,
    /// What the control group uses of it.
    pub used: u64,
    /// What new sessions may take.
    pub left: u64,
}

impl MemoryGauges {
    /// Sets what is told from now on; `None`: there is no limit.
    pub fn set(&self, values: Option<MemoryValues>) {
        *self.values.lock() = values;
    }
}

impl Collector for MemoryGauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let values = *self.values.lock();
        let mut family = |name: &str, help: &str, value: fn(MemoryValues) -> u64| {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            match values {
                Some(values) => ConstGauge::new(value(values)).encode(family),
                None => Ok(()),
            }
        };
        family(
            "memory_limit_bytes",
            "Memory limit of the server's control group",
            |values| values.limit,
        )?;
        family(
            "memory_used_bytes",
            "What the control group uses of its memory limit",
            |values| values.used,
        )?;
        family(
            "memory_left_bytes",
            "What new sessions may take of the memory limit",
            |values| values.left,
        )
    }
}
