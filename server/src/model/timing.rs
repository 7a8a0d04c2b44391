//! How long an execution takes, learnt from those that ran: one estimate per doubling of rows.

use std::sync::atomic::{AtomicU64, Ordering};

const BUCKETS: usize = 12;
/// A new time counts for one part in so many of the mean, and twice as much of the deviation: the
/// constants of TCP's round-trip estimate (RFC 6298).
const MEAN_WEIGHT: u64 = 8;
const DEVIATION_WEIGHT: u64 = 4;
/// Mean deviations between the mean and a time that is seldom exceeded.
const MARGIN: u64 = 3;

/// What is known of the time of an execution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Mean of the recent ones, in ns.
    pub mean_ns: u64,
    /// Mean distance from the mean, in ns.
    pub deviation_ns: u64,
}

impl Estimate {
    /// A time that one execution seldom exceeds, in ns.
    #[must_use]
    pub fn bound_ns(self) -> u64 {
        self.mean_ns.saturating_add(self.margin_ns(1))
    }

    /// By how much so many executions in a row seldom exceed their means together, in ns: deviations partly
    /// cancel out, so it grows with the square root.
    #[must_use]
    pub fn margin_ns(self, executions: u64) -> u64 {
        self.deviation_ns
            .saturating_mul(MARGIN * executions.isqrt().max(1))
    }

    fn scaled(self, doublings: usize) -> Self {
        Self {
            mean_ns: self.mean_ns << doublings,
            deviation_ns: self.deviation_ns << doublings,
        }
    }

    fn updated(self, execute_ns: u64) -> Self {
        if self.mean_ns == 0 {
            return Self {
                mean_ns: execute_ns.max(1),
                deviation_ns: execute_ns / 8,
            };
        }
        // One stall of the machine must not make everything look impossible.
        let seen_ns = execute_ns.min(self.mean_ns.saturating_mul(2));
        let distance_ns = seen_ns.abs_diff(self.mean_ns);
        let toward = |old: u64, new: u64, weight: u64| old - old / weight + new / weight;
        Self {
            mean_ns: toward(self.mean_ns, seen_ns, MEAN_WEIGHT).max(1),
            deviation_ns: toward(self.deviation_ns, distance_ns, DEVIATION_WEIGHT),
        }
    }
}

/// Estimates of execution time by number of rows. Kept without a lock; a lost update only makes an
/// estimate a little older.
#[derive(Debug, Default)]
pub struct Timing {
    mean_ns: [AtomicU64; BUCKETS],
    deviation_ns: [AtomicU64; BUCKETS],
}

fn bucket(rows: u32) -> usize {
    let doublings = u64::from(rows.max(1)).next_power_of_two().trailing_zeros() as usize;
    doublings.min(BUCKETS - 1)
}

impl Timing {
    /// Learns from an execution.
    pub fn observe(&self, rows: u32, execute_ns: u64) {
        let index = bucket(rows);
        let new = self.at(index).updated(execute_ns);
        self.mean_ns[index].store(new.mean_ns, Ordering::Relaxed);
        self.deviation_ns[index].store(new.deviation_ns, Ordering::Relaxed);
    }

    /// The estimate for so many rows; of the nearest smaller number of rows where none of this size has
    /// run, scaled up; `None` before the first execution.
    pub fn estimate(&self, rows: u32) -> Option<Estimate> {
        let wanted = bucket(rows);
        (0..=wanted).rev().find_map(|index| {
            let estimate = self.at(index);
            (estimate.mean_ns > 0).then(|| estimate.scaled(wanted - index))
        })
    }

    fn at(&self, index: usize) -> Estimate {
        Estimate {
            mean_ns: self.mean_ns[index].load(Ordering::Relaxed),
            deviation_ns: self.deviation_ns[index].load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_follows_and_scales() {
        let timing = Timing::default();
        assert_eq!(timing.estimate(1), None);
        timing.observe(1, 1000);
        assert_eq!(timing.estimate(1).unwrap().mean_ns, 1000);
        assert_eq!(timing.estimate(3).unwrap().mean_ns, 4000);
        for _ in 0..100 {
            timing.observe(1, 4000);
        }
        let mean_ns = timing.estimate(1).unwrap().mean_ns;
        assert!((3900..=4000).contains(&mean_ns), "{mean_ns}");
        timing.observe(u32::MAX, 1);
        assert_eq!(timing.estimate(u32::MAX).unwrap().mean_ns, 1);
    }

    #[test]
    fn a_stall_counts_for_little_and_steady_times_need_no_margin() {
        let timing = Timing::default();
        for _ in 0..100 {
            timing.observe(16, 1_000_000);
        }
        let steady = timing.estimate(16).unwrap();
        assert!(steady.bound_ns() < 1_001_000, "{steady:?}");
        timing.observe(16, 1_000_000_000);
        let stalled = timing.estimate(16).unwrap();
        assert!(stalled.mean_ns <= 1_130_000, "{stalled:?}");
        assert!(stalled.bound_ns() > stalled.mean_ns + 100_000);
    }
}
