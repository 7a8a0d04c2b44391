//! How long the end of a batch is waited for, by its size, as far as earlier batches tell.
//!
//! A thread that sleeps until the driver wakes it gets up tens of microseconds late, one that looks at the event all the
//! time takes a core from others. One that knows how long it will take sleeps for most of that by itself, and looks at the
//! end.

use std::time::Duration;

use crate::driver::{Waited, Waiting};

/// Classes of sizes: four for each power of two.
const CLASSES: usize = 4 * usize::BITS as usize;
/// A nap that is shorter ends no sooner than this.
const NAP_MIN: Duration = Duration::from_micros(50);

/// Expected waits of a slot.
#[derive(Debug)]
pub(super) struct Waits {
    /// For each class, a time that few batches fall below.
    expected: [Option<Duration>; CLASSES],
    /// Longest look at an event; zero: none.
    look: Duration,
}

impl Waits {
    pub(super) fn new(look: Duration) -> Self {
        Self {
            expected: [None; CLASSES],
            look,
        }
    }

    /// How to wait for a batch of so many bytes.
    pub(super) fn plan(&self, byte_size: usize) -> Waiting {
        let look = self.look;
        let expected = self.expected[class(byte_size)].unwrap_or_default();
        // The end is to fall into the look, rather late than early: batches that take a little longer are more
        // frequent than such that take less than what few fall below.
        let nap = expected.saturating_sub(look * 3 / 4);
        let is_worthwhile = nap >= NAP_MIN && !look.is_zero();
        Waiting {
            nap: if is_worthwhile { nap } else { Duration::ZERO },
            look,
        }
    }

    /// Learns how long it took.
    pub(super) fn learn(&mut self, byte_size: usize, waited: Waited) {
        let expected = &mut self.expected[class(byte_size)];
        let Waited { time, is_overslept } = waited;
        *expected = Some(match *expected {
            // How much sooner it was done is not known.
            Some(before) if is_overslept => before - before / 4,
            // One stall says little of what is usual.
            Some(before) if time > before => before + (time.min(2 * before + NAP_MIN) - before) / 8,
            _ => time,
        });
    }
}

/// Sizes of one class differ by a quarter at most.
fn class(byte_size: usize) -> usize {
    let Some(octave) = byte_size.checked_ilog2() else {
        return 0;
    };
    let quarter = (byte_size << (usize::BITS - 1 - octave)) >> (usize::BITS - 3) & 3;
    4 * octave as usize + quarter
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_micros(200);

    fn microseconds(time: u64) -> Duration {
        Duration::from_micros(time)
    }

    fn woken(time: u64) -> Waited {
        let time = microseconds(time);
        Waited {
            time,
            is_overslept: false,
        }
    }

    #[test]
    fn sizes_of_a_class_differ_by_a_quarter_at_most() {
        assert_eq!((class(0), class(1)), (0, 0));
        assert_eq!(
            (class(1023), class(1024), class(1279), class(1280)),
            (39, 40, 40, 41)
        );
        assert!(class(usize::MAX) < CLASSES);
        let classes: Vec<_> = (1..100_000).map(class).collect();
        assert!(classes.is_sorted());
    }

    #[test]
    fn the_first_batch_of_a_size_is_looked_for_and_the_next_is_slept_for() {
        let mut waits = Waits::new(LOOK);
        let none = Duration::ZERO;
        assert_eq!(
            waits.plan(4096),
            Waiting {
                nap: none,
                look: LOOK
            }
        );
        waits.learn(4096, woken(1000));
        let nap = microseconds(850);
        assert_eq!(waits.plan(4096), Waiting { nap, look: LOOK });
        assert_eq!(waits.plan(8192).nap, none, "another size");
    }

    #[test]
    fn what_ends_during_the_look_is_not_slept_for() {
        let mut waits = Waits::new(LOOK);
        waits.learn(1, woken(199));
        assert!(waits.plan(1).nap.is_zero());
    }

    #[test]
    fn expectations_fall_at_once_and_rise_slowly() {
        let mut waits = Waits::new(LOOK);
        waits.learn(1, woken(1000));
        waits.learn(1, woken(1800));
        assert_eq!(waits.plan(1).nap, microseconds(1100 - 150));
        waits.learn(1, woken(600));
        assert_eq!(waits.plan(1).nap, microseconds(600 - 150));
        let is_overslept = true;
        let time = microseconds(5000);
        waits.learn(1, Waited { time, is_overslept });
        assert_eq!(waits.plan(1).nap, microseconds(450 - 150));
    }

    #[test]
    fn a_stall_is_not_taken_for_usual() {
        let mut waits = Waits::new(LOOK);
        waits.learn(1, woken(1000));
        waits.learn(1, woken(1_000_000));
        assert!(waits.plan(1).nap < microseconds(1200 - 150));
    }

    #[test]
    fn who_must_not_look_sleeps_until_woken() {
        let mut waits = Waits::new(Duration::ZERO);
        waits.learn(1, woken(1000));
        let none = Duration::ZERO;
        assert_eq!(
            waits.plan(1),
            Waiting {
                nap: none,
                look: none
            }
        );
    }
}
