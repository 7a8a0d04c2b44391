//! How long an execution takes, learnt from those that ran: one estimate per doubling of rows. And whether it pays to
//! join requests at all.

use std::sync::atomic::{AtomicU64, Ordering};

const BUCKETS: usize = 12;
/// A new time counts for one part in so many of the mean, and twice as much of the deviation: the
/// constants of TCP's round-trip estimate (RFC 6298).
const MEAN_WEIGHT: u64 = 8;
const DEVIATION_WEIGHT: u64 = 4;
/// A batch of one size is passed over for a smaller one only if a row takes so many times as long in it, in parts of
/// four: times are never exact, and fewer executions leave more time for everything else.
const CLEARLY_LONGER: u64 = 5;
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
    /// Of one row in a batch of that size, in ns.
    row_ns: [AtomicU64; BUCKETS],
    /// Whether no request can make its rows larger than others are: their bytes are not followed then.
    rows_are_alike: bool,
    /// Bytes of a row's inputs, followed as slowly as the times; 0 before the first execution.
    row_bytes: AtomicU64,
}

/// Follows what is faster at once and what is slower slowly: nothing but the machine makes a run too long, and nothing
/// makes it too short.
fn updated_row(old_ns: u64, seen_ns: u64) -> u64 {
    if old_ns == 0 {
        return seen_ns;
    }
    if seen_ns <= old_ns {
        return seen_ns.midpoint(old_ns);
    }
    let seen_ns = seen_ns.min(old_ns.saturating_mul(2));
    old_ns + (seen_ns - old_ns).div_ceil(MEAN_WEIGHT)
}

fn bucket(rows: u32) -> usize {
    let doublings = u64::from(rows.max(1)).next_power_of_two().trailing_zeros() as usize;
    doublings.min(BUCKETS - 1)
}

impl Timing {
    /// Of a model that has not run; `rows_are_alike` if all rows have inputs of the same size.
    #[must_use]
    pub fn new(rows_are_alike: bool) -> Self {
        Self {
            rows_are_alike,
            ..Self::default()
        }
    }

    /// Learns from an execution.
    pub fn observe(&self, rows: u32, execute_ns: u64) {
        let index = bucket(rows);
        let new = self.at(index).updated(execute_ns);
        self.mean_ns[index].store(new.mean_ns, Ordering::Relaxed);
        self.deviation_ns[index].store(new.deviation_ns, Ordering::Relaxed);
        let seen_ns = (execute_ns / u64::from(rows.max(1))).max(1);
        let row_ns = updated_row(self.row_ns(index), seen_ns);
        self.row_ns[index].store(row_ns, Ordering::Relaxed);
    }

    /// Whether [`Self::observe_inputs`] has anything to learn.
    #[must_use]
    pub fn follows_inputs(&self) -> bool {
        !self.rows_are_alike
    }

    /// Learns how large the inputs were of an execution that was observed.
    pub fn observe_inputs(&self, rows: u32, byte_size: u64) {
        if self.rows_are_alike {
            return;
        }
        let seen = (byte_size / u64::from(rows.max(1))).max(1);
        let old = self.row_bytes.load(Ordering::Relaxed);
        let new = if old == 0 {
            seen
        } else {
            // No faster than times: else a few large inputs would make large ones look as quick as small ones.
            let seen = seen.min(old.saturating_mul(2));
            let moved = seen.abs_diff(old).div_ceil(MEAN_WEIGHT);
            if seen > old { old + moved } else { old - moved }
        };
        self.row_bytes.store(new, Ordering::Relaxed);
    }

    /// Whether estimates hold for inputs of this size: times are learnt by rows, and where a caller chooses further
    /// dimensions, a row may be anything. `byte_size` is asked only then.
    #[must_use]
    pub fn holds_for(&self, rows: u32, byte_size: impl FnOnce() -> u64) -> bool {
        if self.rows_are_alike {
            return true;
        }
        let known = self.row_bytes.load(Ordering::Relaxed);
        known == 0 || byte_size() / u64::from(rows.max(1)) <= known.saturating_mul(2)
    }

