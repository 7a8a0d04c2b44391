//! Waking at a moment, to the microsecond: the runtime's own timers go by milliseconds.

use adjoin_cli_kit::Failure;
use adjoin_shm::Readiness;
use adjoin_shm::clock::now_ns;
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// A timer of the kernel.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: OwnedFd,
    readiness: Readiness,
}

impl Alarm {
    /// A timer, on the runtime that runs this.
    pub(crate) fn new() -> Result<Self, Failure> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let readiness = Readiness::new(&timer)?;
        Ok(Self { timer, readiness })
    }

    /// Waits until then.
    pub(crate) async fn wait_until(&self, at_ns: u64) -> Result<(), Failure> {
        if now_ns() >= at_ns {
            return Ok(());
        }
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: i64::try_from(at_ns / 1_000_000_000)?,
                tv_nsec: i64::try_from(at_ns % 1_000_000_000)?,
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        let fired = || rustix::io::read(&self.timer, &mut [0; 8]);
        self.readiness.read_with(fired).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_wakes_at_the_moment_and_at_once_when_that_has_passed() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let alarm = Alarm::new().unwrap();
            for wait_ns in [0, 300_000, 5_000_000] {
                let at_ns = now_ns() + wait_ns;
                alarm.wait_until(at_ns).await.unwrap();
                assert!(now_ns() >= at_ns);
            }
            alarm.wait_until(0).await.unwrap();
        });
    }
}
