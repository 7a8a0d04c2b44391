//! When a device that was lost is brought back: at once, then after longer and longer pauses, and not without end. A
//! model that spoils the device with every request would otherwise have it reset for ever, and with it all other models
//! on it.
//!
//! Pure: the time comes in as an argument.

use std::time::{Duration, Instant};

/// The pause before the second attempt; each later one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A device that has worked for so long begins anew.
const QUIET: Duration = Duration::from_mins(10);

/// Attempts to bring the device back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attempts {
    most: u32,
    /// Since the device had last worked for long enough.
    made: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It works, since then if it was brought back.
    Working { since: Option<Instant> },
    /// The next attempt is due then.
    Due(Instant),
    /// There will be no further one.
    GivenUp,
}

impl Attempts {
    /// At most so many in a row; 0: none.
    pub(super) fn new(most: u32) -> Self {
        Self {
            most,
            made: 0,
            state: State::Working { since: None },
        }
    }

    /// The device was found lost; true if that gives it up. Whoever finds it lost later changes nothing.
    pub(super) fn lost(&mut self, now: Instant) -> bool {
        let State::Working { since } = self.state else {
            return false;
        };
        if since.is_some_and(|since| now.saturating_duration_since(since) >= QUIET) {
            self.made = 0;
        }
        self.plan(now);
        self.is_given_up()
    }

    /// An attempt is made now.
    pub(super) fn begin(&mut self) {
        self.made = self.made.saturating_add(1);
    }

    /// It failed.
    pub(super) fn failed(&mut self, now: Instant) {
        self.plan(now);
    }

    /// It is not possible yet, and does not count.
    pub(super) fn put_off(&mut self, now: Instant, pause: Duration) {
        self.made = self.made.saturating_sub(1);
        self.state = State::Due(now + pause);
    }

    /// The device works, and so does everything on it.
    pub(super) fn succeeded(&mut self, now: Instant) {
        self.state = State::Working { since: Some(now) };
    }

    /// What is on it is to be loaded once more, now, though the device works.
    pub(super) fn reload(&mut self, now: Instant) {
        if let State::Working { .. } = self.state {
            self.made = 0;
            self.plan(now);
        }
    }

    /// An operator wants it tried again, now.
    pub(super) fn renew(&mut self, now: Instant) {
        if self.state == State::GivenUp {
            self.made = 0;
            self.plan(now);
        }
    }

    fn plan(&mut self, now: Instant) {
        self.state = if self.made < self.most {
            State::Due(now + pause_before(self.made))
        } else {
            State::GivenUp
        };
    }

    /// When the next attempt is due, if there is to be one.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Due(at) => Some(at),
            State::Working { .. } | State::GivenUp => None,
        }
    }

    /// Whether no further attempt will be made.
    pub(super) fn is_given_up(&self) -> bool {
        self.state == State::GivenUp
    }

    /// How many were made in a row.
    pub(super) fn made(&self) -> u32 {
        self.made
    }
}

/// The pause before an attempt, by how many were made before it.
fn pause_before(made: u32) -> Duration {
    let Some(doublings) = made.checked_sub(1) else {
        return Duration::ZERO;
    };
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attempt that fails, when it is due; when the next one is.
    fn fail(attempts: &mut Attempts) -> Option<Instant> {
        let now = attempts.due().unwrap();
        attempts.begin();
        attempts.failed(now);
        attempts.due()
    }

    #[test]
    fn the_first_attempt_is_made_at_once_and_each_later_one_after_a_longer_pause() {
        let start = Instant::now();
        let mut attempts = Attempts::new(4);
        assert_eq!(attempts.due(), None);
        assert!(!attempts.lost(start));
        assert_eq!(attempts.due(), Some(start));
        let second = fail(&mut attempts).unwrap();
        let third = fail(&mut attempts).unwrap();
        let fourth = fail(&mut attempts).unwrap();
        assert_eq!(second, start + FIRST_PAUSE);
        assert_eq!(third, second + 2 * FIRST_PAUSE);
        assert_eq!(fourth, third + 4 * FIRST_PAUSE);
        assert!(!attempts.is_given_up());
        assert_eq!(fail(&mut attempts), None);
        assert!(attempts.is_given_up());
        // Nothing but an operator changes that.
        assert!(!attempts.lost(fourth), "it is given up already");
        assert!(attempts.is_given_up());
        attempts.renew(fourth);
        assert_eq!(attempts.due(), Some(fourth));
    }

    #[test]
    fn losses_that_follow_each_other_count_together_and_those_far_apart_do_not() {
        let mut now = Instant::now();
        let mut attempts = Attempts::new(2);
        for _ in 0..2 {
            attempts.lost(now);
            now = attempts.due().unwrap();
            attempts.begin();
            attempts.succeeded(now);
            assert_eq!(attempts.due(), None);
        }
        let mut other = attempts.clone();
        assert!(attempts.lost(now + QUIET / 2), "two resets were not enough");
        assert!(!other.lost(now + QUIET));
        assert_eq!(other.due(), Some(now + QUIET));
    }

    #[test]
    fn what_is_put_off_does_not_count_and_a_second_loss_changes_nothing() {
        let start = Instant::now();
        let mut attempts = Attempts::new(1);
        attempts.lost(start);
        attempts.begin();
        attempts.put_off(start, FIRST_PAUSE);
        attempts.lost(start);
        assert_eq!(attempts.due(), Some(start + FIRST_PAUSE));
        attempts.begin();
        attempts.succeeded(start + FIRST_PAUSE);
        assert_eq!(attempts.made(), 1);
    }

    #[test]
    fn without_attempts_a_loss_is_final() {
        let mut attempts = Attempts::new(0);
        assert!(attempts.lost(Instant::now()));
        assert!(attempts.is_given_up());
        assert_eq!(pause_before(u32::MAX), LONGEST_PAUSE);
    }
}
