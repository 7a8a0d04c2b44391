//! `adjoin demo`: real pictures, a server, four client processes, and what came of it.

mod client;
mod digits;
mod gallery;
mod report;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::parent::ParentArguments;
use crate::{Failure, interrupt};

/// Shows adjoin at work: serves a digit recognizer and streams pictures to it from four processes.
///
/// Needs nothing: model and pictures are part of the command. Starts a server in a temporary directory,
/// has four client processes stream 360 held-out pictures at once through shared memory, then the same
/// as gRPC messages, and stops the server. The last line is for programs.
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// ONNX Runtime's library [default: next to the command, then the system's library directories;
    /// without one, the built-in engine runs the model]
    #[arg(long, value_name = "FILE", env = "ADJOIN_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,
}

/// A client process of `adjoin demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoClientArguments {
    #[command(flatten)]
    parent: ParentArguments,
}

pub(crate) fn run(arguments: &DemoArguments) -> Result<ExitCode, Failure> {
    interrupt::block_on(run::run(arguments))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn run_client(arguments: &DemoClientArguments) -> Result<ExitCode, Failure> {
    arguments
        .parent
        .end_with_parent(rustix::process::Signal::KILL)?;
    client::run()
}
