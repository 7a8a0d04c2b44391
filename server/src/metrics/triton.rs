//! The counters under the names that dashboards made for Triton look for: `nv_inference_*`, beside ours. They are encoded
//! as gauges, because counters get a suffix, `_total`, that those names do not have; `rate()` does not mind.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::model::{ModelLabels, ModelMetrics, ModelStatistics};

/// All versions, as they are counted.
#[derive(Debug)]
pub(super) struct Names {
    models: Arc<Mutex<BTreeMap<(String, u64), ModelMetrics>>>,
}

type Value = fn(&ModelStatistics) -> u64;

const US: u64 = 1000;

const NAMES: [(&str, &str, Value); 12] = [
    ("nv_inference_request_success", "Requests that ran", |s| {
        s.request_count + s.cache_hits
    }),
    (
        "nv_inference_request_failure",
        "Requests that failed or were refused",
        |s| s.failed_request_count,
    ),
    ("nv_inference_count", "Rows of the requests that ran", |s| {
        s.inference_count
    }),
    ("nv_inference_exec_count", "Batches that ran", |s| {
        s.execution_count
    }),
    (
        "nv_inference_request_duration_us",
        "Time from intake to the end, over all requests",
        |s| s.duration_ns / US,
    ),
    (
        "nv_inference_queue_duration_us",
        "Time in the queue, over all requests",
        |s| s.queue_ns / US,
    ),
    (
        "nv_inference_compute_input_duration_us",
        "Joining the inputs of its batch, over all requests",
        |s| s.times_of_requests.gather_ns / US,
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Its batch in the engine, over all requests",
        |s| s.times_of_requests.execute_ns / US,
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Handing the outputs of its batch back, over all requests",
        |s| s.times_of_requests.scatter_ns / US,
    ),
    (
        "nv_cache_num_hits_per_model",
        "Requests whose answer was in the response cache",
        |s| s.cache_hits,
    ),
    (
        "nv_cache_num_misses_per_model",
        "Requests whose answer went into the response cache",
        |s| s.cache_misses,
    ),
    (
        "nv_cache_hit_duration_per_model",
        "Time of the requests whose answer was there, in microseconds",
        |s| s.cache_hit_ns / US,
    ),
];

impl Names {
    pub(super) fn new(models: Arc<Mutex<BTreeMap<(String, u64), ModelMetrics>>>) -> Self {
        Self { models }
    }
}

impl Collector for Names {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let models: Vec<ModelMetrics> = self.models.lock().values().cloned().collect();
        let counted: Vec<(&ModelLabels, ModelStatistics, u64)> = models
            .iter()
            .map(|model| (model.labels(), model.statistics(), model.waiting()))
            .collect();
        let mut family = |name: &str, help: &str, value: &dyn Fn(&ModelStatistics, u64) -> u64| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (labels, statistics, waiting) in &counted {
                let gauge = ConstGauge::new(value(statistics, *waiting));
                gauge.encode(family.encode_family(*labels)?)?;
            }
            Ok::<(), fmt::Error>(())
        };
        for (name, help, value) in NAMES {
            family(name, help, &|statistics, _| value(statistics))?;
        }
        family(
            "nv_inference_pending_request_count",
            "Waiting requests",
            &|_, waiting| waiting,
        )
    }
}
