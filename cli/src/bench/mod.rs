//! `adjoin bench`: what a request through the server costs, beside the same call in-process.
//!
//! Clients are processes of their own (`client`), told phase by phase what to do (`run`). Phases through
//! the server and phases of in-process calls take turns, some hundred milliseconds each, so that whatever
//! else happens on the machine meets both. The in-process call is made by the first client: the same
//! engine through the same interface, with inputs and outputs at fixed places.

mod body;
mod client;
mod clients;
mod in_process;
mod job;
mod meter;
mod plan;
mod report;
mod ring;
mod run;
mod signal;
mod target;
mod totals;

use std::path::PathBuf;
use std::process::ExitCode;

use adjoin_cli_kit::{bystanders, contents, machine, spread};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::parent::ParentArguments;
use crate::{Failure, interrupt};

/// Measures requests through a server, interleaved with the same call in-process.
///
/// Starts a server of its own on the model, unless --socket-dir names one that runs. Clients are processes
/// of their own; each calls again as soon as it has its answer. Through the server and in-process take turns
/// in short phases, on the same engine with the same threads and fixed places for inputs and outputs.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchArguments {
    /// Name of the model
    model: String,

    /// Client processes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    clients: u32,

    /// Time of the phases through the server, in seconds; in-process phases take as long again
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = parse_seconds)]
    seconds: f64,

    /// Rows of each request [default: 1, or the first dimension of --shape]
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,

    /// Way of requests and answers
    #[arg(long, value_name = "WAY", default_value = "ring")]
    transport: Transport,

    /// Requests that each client has under way at once
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pipeline: u32,

    /// All dimensions of an input, where the model leaves more than the rows open
    #[arg(long = "shape", value_name = "NAME=1,3,...", value_parser = plan::parse_shape)]
    shapes: Vec<plan::NamedShape>,

    /// Inputs stay as they were written once [default: each request's are written anew, before its clock
    /// starts]
    #[arg(long)]
    untouched: bool,

    /// Longest look of a client at the ring before it sleeps, in microseconds
    #[arg(long, value_name = "US", default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=20_000))]
    spin_us: u64,

    /// The same of the server [default: the configuration's, else 50]
    #[arg(long, value_name = "US", conflicts_with = "socket_dir")]
    server_spin_us: Option<u64>,

    /// Threads of the engine for one operator, in the server and in-process [default: the
    /// configuration's, else the cores divided by the instances]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: Option<u32>,

    /// Directory of models: NAME/VERSION/model.onnx
    #[arg(
        long,
        value_name = "DIR",
        env = "ADJOIN_MODEL_REPOSITORY",
        required_unless_present = "socket_dir"
    )]
    model_repository: Option<PathBuf>,

    /// Uses the server of this socket directory [default: starts one]. The in-process call then needs
    /// --model-repository, and the server's --threads
    #[arg(long, value_name = "DIR")]
    socket_dir: Option<PathBuf>,

    /// Configuration file (TOML) for the server that is started
    #[arg(long, value_name = "FILE", conflicts_with = "socket_dir")]
    config: Option<PathBuf>,

    /// Engine: onnxruntime or rten [default: ONNX Runtime where its library is found, else rten]
    #[arg(long, value_name = "NAME", conflicts_with = "socket_dir")]
    engine: Option<String>,

    /// ONNX Runtime's library [default: next to the command, then the system's library directories]
    #[arg(long, value_name = "FILE", env = "ADJOIN_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,

    /// Writes one JSON object
    #[arg(long)]
    json: bool,
}

/// How requests and answers travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
enum Transport {
    /// Tensors in shared memory, rings, wake-ups by event descriptor and futex
    Ring,
    /// Tensors in shared memory, rings, wake-ups by messages on a gRPC stream
    GrpcSignal,
    /// Open Inference Protocol over gRPC: tensors in the messages
    GrpcBody,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::GrpcSignal => "grpc-signal",
            Self::GrpcBody => "grpc-body",
        }
    }
}

/// A client process of `adjoin bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchClientArguments {
    #[command(flatten)]
    parent: ParentArguments,
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("it is a number of seconds from 0.1 to 86400".into()),
    }
}

pub(crate) fn run(arguments: &BenchArguments) -> Result<ExitCode, Failure> {
    let report = interrupt::block_on(run::run(arguments))?;
    report.print(arguments.json)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn run_client(arguments: &BenchClientArguments) -> Result<ExitCode, Failure> {
    arguments
        .parent
        .end_with_parent(rustix::process::Signal::KILL)?;
    client::run()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        _bench: BenchArguments,
    }

    #[test]
    fn arguments_are_checked_before_anything_starts() {
        let wrong =
            |flags: &str| Line::try_parse_from(format!("adjoin mlp {flags}").split(' ')).is_err();
        assert!(!wrong("--model-repository m"));
        assert!(!wrong("--socket-dir s"));
        assert!(wrong("--socket-dir s --config c"));
        assert!(wrong("--socket-dir s --engine rten"));
        for flag in [
            "--clients 0",
            "--seconds 0",
            "--seconds x",
            "--batch 0",
            "--pipeline 0",
            "--shape x",
            "--spin-us 50000",
        ] {
            assert!(wrong(&format!("--model-repository m {flag}")), "{flag}");
        }
    }
}
