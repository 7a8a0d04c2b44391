//! Histograms for the hot path: two atomic additions an observation, and no lock, which the library's own
//! take. Values are integers (ns, rows); bounds and sums are turned into the metric's unit when someone reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Upper bounds from a microsecond to a minute, in ns, each 2 to 4 times the one before.
const TIMES_NS: [u64; 22] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
    60_000_000_000,
];

/// Upper bounds of rows.
const ROWS: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

/// Bounds, and the unit that they are shown in.
#[derive(Debug)]
struct Scale {
    bounds: &'static [u64],
    /// How many of what is counted make one of the unit shown.
    per_unit: f64,
}

/// Counts of values by size, with their sum; clones count together.
#[derive(Clone, Debug)]
pub(super) struct Distribution {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    scale: Scale,
    /// One for each bound, and one for what is above all.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Distribution {
    /// Of times, observed in ns and shown in seconds.
    pub(super) fn of_times() -> Self {
        Self::new(Scale {
            bounds: &TIMES_NS,
            per_unit: 1e9,
        })
    }

    /// Of rows.
    pub(super) fn of_rows() -> Self {
        Self::new(Scale {
            bounds: &ROWS,
            per_unit: 1.0,
        })
    }

    fn new(scale: Scale) -> Self {
        let counts = (0..=scale.bounds.len())
            .map(|_| AtomicU64::new(0))
            .collect();
        Self {
            inner: Arc::new(Inner {
                scale,
                counts,
                sum: AtomicU64::new(0),
            }),
        }
    }

    /// Counts a value.
    #[inline]
    pub(super) fn observe(&self, value: u64) {
        let inner = &*self.inner;
        let index = inner.scale.bounds.partition_point(|&bound| bound < value);
        inner.counts[index].fetch_add(1, Ordering::Relaxed);
        inner.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Sum of all values.
    pub(super) fn sum(&self) -> u64 {
        self.inner.sum.load(Ordering::Relaxed)
    }
}

impl TypedMetric for Distribution {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Distribution {
    #[allow(
        clippy::cast_precision_loss,
        reason = "bounds are small, sums below 2^53 ns are 104 days"
    )]
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Inner { scale, counts, sum } = &*self.inner;
        let bounds = scale
            .bounds
            .iter()
            .map(|&bound| bound as f64 / scale.per_unit);
        let buckets: Vec<(f64, u64)> = bounds
            .chain([f64::INFINITY])
            .zip(counts.iter().map(|count| count.load(Ordering::Relaxed)))
            .collect();
        // Of the same reading, so that what is shown adds up.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = sum.load(Ordering::Relaxed) as f64 / scale.per_unit;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn values_are_counted_up_to_their_bound_and_shown_in_seconds() {
        let times = Distribution::of_times();
        for ns in [0, 1_000, 1_001, 70_000_000_000] {
            times.observe(ns);
        }
        assert_eq!(times.sum(), 70_000_002_001);
        let mut registry = Registry::default();
        registry.register("t", "Times", times);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("t_count 4"), "{text}");
        let up_to = |bound: f64| {
            let buckets = text
                .lines()
                .filter_map(|line| line.strip_prefix("t_bucket{le=\""));
            let mut buckets = buckets.filter_map(|line| line.split_once("\"} "));
            let found = buckets.find(|(le, _)| le.parse() == Ok(bound));
            found.expect(&text).1.parse::<u64>().unwrap()
        };
        let counts = [1e-6, 2.5e-6, 60.0, f64::INFINITY].map(up_to);
        assert_eq!(counts, [2, 3, 3, 4], "{text}");
    }
}
