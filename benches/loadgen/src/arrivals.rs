//! When the requests of an open loop are meant to start: Poisson arrivals, the same for a seed in every run.

use std::ops::Range;

use fastrand::Rng;

/// Moments in order, in ns on the clock of the node.
#[derive(Debug)]
pub(crate) struct Arrivals {
    rng: Rng,
    gap_mean_ns: f64,
    /// Kept as a fraction, so that rounding does not add up.
    next_ns: f64,
    span_ns: Range<u64>,
}

impl Arrivals {
    /// Arrivals with `rate` of them a second on average, within `span_ns`.
    pub(crate) fn new(rate: f64, seed: u64, span_ns: Range<u64>) -> Self {
        let mut arrivals = Self {
            rng: Rng::with_seed(seed),
            gap_mean_ns: 1e9 / rate,
            next_ns: 0.0,
            span_ns,
        };
        arrivals.step();
        arrivals
    }

    /// The next moment; `None` when there is none before the end.
    pub(crate) fn next(&mut self) -> Option<u64> {
        let offset = std::time::Duration::try_from_secs_f64(self.next_ns / 1e9).ok()?;
        let at = self.span_ns.start + u64::try_from(offset.as_nanos()).ok()?;
        if at >= self.span_ns.end {
            return None;
        }
        self.step();
        Some(at)
    }

    /// Gaps of a Poisson process are distributed exponentially.
    fn step(&mut self) {
        let unit = 1.0 - self.rng.f64();
        self.next_ns -= self.gap_mean_ns * unit.ln();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(rate: f64, seed: u64, seconds: u64) -> Vec<u64> {
        let mut arrivals = Arrivals::new(rate, seed, 1000..1000 + seconds * 1_000_000_000);
        std::iter::from_fn(|| arrivals.next()).collect()
    }

    #[test]
    fn arrivals_have_the_rate_and_the_spread_of_a_poisson_process() {
        let arrivals = all(1000.0, 7, 20);
        assert!(arrivals.is_sorted());
        let count = arrivals.len() as f64;
        // Four standard deviations of the count.
        assert!((count - 20_000.0).abs() < 4.0 * 20_000f64.sqrt(), "{count}");
        let gaps: Vec<f64> = arrivals
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) as f64)
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let squares = gaps.iter().map(|gap| (gap - mean).powi(2));
        let deviation = (squares.sum::<f64>() / gaps.len() as f64).sqrt();
        assert!(
            (deviation / mean - 1.0).abs() < 0.05,
            "{}",
            deviation / mean
        );
    }

    #[test]
    fn arrivals_follow_from_the_seed() {
        assert_eq!(all(500.0, 3, 1), all(500.0, 3, 1));
        assert_ne!(all(500.0, 3, 1), all(500.0, 4, 1));
        assert!(all(0.01, 1, 1).is_empty());
    }
}