    /// Of `rows` that wait, how many to run together so that a row takes least: all of them, unless a smaller batch was
    /// clearly faster. That is so for a model that mostly moves its inputs: alone a request runs where it lies, and to
    /// join it with others costs a copy each way.
    #[must_use]
    pub fn rows_that_pay(&self, rows: u32) -> u32 {
        let all = bucket(rows);
        let all_ns = self.row_ns(all);
        // What has not run is tried.
        if all == 0 || all_ns == 0 {
            return rows;
        }
        let known = (0..all).map(|index| (index, self.row_ns(index)));
        let known = known.filter(|&(_, row_ns)| row_ns > 0);
        // The largest of those that are about as fast.
        let best_ns = known.clone().map(|(_, row_ns)| row_ns).min();
        let is_near = |row_ns: u64| {
            best_ns.is_none_or(|best_ns| row_ns <= best_ns.saturating_mul(CLEARLY_LONGER) / 4)
        };
        if is_near(all_ns) {
            return rows;
        }
        let smaller = known.rev().find(|&(_, row_ns)| is_near(row_ns));
        smaller.map_or(rows, |(index, _)| 1 << index)
    }

    fn row_ns(&self, index: usize) -> u64 {
        self.row_ns[index].load(Ordering::Relaxed)
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
    fn estimates_hold_for_inputs_as_large_as_those_that_ran_and_large_ones_count_slowly() {
        let timing = Timing::default();
        assert!(timing.holds_for(1, || 1 << 30));
        timing.observe_inputs(4, 4000);
        assert!(timing.holds_for(1, || 1000) && timing.holds_for(8, || 16_000));
        assert!(!timing.holds_for(8, || 17_000));
        // A large one now and then changes nothing.
        for _ in 0..100 {
            timing.observe_inputs(1, 1 << 30);
            (0..3).for_each(|_| timing.observe_inputs(1, 1000));
        }
        assert!(!timing.holds_for(1, || 4000));
        // Where all are large, they are what is known; and small again.
        (0..200).for_each(|_| timing.observe_inputs(1, 1 << 30));
        assert!(timing.holds_for(1, || 1 << 30));
        (0..300).for_each(|_| timing.observe_inputs(1, 1000));
        assert!(!timing.holds_for(1, || 4000));
        (0..300).for_each(|_| timing.observe_inputs(1, 0));
        assert!(timing.holds_for(1, || 2) && !timing.holds_for(1, || 3));
    }

    #[test]
    fn rows_that_are_alike_need_no_look_at_their_size() {
        let timing = Timing::new(true);
        timing.observe_inputs(1, 8);
        assert!(timing.holds_for(1, || unreachable!()));
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

    #[test]
    fn joining_pays_until_a_row_takes_clearly_longer() {
        // Of a model that computes: four rows take as long as two, and more cost what they cost.
        let timing = Timing::default();
        assert_eq!(timing.rows_that_pay(7), 7);
        for (rows, execute_ns) in [(1, 1000), (2, 1100), (4, 1200), (8, 2400)] {
            timing.observe(rows, execute_ns);
        }
        for rows in 1..=16 {
            assert_eq!(timing.rows_that_pay(rows), rows);
        }
        // Of one that moves its inputs: joined, a row is copied as well.
        let timing = Timing::default();
        timing.observe(1, 1000);
        assert_eq!(timing.rows_that_pay(3), 3);
        for (rows, execute_ns) in [(2, 6000), (3, 9000), (8, 24_000)] {
            timing.observe(rows, execute_ns);
        }
        for rows in [2, 3, 4, 5, 8] {
            assert_eq!(timing.rows_that_pay(rows), 1, "{rows} rows");
        }
        assert_eq!(timing.rows_that_pay(9), 9);
        // One that is fastest in twos.
        timing.observe(2, 1);
        timing.observe(2, 1);
        (0..20).for_each(|_| timing.observe(2, 1000));
        assert_eq!(timing.rows_that_pay(8), 2);
    }

    #[test]
    fn a_row_that_was_stalled_once_is_soon_seen_as_it_is() {
        let timing = Timing::default();
        timing.observe(1, 1000);
        timing.observe(4, 1_000_000);
        assert_eq!(timing.rows_that_pay(4), 1);
        (0..12).for_each(|_| timing.observe(4, 2000));
        assert_eq!(timing.rows_that_pay(4), 4);
        timing.observe(4, 1_000_000);
        assert_eq!(timing.rows_that_pay(4), 4);
    }
}
