//! Running a command's work so that Ctrl-C, SIGTERM and a closed terminal end it in order: the work is dropped, and with it
//! its child processes and temporary directories.

use std::future::Future;
use std::process::ExitCode;

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

use crate::Failure;

/// A signal ended the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("interrupted")]
pub struct Interrupted {
    number: u8,
}

impl Interrupted {
    const HANG_UP: Self = Self { number: 1 };
    const INTERRUPT: Self = Self { number: 2 };
    const TERMINATE: Self = Self { number: 15 };

    /// The exit code that shells expect of a command that a signal ended.
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(128 + self.number)
    }
}

/// Runs `work` on this thread until it is done or a signal comes.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        tokio::select! {
            outcome = work => outcome,
            _ = interrupt.recv() => Err(Interrupted::INTERRUPT.into()),
            _ = terminate.recv() => Err(Interrupted::TERMINATE.into()),
            _ = hang_up.recv() => Err(Interrupted::HANG_UP.into()),
        }
    })
}
