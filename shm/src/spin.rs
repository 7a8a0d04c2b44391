//! How long to look before sleeping.
//!
//! A wake-up of a sleeping thread costs some 4 to 50 us, a look at a cache line some ns, so looking for
//! a while pays when the wait is short and wastes a core when it is long. The budget learns which:
//! each spin in vain halves it, each success, or a sleep that was short after all, restores it.

use crate::clock::now_ns;

/// Looks between two `sched_yield`s where nobody else wants the core, some 10 us. A yield takes most of a microsecond,
/// and an answer that comes meanwhile waits for its end; what a small model answers is there before the first.
const LOOKS_PER_YIELD: u32 = 256;
/// Looks where another did: each look keeps somebody from working, most likely a peer of this very exchange.
const LOOKS_PER_YIELD_SHARED: u32 = 32;
/// A yield that took longer gave the core away. One that nobody wants is back within half of this.
const YIELDED_NS: u64 = 2_000;
/// How often in a row the budget is halved.
const HALVINGS_MAX: u32 = 5;

/// The budget of one waiting place.
#[derive(Clone, Debug)]
pub struct SpinBudget {
    full_ns: u64,
    halvings: u32,
    /// Looks between two yields.
    looks: u32,
}

impl SpinBudget {
    /// A budget of at most `full_ns` nanoseconds a wait; 0 never spins.
    #[must_use]
    pub fn new(full_ns: u64) -> Self {
        Self {
            full_ns,
            halvings: 0,
            looks: LOOKS_PER_YIELD,
        }
    }

    /// Looks until `ready` says so or the budget is spent; the last answer of `ready`. Gives up at once when
    /// `is_futile` says that looking keeps the peer from working.
    pub fn spin(&mut self, mut ready: impl FnMut() -> bool, is_futile: impl Fn() -> bool) -> bool {
        if ready() {
            return true;
        }
        let budget_ns = self.full_ns >> self.halvings;
        if budget_ns == 0 || is_futile() {
            return false;
        }
        let end_ns = now_ns() + budget_ns;
        loop {
            for _ in 0..self.looks {
                if ready() {
                    self.halvings = 0;
                    return true;
                }
                std::hint::spin_loop();
            }
            let before_ns = now_ns();
            if before_ns >= end_ns {
                self.halvings = (self.halvings + 1).min(HALVINGS_MAX);
                return false;
            }
            rustix::thread::sched_yield();
            let is_shared = now_ns() - before_ns > YIELDED_NS;
            self.looks = if is_shared {
                LOOKS_PER_YIELD_SHARED
            } else {
                (2 * self.looks).min(LOOKS_PER_YIELD)
            };
            if is_futile() {
                return ready();
            }
        }
    }

    /// Tells how long the sleep after a spin in vain took.
    pub fn slept(&mut self, sleep_ns: u64) {
        if sleep_ns < self.full_ns {
            self.halvings = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_shrinks_in_vain_and_comes_back() {
        let mut budget = SpinBudget::new(64_000);
        for _ in 0..10 {
            assert!(!budget.spin(|| false, || false));
        }
        assert_eq!(budget.halvings, HALVINGS_MAX);
        budget.slept(1_000_000);
        assert_eq!(budget.halvings, HALVINGS_MAX);
        budget.slept(10_000);
        assert_eq!(budget.halvings, 0);
    }

    #[test]
    fn no_budget_looks_once() {
        let mut looks = 0;
        let mut look = || {
            looks += 1;
            false
        };
        assert!(!SpinBudget::new(0).spin(&mut look, || false));
        assert!(!SpinBudget::new(1_000_000_000).spin(&mut look, || true));
        assert_eq!(looks, 2);
    }
}
