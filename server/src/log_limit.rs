//! Keeps what a client can trigger at will from filling the log.

use std::sync::atomic::{AtomicU64, Ordering};

use adjoin_shm::clock::now_ns;

/// Admits so many lines in each second.
#[derive(Debug)]
pub(crate) struct LogLimit {
    per_second: u64,
    /// The second in the upper half, lines admitted in it in the lower.
    state: AtomicU64,
}

impl LogLimit {
    pub(crate) const fn per_second(per_second: u32) -> Self {
        Self {
            per_second: per_second as u64,
            state: AtomicU64::new(0),
        }
    }

    /// Whether a line may be written now.
    pub(crate) fn admits(&self) -> bool {
        self.admits_at(now_ns() / 1_000_000_000)
    }

    fn admits_at(&self, second: u64) -> bool {
        let fresh = second << 32;
        let outcome = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
                let state = if state >> 32 == second { state } else { fresh };
                (state & 0xffff_ffff < self.per_second).then_some(state + 1)
            });
        outcome.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_second_and_no_more() {
        let limit = LogLimit::per_second(2);
        let admitted =
            |second, times: usize| (0..times).filter(|_| limit.admits_at(second)).count();
        assert_eq!(
            (
                admitted(5, 10),
                admitted(5, 10),
                admitted(6, 1),
                admitted(9, 3)
            ),
            (2, 0, 1, 2)
        );
    }
}
