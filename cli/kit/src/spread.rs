//! A number that was taken once in each round: its median, and how sure that is.

use serde::Serialize;

/// The median of all rounds, with an interval that holds the true one in 95 of 100 measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
    pub rounds: usize,
}

impl Spread {
    /// `None` without any value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values
            .into_iter()
            .filter(|value| value.is_finite())
            .collect();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let last = count.checked_sub(1)?;
        // Order statistics around the median, by the normal approximation of the binomial distribution.
        let half_width = (1.96 * (count as f64).sqrt() / 2.0).ceil();
        let reach = (0..=count)
            .find(|&steps| steps as f64 >= half_width)
            .unwrap_or(count);
        Some(Self {
            median: (sorted[last / 2] + sorted[count / 2]) / 2.0,
            low: sorted[(last / 2).saturating_sub(reach)],
            high: sorted[(count / 2 + reach).min(last)],
            rounds: count,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_interval_of_few_and_many_rounds() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN]), None);
        let one = Spread::of([2.0]).unwrap();
        assert_eq!((one.low, one.median, one.high), (2.0, 2.0, 2.0));
        let even = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(
            (even.low, even.median, even.high, even.rounds),
            (1.0, 2.5, 4.0, 4)
        );
        let many = Spread::of((1..=101).map(f64::from)).unwrap();
        assert_eq!((many.low, many.median, many.high), (41.0, 51.0, 61.0));
    }
}
