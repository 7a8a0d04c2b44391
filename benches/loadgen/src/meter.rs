//! One phase of a client: which requests count, as what, and when it is over.

use std::ops::Range;

use adjoin_cli_kit::Failure;
use adjoin_cli_kit::latencies::Latencies;
use adjoin_shm::clock::now_ns;

use crate::client;
use crate::job::Phase;
use crate::lanes::CallError;

/// Requests in the first part of a phase do not count: the other side was asleep, its caches were cold.
const SETTLING_NS_MAX: u64 = 20_000_000;

/// Counts the requests of a phase.
#[derive(Debug)]
pub(crate) struct Meter {
    began_ns: u64,
    counts_from_ns: u64,
    ends_ns: u64,
    deadline_ns: Option<u64>,
    failures_left: u64,
    answered: u64,
    first_ns: Option<u64>,
    last_ns: u64,
    in_time: u64,
    late: u64,
    refused: u64,
    failed: u64,
    latencies: Latencies,
    refusals: Latencies,
    lags: Latencies,
}

impl Meter {
    /// A phase that begins now. After `failures_max` failures, one more is an error.
    pub(crate) fn new(length_ms: u64, deadline_us: Option<u64>, failures_max: u64) -> Self {
        Self::starting_at(now_ns(), length_ms, deadline_us, failures_max)
    }

    fn starting_at(
        now_ns: u64,
        length_ms: u64,
        deadline_us: Option<u64>,
        failures_max: u64,
    ) -> Self {
        let length_ns = length_ms * 1_000_000;
        Self {
            began_ns: now_ns,
            counts_from_ns: now_ns + SETTLING_NS_MAX.min(length_ns / 10),
            ends_ns: now_ns + length_ns,
            deadline_ns: deadline_us.map(|us| us * 1000),
            failures_left: failures_max,
            answered: 0,
            first_ns: None,
            last_ns: now_ns,
            in_time: 0,
            late: 0,
            refused: 0,
            failed: 0,
            latencies: Latencies::new(),
            refusals: Latencies::new(),
            lags: Latencies::new(),
        }
    }

    /// From when to when the phase lasts.
    pub(crate) fn span_ns(&self) -> Range<u64> {
        self.began_ns..self.ends_ns
    }

    /// Takes a request of a closed loop; whether another one is to follow. The first request of a phase
    /// never counts.
    pub(crate) fn closed(
        &mut self,
        began_ns: u64,
        ended_ns: u64,
        outcome: &Result<(), CallError>,
    ) -> Result<bool, Failure> {
        self.answered += 1;
        let counts = began_ns >= self.counts_from_ns && self.answered > 1;
        self.take(counts, began_ns, ended_ns, outcome)?;
        // A request that takes as long as the phase must not end it before anything counted.
        let is_over = ended_ns >= self.ends_ns && self.first_ns.is_some();
        Ok(!is_over && !client::is_told_to_end())
    }

    /// Takes a request of an open loop, which was meant to start at `intended_ns` and did so at
    /// `started_ns`.
    pub(crate) fn open(
        &mut self,
        intended_ns: u64,
        started_ns: u64,
        ended_ns: u64,
        outcome: &Result<(), CallError>,
    ) -> Result<(), Failure> {
        self.answered += 1;
        let counts = intended_ns >= self.counts_from_ns;
        if counts {
            self.lags.record(started_ns.saturating_sub(intended_ns));
        }
        self.take(counts, intended_ns, ended_ns, outcome)
    }

    fn take(
        &mut self,
        counts: bool,
        began_ns: u64,
        ended_ns: u64,
        outcome: &Result<(), CallError>,
    ) -> Result<(), Failure> {
        if let Err(CallError::Failed(reason)) = outcome {
            let left = self.failures_left.checked_sub(1);
            self.failures_left = left.ok_or_else(|| reason.clone())?;
        }
        if !counts {
            return Ok(());
        }
        let took_ns = ended_ns.saturating_sub(began_ns);
        self.first_ns.get_or_insert(began_ns);
        self.last_ns = self.last_ns.max(ended_ns);
        match outcome {
            Ok(()) => {
                self.latencies.record(took_ns);
                if self.deadline_ns.is_some_and(|deadline| took_ns > deadline) {
                    self.late += 1;
                } else {
                    self.in_time += 1;
                }
            }
            Err(CallError::Refused(_)) => {
                self.refusals.record(took_ns);
                self.refused += 1;
            }
            Err(CallError::Expired(_)) => self.late += 1,
            Err(CallError::Failed(_)) => self.failed += 1,
        }
        Ok(())
    }

