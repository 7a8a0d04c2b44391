//! The `adjoin` command: one file for each of its commands, and what they share.

mod bench;
mod child;
mod demo;
mod doctor;
mod drain;
mod health;
mod infer;
mod lanes;
mod models;
mod npy;
mod serve;
mod sessions;
mod socket_dir;

use std::process::ExitCode;

use adjoin_cli_kit::{
    Failure, control, interrupt, latencies as histogram, output, parent, process, table,
};
use clap::{Parser, Subcommand};

use crate::interrupt::Interrupted;

/// Messages of hundreds of kilobytes come and go. The system's allocator gives such blocks back to the kernel when they
/// are freed, and the next message pays a page fault for every 4 KiB: two thirds of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A zero-copy shared-memory inference server for processes on the same node.
///
/// Exit codes: 0 done, 1 failed (one line on standard error says why), 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "adjoin", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArguments),
    Models(models::ModelsArguments),
    Sessions(sessions::SessionsArguments),
    Infer(infer::InferArguments),
    Health(health::HealthArguments),
    Drain(drain::DrainArguments),
    SocketDir(socket_dir::SocketDirArguments),
    Doctor(doctor::DoctorArguments),
    Bench(bench::BenchArguments),
    Demo(demo::DemoArguments),
    #[command(hide = true)]
    BenchClient(bench::BenchClientArguments),
    #[command(hide = true)]
    DemoClient(demo::DemoClientArguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Models(arguments) => models::run(arguments),
        Command::Sessions(arguments) => sessions::run(&arguments),
        Command::Infer(arguments) => infer::run(&arguments),
        Command::Health(arguments) => health::run(&arguments),
        Command::Drain(arguments) => drain::run(&arguments),
        Command::SocketDir(arguments) => socket_dir::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::BenchClient(arguments) => bench::run_client(&arguments),
        Command::DemoClient(arguments) => demo::run_client(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        output::print_error("adjoin", &*error);
        match error.downcast_ref::<Interrupted>() {
            Some(interrupted) => interrupted.exit_code(),
            None => ExitCode::FAILURE,
        }
    })
}
