//! Ending with the process that started this one, however that ended.

use clap::Args;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::Failure;

/// For commands that another `adjoin` starts.
#[derive(Clone, Copy, Debug, Args)]
pub struct ParentArguments {
    /// Ends when the process of this number, its parent, has ended
    #[arg(long, value_name = "PID", hide = true)]
    parent: Option<i32>,
}

impl ParentArguments {
    /// The flag, for a command line that this process puts together.
    pub fn flag() -> String {
        format!("--parent={}", rustix::process::getpid().as_raw_nonzero())
    }

    /// Has the kernel send this process `signal` when its parent ends.
    pub fn end_with_parent(self, signal: Signal) -> Result<(), Failure> {
        let Some(parent) = self.parent else {
            return Ok(());
        };
        set_parent_process_death_signal(Some(signal))?;
        // The parent may have ended before the kernel knew.
        if getppid() == Pid::from_raw(parent) {
            Ok(())
        } else {
            Err("the process that started this one has ended".into())
        }
    }
}
