//! The `adjoin` command.

mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A zero-copy shared-memory inference server for processes on the same node.
#[derive(Debug, Parser)]
#[command(name = "adjoin", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the models of a repository to the processes of this node.
    Serve(serve::ServeArguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Serve(arguments) => serve::run(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&*error);
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr, reason = "the one place where the command tells a person that it failed")]
fn print_error(error: &dyn std::error::Error) {
    eprintln!("adjoin: {error}");
}
