//! One phase of a client: which calls count, and when it is over.

use std::time::{Duration, Instant};

use super::bystanders::process_cpu_us;
use super::job::Phase;
use crate::histogram::Latencies;

/// Calls in the first part of a phase do not count: the other side was asleep, its caches were cold.
const SETTLING_MAX: Duration = Duration::from_millis(20);

/// Counts the calls of a phase.
#[derive(Debug)]
pub(super) struct Meter {
    counts_from: Instant,
    ends: Instant,
    cpu_us: u64,
    requests: u64,
    latencies: Latencies,
    first: Option<Instant>,
    last: Instant,
}

impl Meter {
    /// A phase that begins now.
    pub(super) fn new(length: Duration) -> Self {
        let now = Instant::now();
        Self {
            counts_from: now + SETTLING_MAX.min(length / 10),
            ends: now + length,
            cpu_us: process_cpu_us(),
            requests: 0,
            latencies: Latencies::new(),
            first: None,
            last: now,
        }
    }

    /// Takes a call; whether another one is to follow. The first call of a phase never counts.
    pub(super) fn record(&mut self, began: Instant, ended: Instant) -> bool {
        self.requests += 1;
        if began >= self.counts_from && self.requests > 1 {
            self.first.get_or_insert(began);
            self.last = ended;
            let latency = ended.saturating_duration_since(began);
            self.latencies
                .record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        }
        // A call that takes as long as the phase must not end it before anything counted.
        ended < self.ends || self.latencies.count() == 0
    }

    pub(super) fn phase(&self) -> Phase {
        let counted = self.first.map_or(Duration::ZERO, |first| {
            self.last.saturating_duration_since(first)
        });
        Phase {
            requests: self.requests,
            cpu_us: process_cpu_us().saturating_sub(self.cpu_us),
            counted_ns: u64::try_from(counted.as_nanos()).unwrap_or(u64::MAX),
            latencies: self.latencies.pairs(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_at_the_beginning_do_not_count_and_the_end_ends() {
        let mut meter = Meter::new(Duration::from_millis(100));
        let start = meter.ends - Duration::from_millis(100);
        let at = |ms| start + Duration::from_millis(ms);
        assert!(meter.record(at(0), at(5)));
        assert!(meter.record(at(5), at(9)));
        assert!(meter.record(at(10), at(40)));
        assert!(!meter.record(at(40), at(100)));
        let phase = meter.phase();
        assert_eq!((phase.requests, phase.counted_ns), (4, 90_000_000));
        assert_eq!(phase.latencies.iter().map(|pair| pair.1).sum::<u64>(), 2);
    }

    #[test]
    fn a_call_longer_than_the_phase_is_followed_by_one_that_counts() {
        let mut meter = Meter::new(Duration::from_millis(10));
        let start = meter.ends - Duration::from_millis(10);
        assert!(meter.record(start, start + Duration::from_millis(50)));
        assert!(!meter.record(
            start + Duration::from_millis(50),
            start + Duration::from_millis(90)
        ));
    }
}
