//! When to run a batch, and how large. Pure: time comes in as an argument, nothing is read or waited
//! for here, so every rule is tested by a script of arrivals.

use smallvec::SmallVec;

/// How the requests of one model version are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPolicy {
    /// Most rows of one execution, at least 1.
    pub max_batch_size: u32,
    /// Sizes at which a batch is sent off though the delay is not over, ascending.
    pub preferred_batch_sizes: SmallVec<[u32; 4]>,
    /// How long the oldest request may wait for others, in ns; 0 sends at once whatever is there.
    pub max_queue_delay_ns: u64,
}

/// What stands in the queue, as far as it can be joined with the request at its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFacts {
    /// Rows that can be joined.
    pub rows: u32,
    /// When the oldest of them came.
    pub oldest_ns: u64,
    /// The earliest of their deadlines.
    pub deadline_ns: u64,
    /// Until when another request is expected; a time that has passed if none is. Only a server on the same
    /// node can know ([`super::arrivals`]); `u64::MAX` if it does not.
    pub grows_until_ns: u64,
    /// When the batch must start for the earliest deadline to be met.
    pub start_by_ns: u64,
}

impl QueueFacts {
    /// Of an empty queue.
    pub const EMPTY: Self = Self {
        rows: 0,
        oldest_ns: u64::MAX,
        deadline_ns: u64::MAX,
        grows_until_ns: u64::MAX,
        start_by_ns: u64::MAX,
    };
}

/// What to do now, given a free instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing waits.
    Idle,
    /// Run at most this many rows.
    Dispatch {
        /// Rows.
        rows_max: u32,
    },
    /// Look again then, or when a request comes.
    WaitUntil {
        /// Time in ns.
        at_ns: u64,
    },
}

impl BatchPolicy {
    /// Never joins requests.
    #[must_use]
    pub fn single() -> Self {
        Self {
            max_batch_size: 1,
            preferred_batch_sizes: SmallVec::new(),
            max_queue_delay_ns: 0,
        }
    }

    /// The decision for what is queued at `now_ns`, with an instance free.
    #[must_use]
    pub fn decide(&self, now_ns: u64, facts: QueueFacts) -> Decision {
        if facts.rows == 0 {
            return Decision::Idle;
        }
        if facts.rows >= self.max_batch_size {
            return Decision::Dispatch {
                rows_max: self.max_batch_size,
            };
        }
        let preferred = self
            .preferred_batch_sizes
            .iter()
            .rev()
            .find(|&&size| size <= facts.rows);
        if let Some(&rows_max) = preferred {
            return Decision::Dispatch { rows_max };
        }
        let at_ns = self
            .due_ns(&facts)
            .min(facts.grows_until_ns)
            .min(facts.start_by_ns);
        if now_ns >= at_ns {
            return Decision::Dispatch {
                rows_max: self.max_batch_size,
            };
        }
        Decision::WaitUntil { at_ns }
    }

    /// When the oldest request has waited for long enough.
    #[must_use]
    pub fn due_ns(&self, facts: &QueueFacts) -> u64 {
        facts.oldest_ns.saturating_add(self.max_queue_delay_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(delay_ns: u64, preferred: &[u32]) -> BatchPolicy {
        BatchPolicy {
            max_batch_size: 16,
            preferred_batch_sizes: preferred.into(),
            max_queue_delay_ns: delay_ns,
        }
    }

    fn facts(rows: u32, oldest_ns: u64) -> QueueFacts {
        QueueFacts {
            rows,
            oldest_ns,
            ..QueueFacts::EMPTY
        }
    }

    #[test]
    fn without_a_delay_whatever_is_there_runs() {
        assert_eq!(policy(0, &[]).decide(5, facts(0, 0)), Decision::Idle);
        assert_eq!(
            policy(0, &[]).decide(5, facts(1, 5)),
            Decision::Dispatch { rows_max: 16 }
        );
    }

    #[test]
    fn a_delay_waits_for_the_oldest_and_a_full_batch_does_not_wait() {
        let policy = policy(100, &[]);
        assert_eq!(
            policy.decide(50, facts(3, 10)),
            Decision::WaitUntil { at_ns: 110 }
        );
        assert_eq!(
            policy.decide(110, facts(3, 10)),
            Decision::Dispatch { rows_max: 16 }
        );
        assert_eq!(
            policy.decide(11, facts(16, 10)),
            Decision::Dispatch { rows_max: 16 }
        );
        assert_eq!(
            policy.decide(11, facts(40, 10)),
            Decision::Dispatch { rows_max: 16 }
        );
    }

    #[test]
    fn a_preferred_size_goes_off_at_once_and_the_largest_that_fits_wins() {
        let policy = policy(100, &[4, 8]);
        assert_eq!(
            policy.decide(0, facts(3, 0)),
            Decision::WaitUntil { at_ns: 100 }
        );
        assert_eq!(
            policy.decide(0, facts(5, 0)),
            Decision::Dispatch { rows_max: 4 }
        );
        assert_eq!(
            policy.decide(0, facts(9, 0)),
            Decision::Dispatch { rows_max: 8 }
        );
    }

    #[test]
    fn waiting_ends_when_nobody_is_left_to_come() {
        let policy = policy(1_000_000, &[]);
        let alone = QueueFacts {
            grows_until_ns: 0,
            ..facts(2, 0)
        };
        assert_eq!(policy.decide(1, alone), Decision::Dispatch { rows_max: 16 });
        let expected = QueueFacts {
            grows_until_ns: 500,
            ..facts(2, 0)
        };
        assert_eq!(
            policy.decide(1, expected),
            Decision::WaitUntil { at_ns: 500 }
        );
    }

    #[test]
    fn waiting_ends_in_time_for_a_deadline() {
        let urgent = QueueFacts {
            start_by_ns: 700,
            ..facts(2, 0)
        };
        let policy = policy(1_000_000, &[]);
        assert_eq!(policy.decide(1, urgent), Decision::WaitUntil { at_ns: 700 });
        assert_eq!(
            policy.decide(700, urgent),
            Decision::Dispatch { rows_max: 16 }
        );
    }

    #[test]
    fn times_at_the_end_of_the_clock_do_not_overflow() {
        let policy = BatchPolicy {
            max_queue_delay_ns: u64::MAX,
            ..policy(0, &[])
        };
        assert_eq!(
            policy.decide(7, facts(1, 6)),
            Decision::WaitUntil { at_ns: u64::MAX }
        );
    }
}
