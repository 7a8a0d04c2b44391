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
/// Targets:
///   adjoin:SOCKET_DIR        adjoin's client library, prepared requests in place
///   grpc:HOST:PORT           Open Inference Protocol over gRPC, raw contents
///   grpc-shm:HOST:PORT       the same with system shared memory
///   http-msgpack:URL         POST of {"shape": [..], "data": bin} as msgpack
///   http-multipart:URL       the same body in the form field `data`
///   http-v2:HOST:PORT        Open Inference Protocol over HTTP with binary tensors
///   http-v2-shm:HOST:PORT    the same with system shared memory
///   in-process:MODEL_FILE    ONNX Runtime in the client, inputs and outputs at fixed places
///   iceoryx2:SERVICE         iceoryx2 request-response with `adjoin-loadgen serve-iceoryx2`
///
/// Clients are processes with connections that stay open. The clock of a request runs from the moment when its
/// inputs lie in memory until its outputs can be read. What is inside it for each protocol, and what the keys of
/// the JSON mean, is in benches/loadgen/README.md.
///
/// Exit codes: 0 measured, 1 failed (one line on standard error says why), 2 wrong usage, 130 or 143 interrupted.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, verbatim_doc_comment)]
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
