//! How long an execution takes, learnt from those that ran: one estimate per doubling of rows.

use std::sync::atomic::{AtomicU64, Ordering};

const BUCKETS: usize = 12;

/// Estimates of execution time by number of rows. Kept without a lock; a lost update only makes an
/// estimate a little older.
#[derive(Debug, Default)]
pub struct Timing {
    estimate_ns: [AtomicU64; BUCKETS],
}

fn bucket(rows: u32) -> usize {
    let doublings = u64::from(rows.max(1)).next_power_of_two().trailing_zeros() as usize;
    doublings.min(BUCKETS - 1)
}

impl Timing {
    /// Learns from an execution. Rises at once to a longer time and sinks slowly, so that work is rather
    /// over- than underestimated.
    pub fn observe(&self, rows: u32, execute_ns: u64) {
        let cell = &self.estimate_ns[bucket(rows)];
        let old = cell.load(Ordering::Relaxed);
        let new = if execute_ns >= old {
            execute_ns
        } else {
            old - (old - execute_ns) / 16
        };
        cell.store(new.max(1), Ordering::Relaxed);
    }

    /// The estimate for so many rows in ns; of the nearest smaller number of rows where none of this
    /// size has run, scaled up; `None` before the first execution.
    pub fn estimate_ns(&self, rows: u32) -> Option<u64> {
        let wanted = bucket(rows);
        (0..=wanted).rev().find_map(|index| {
            let ns = self.estimate_ns[index].load(Ordering::Relaxed);
            (ns > 0).then(|| ns << (wanted - index))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_rise_at_once_sink_slowly_and_scale() {
        let timing = Timing::default();
        assert_eq!(timing.estimate_ns(1), None);
        timing.observe(1, 1000);
        assert_eq!(timing.estimate_ns(1), Some(1000));
        assert_eq!(timing.estimate_ns(3), Some(4000));
        timing.observe(1, 5000);
        assert_eq!(timing.estimate_ns(1), Some(5000));
        timing.observe(1, 1000);
        assert_eq!(timing.estimate_ns(1), Some(4750));
        timing.observe(u32::MAX, 1);
        assert_eq!(timing.estimate_ns(u32::MAX), Some(1));
    }
}
