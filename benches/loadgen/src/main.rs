//! Load generator: the same inputs to adjoin and to the servers it is compared with, from native code.
//!
//! The command (`run`, `compare`, `mixed`) starts client processes, which are this same program (`client`),
//! and tells them phase by phase what to do (`team`, `job`). In a client each connection is a `Lane`; the
//! drivers in `lanes` run all of them, in closed or in open loop, whatever protocol they speak. What a phase
//! gave is counted in `meter`, summed up in `totals` and written by `report`.

mod alarm;
mod answers;
mod arguments;
mod arrivals;
mod caller;
mod client;
mod compare;
mod cpus;
mod iox;
mod job;
mod lanes;
mod measured;
mod meter;
mod mixed;
mod prepare;
mod processes;
mod progress;
mod report;
mod run;
mod server;
mod team;
mod totals;

use std::process::ExitCode;

use adjoin_cli_kit::interrupt::{self, Interrupted};
use adjoin_cli_kit::{Failure, output};
use clap::{Parser, Subcommand};

/// The command's name, for messages.
const PROGRAM: &str = "adjoin-loadgen";

/// Drives adjoin and the servers it is compared with, all with the same inputs.
///
/// Targets: adjoin:SOCKET_DIR, grpc:HOST:PORT, in-process:MODEL_FILE. What is inside the clock, and the keys of
/// the results, are described in benches/loadgen/README.md.
///
/// Exit codes: 0 measured, 1 failed (one line on standard error says why), 2 wrong usage, 130 or 143
/// interrupted.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArguments),
    Compare(compare::CompareArguments),
    Mixed(mixed::MixedArguments),
    ServeIceoryx2(iox::ServeIceoryx2Arguments),
    #[command(hide = true)]
    Client,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(arguments) => interrupt::block_on(run::run(&arguments)),
        Command::Compare(arguments) => interrupt::block_on(compare::run(&arguments)),
        Command::Mixed(arguments) => interrupt::block_on(mixed::run(&arguments)),
        Command::ServeIceoryx2(arguments) => iox::run(&arguments),
        Command::Client => client::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &Failure) -> ExitCode {
    output::print_error(PROGRAM, &**error);
    match error.downcast_ref::<Interrupted>() {
        Some(interrupted) => interrupted.exit_code(),
        None => ExitCode::FAILURE,
    }
}