    /// What a closed loop gave: from the first request that counted to the last.
    pub(crate) fn closed_phase(&self, reconnects: u64) -> Phase {
        let from = self.first_ns.unwrap_or(self.last_ns);
        self.phase(self.last_ns.saturating_sub(from), reconnects)
    }

    /// What an open loop gave: in the time in which requests were meant to start and, if the last ones came
    /// later than that, until then.
    pub(crate) fn open_phase(&self, reconnects: u64) -> Phase {
        let until = self.last_ns.max(self.ends_ns);
        self.phase(until.saturating_sub(self.counts_from_ns), reconnects)
    }

    fn phase(&self, counted_ns: u64, reconnects: u64) -> Phase {
        Phase {
            answered: self.answered,
            counted_ns,
            in_time: self.in_time,
            late: self.late,
            refused: self.refused,
            failed: self.failed,
            latencies: self.latencies.pairs(),
            refusals: self.refusals.pairs(),
            lags: self.lags.pairs(),
            reconnects,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn count(pairs: &[(u64, u64)]) -> u64 {
        pairs.iter().map(|pair| pair.1).sum()
    }

    #[test]
    fn requests_at_the_beginning_do_not_count_and_the_end_ends() {
        let mut meter = Meter::starting_at(0, 100, None, 0);
        let mut call = |from, to| meter.closed(from * MS, to * MS, &Ok(())).unwrap();
        assert!(call(0, 5));
        assert!(call(5, 9));
        assert!(call(10, 40));
        assert!(!call(40, 100));
        let phase = meter.closed_phase(0);
        assert_eq!((phase.answered, phase.in_time), (4, 2));
        assert_eq!((phase.counted_ns, count(&phase.latencies)), (90 * MS, 2));
    }

    #[test]
    fn a_request_longer_than_the_phase_is_followed_by_one_that_counts() {
        let mut meter = Meter::starting_at(0, 10, None, 0);
        assert!(meter.closed(0, 50 * MS, &Ok(())).unwrap());
        assert!(!meter.closed(50 * MS, 90 * MS, &Ok(())).unwrap());
    }

    #[test]
    fn outcomes_are_told_apart() {
        let mut meter = Meter::starting_at(0, 100, Some(5000), 1);
        let refused = Err(CallError::Refused("full".into()));
        let failed = Err(CallError::Failed("broken".into()));
        let mut call = |from: u64, to: u64, outcome| {
            let intended_ns = from * MS;
            meter.open(intended_ns, intended_ns + 3, to * MS, outcome)
        };
        // Before requests count.
        call(0, 50, &Ok(())).unwrap();
        call(20, 25, &Ok(())).unwrap();
        call(21, 27, &Ok(())).unwrap();
        call(22, 23, &refused).unwrap();
        call(23, 150, &failed).unwrap();
        assert_eq!(call(24, 30, &failed).unwrap_err().to_string(), "broken");
        let phase = meter.open_phase(2);
        assert_eq!(
            (phase.in_time, phase.late, phase.refused, phase.failed),
            (1, 1, 1, 1)
        );
        assert_eq!((phase.reconnects, phase.answered), (2, 6));
        assert_eq!((count(&phase.latencies), count(&phase.refusals)), (2, 1));
        assert_eq!(phase.refusals[0].0 / MS, 1);
        // From 10 ms, when requests begin to count, to the last answer.
        assert_eq!(phase.counted_ns, 140 * MS);
        assert_eq!(count(&phase.lags), 5);
    }
}
