//! How much of the machine others used meanwhile. Where a client and the server must share a core
//! because another process has the other one, each request costs two switches between them, and the
//! numbers say more about the neighbour than about the server.

use std::time::Instant;

use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};

/// A share of others above which the numbers are not to be relied on.
pub const SHARE_MAX: f64 = 0.1;

/// A look at the machine's processor time.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    at: Instant,
    /// Time in which any core did anything, or was taken by the machine below.
    busy_us: u64,
    own_us: u64,
}

impl Look {
    /// `None` where the kernel does not tell.
    pub fn now() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/stat").ok()?;
        let ticks = busy_ticks(text.lines().next()?)?;
        Some(Self {
            at: Instant::now(),
            busy_us: ticks.saturating_mul(1_000_000) / clock_ticks_per_second(),
            own_us: process_cpu_us(),
        })
    }

    /// The share of all cores that went to others since then: neither to this process nor to the
    /// `measured_us` of its clients and the server.
    pub fn others_since(self, earlier: Self, measured_us: u64) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let ours_us = measured_us + self.own_us.saturating_sub(earlier.own_us);
        let others_us = self
            .busy_us
            .saturating_sub(earlier.busy_us)
            .saturating_sub(ours_us);
        let elapsed = self.at.saturating_duration_since(earlier.at).as_secs_f64();
        others_us as f64 / 1e6 / (elapsed * cores as f64).max(1e-9)
    }
}

/// Processor time of this process so far.
pub fn process_cpu_us() -> u64 {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    cpu.tv_sec.unsigned_abs() * 1_000_000 + cpu.tv_nsec.unsigned_abs() / 1000
}

/// The sum of a line of `/proc/stat` without its fourth and fifth number, in which a core idles or waits
/// for a disk, and without guests, who are counted as users, too.
fn busy_ticks(line: &str) -> Option<u64> {
    let numbers = line.strip_prefix("cpu ")?.split_whitespace().take(8);
    let numbers = numbers
        .map(str::parse)
        .collect::<Result<Vec<u64>, _>>()
        .ok()?;
    let busy = numbers
        .iter()
        .enumerate()
        .filter(|(index, _)| !matches!(index, 3 | 4));
    Some(busy.map(|(_, ticks)| ticks).sum())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn idle_time_and_guests_are_not_busy() {
        assert_eq!(busy_ticks("cpu  1 2 4 1000 1000 8 16 32 64 64"), Some(63));
        assert_eq!(busy_ticks("cpu0 1 2"), None);
        assert_eq!(busy_ticks("cpu x"), None);
    }

    #[test]
    fn own_time_is_not_that_of_others() {
        let at = Instant::now();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let earlier = Look {
            at,
            busy_us: 100,
            own_us: 10,
        };
        let later = Look {
            at: at + Duration::from_secs(1),
            busy_us: 800_100,
            own_us: 100_010,
        };
        let share = later.others_since(earlier, 200_000);
        assert!((share - 0.5 / cores as f64).abs() < 1e-6, "{share}");
        assert!(later.others_since(earlier, 2_000_000) == 0.0);
    }
}
