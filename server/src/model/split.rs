//! A weighted split of requests between versions of a model.
//!
//! The draw is smooth weighted round robin: in every turn each version gains its weight, the one that has most is
//! drawn, and pays the sum of all weights. Its order repeats after as many draws as the sum of the weights, so one
//! such cycle is worked out when the split is made, and a draw is one addition to a shared counter: no lock, and over
//! every whole cycle each version is drawn exactly as often as its weight says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use thiserror::Error;

/// Most draws of a cycle: the sum of the weights, divided by what they have in common.
const CYCLE_MAX: u64 = 10_000;
/// Most versions of a split.
const VERSIONS_MAX: usize = 64;

/// Why weights make no split.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SplitError {
    /// Nothing would be drawn.
    #[error("all weights are 0; at least one is above")]
    NoWeight,
    /// Too many versions.
    #[error("a split of {count} versions; the most is {VERSIONS_MAX}")]
    TooManyVersions {
        /// How many.
        count: usize,
    },
    /// The cycle is too long.
    #[error(
        "the weights, divided by what they have in common, add up to {sum}; the most is {CYCLE_MAX}"
    )]
    TooFine {
        /// Their sum.
        sum: u64,
    },
}

/// Weights of versions, and whose turn it is. Clones draw from the same cycle.
#[derive(Clone, Debug, Default)]
pub struct Split {
    weights: BTreeMap<u64, u32>,
    cycle: Arc<Cycle>,
}

#[derive(Debug, Default)]
struct Cycle {
    /// Versions in the order in which they are drawn; empty if there is nothing to draw.
    order: Box<[u64]>,
    draws: AtomicUsize,
}

impl Split {
    /// A split by these weights; those of 0 are left out. Draws nothing before [`Split::serve`].
    ///
    /// # Errors
    /// See [`SplitError`].
    pub fn new(mut weights: BTreeMap<u64, u32>) -> Result<Self, SplitError> {
        weights.retain(|_, weight| *weight > 0);
        if weights.is_empty() {
            return Err(SplitError::NoWeight);
        }
        if weights.len() > VERSIONS_MAX {
            return Err(SplitError::TooManyVersions {
                count: weights.len(),
            });
        }
        let sum = reduced(&weights).values().sum();
        if sum > CYCLE_MAX {
            return Err(SplitError::TooFine { sum });
        }
        Ok(Self {
            weights,
            cycle: Arc::default(),
        })
    }

    /// Weights by version, as they were given.
    #[must_use]
    pub fn weights(&self) -> &BTreeMap<u64, u32> {
        &self.weights
    }

    /// Divides what comes among those versions that `is_served` tells; the others keep their weights for later.
    pub fn serve(&mut self, is_served: impl Fn(u64) -> bool) {
        let mut served = self.weights.clone();
        served.retain(|version, _| is_served(*version));
        let order = order(&reduced(&served));
        if order != self.cycle.order {
            self.cycle = Arc::new(Cycle {
                order,
                draws: AtomicUsize::new(0),
            });
        }
    }

    /// The version that the next request goes to; `None` if none of the split's is served.
    #[must_use]
    pub fn draw(&self) -> Option<u64> {
        let Cycle { order, draws } = &*self.cycle;
        if order.is_empty() {
            return None;
        }
        Some(order[draws.fetch_add(1, Ordering::Relaxed) % order.len()])
    }
}

/// The weights, divided by their greatest common divisor.
fn reduced(weights: &BTreeMap<u64, u32>) -> BTreeMap<u64, u64> {
    let common = weights.values().copied().fold(0, greatest_common_divisor);
    let reduce = |(&version, &weight)| (version, u64::from(weight / common.max(1)));
    weights.iter().map(reduce).collect()
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

/// One cycle of smooth weighted round robin.
fn order(weights: &BTreeMap<u64, u64>) -> Box<[u64]> {
    let sum: u64 = weights.values().sum();
    // What a version has stays between minus and plus the sum, which is small.
    let mut has: Vec<(i64, u64, i64)> = weights
        .iter()
        .map(|(&version, &weight)| (0, version, weight.cast_signed()))
        .collect();
    let mut turn = || {
        has.iter_mut().for_each(|(has, _, weight)| *has += *weight);
        // The newest of those that have most.
        let most = has
            .iter_mut()
            .max_by_key(|(has, version, _)| (*has, *version));
        most.map_or(0, |(has, version, _)| {
            *has -= sum.cast_signed();
            *version
        })
    };
    (0..sum).map(|_| turn()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(weights: &[(u64, u32)]) -> Split {
        let mut split = Split::new(weights.iter().copied().collect()).unwrap();
        split.serve(|_| true);
        split
    }

    fn draws(split: &Split, count: usize) -> Vec<u64> {
        (0..count).map(|_| split.draw().unwrap()).collect()
    }

    #[test]
    fn versions_are_drawn_by_weight_and_spread_evenly() {
        assert_eq!(
            draws(&split(&[(1, 5), (2, 1), (3, 1)]), 14),
            [1, 1, 3, 1, 2, 1, 1, 1, 1, 3, 1, 2, 1, 1]
        );
        // Only the proportion counts.
        assert_eq!(draws(&split(&[(1, 300), (2, 100)]), 4), [1, 2, 1, 1]);
        assert_eq!(draws(&split(&[(7, 1)]), 2), [7, 7]);
    }

    #[test]
    fn clones_and_threads_share_one_cycle() {
        let split = split(&[(1, 3), (2, 1)]);
        let counts: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let split = split.clone();
                    scope.spawn(move || {
                        draws(&split, 1000)
                            .iter()
                            .filter(|&&drawn| drawn == 2)
                            .count()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(counts.iter().sum::<usize>(), 1000);
    }

    #[test]
    fn versions_that_are_not_served_are_left_out_and_keep_their_weight() {
        let mut split = split(&[(1, 3), (2, 1)]);
        split.serve(|version| version == 2);
        assert_eq!(draws(&split, 3), [2, 2, 2]);
        split.serve(|_| false);
        assert_eq!(split.draw(), None);
        split.serve(|_| true);
        assert_eq!(draws(&split, 4).iter().filter(|&&v| v == 1).count(), 3);
        // A change that changes nothing goes on where it was.
        let first = split.draw().unwrap();
        split.serve(|_| true);
        let mut rest = draws(&split, 3);
        rest.push(first);
        rest.sort_unstable();
        assert_eq!(rest, [1, 1, 1, 2]);
    }

    #[test]
    fn weights_that_make_no_split_are_refused() {
        let refused =
            |weights: &[(u64, u32)]| Split::new(weights.iter().copied().collect()).unwrap_err();
        assert_eq!(refused(&[]), SplitError::NoWeight);
        assert_eq!(refused(&[(1, 0)]), SplitError::NoWeight);
        assert_eq!(
            refused(&[(1, u32::MAX), (2, 1)]),
            SplitError::TooFine { sum: 1 << 32 }
        );
        let many: Vec<(u64, u32)> = (1..=65).map(|version| (version, 1)).collect();
        assert_eq!(refused(&many), SplitError::TooManyVersions { count: 65 });
        assert!(Split::new([(1, u32::MAX), (2, 0)].into()).is_ok());
    }
}
