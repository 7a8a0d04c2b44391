//! Latencies: recorded in one process, sent as pairs, merged in another.

use hdrhistogram::Histogram;

/// Longest latency that is told apart from longer ones, in ns.
const LATENCY_NS_MAX: u64 = 600_000_000_000;
/// Decimal digits that are kept of a latency.
const DIGITS: u8 = 3;

/// Latencies in ns, each kept to three digits.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

/// What travels between processes: latencies in ns, and how often each was seen.
pub type Pairs = Vec<(u64, u64)>;

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS);
        Self {
            histogram: histogram.expect("the bounds are constants that the library takes"),
        }
    }

    pub fn record(&mut self, latency_ns: u64) {
        self.histogram.saturating_record(latency_ns);
    }

    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    pub fn pairs(&self) -> Pairs {
        let recorded = self.histogram.iter_recorded();
        recorded
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect()
    }

    pub fn merge(&mut self, pairs: &[(u64, u64)]) {
        for &(latency_ns, count) in pairs {
            self.histogram.saturating_record_n(latency_ns, count);
        }
    }

    /// The latency that `quantile` (0 to 1) of all do not exceed, in us; 0 if there are none.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        self.histogram.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// The mean in us; 0 if there are none.
    pub fn mean_us(&self) -> f64 {
        self.histogram.mean() / 1000.0
    }

    pub fn median_us(&self) -> f64 {
        self.quantile_us(0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_latencies_are_those_of_all_parts() {
        let mut whole = Latencies::new();
        let mut merged = Latencies::new();
        for part in 0..4u64 {
            let mut latencies = Latencies::new();
            for step in 1..=1000u64 {
                let latency_ns = step * 977 + part * 13;
                latencies.record(latency_ns);
                whole.record(latency_ns);
            }
            merged.merge(&latencies.pairs());
        }
        assert_eq!(merged.count(), 4000);
        for quantile in [0.0, 0.5, 0.99, 0.999, 1.0] {
            assert!(
                (merged.quantile_us(quantile) - whole.quantile_us(quantile)).abs() < f64::EPSILON
            );
        }
        assert!(
            (merged.median_us() - 488.5).abs() < 1.0,
            "{}",
            merged.median_us()
        );
    }

    #[test]
    fn impossible_latencies_are_kept_at_the_ends() {
        let mut latencies = Latencies::new();
        latencies.record(0);
        latencies.record(u64::MAX);
        assert_eq!(latencies.count(), 2);
        assert!(latencies.quantile_us(1.0) >= 600_000_000.0);
        assert!(Latencies::new().median_us() == 0.0);
    }
}
