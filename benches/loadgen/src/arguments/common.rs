//! Options that hold for the whole measurement.

use std::path::PathBuf;

use clap::Args;

use crate::cpus::{self, CpuList};

/// Options of all commands.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Measurement")]
pub(crate) struct CommonArguments {
    /// Inputs stay as they were written once [default: each request's are written anew, before its clock
    /// starts]
    #[arg(long)]
    pub(crate) untouched: bool,

    /// Before anything is measured, each client's answers are compared with those of this model in-process:
    /// abs(answer - expected) <= 1e-4 + 1e-3 * abs(expected), integers exactly. A wrong answer ends the command
    /// with an error
    #[arg(long, value_name = "MODEL_FILE")]
    pub(crate) verify: Option<PathBuf>,

    /// Failed requests of one client that are counted; one more ends the command with its reason
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) failures_max: u64,

    /// Processors of the clients, such as 0-1 or 0,2 [default: all]
    #[arg(long, value_name = "LIST", value_parser = cpus::parse)]
    pub(crate) cpus: Option<CpuList>,

    /// ONNX Runtime's library [default: next to the command, then the system's library directories]
    #[arg(long, value_name = "FILE", env = "ADJOIN_ONNXRUNTIME")]
    pub(crate) onnxruntime: Option<PathBuf>,

    /// Something that stands in the results, such as a setting of the server; repeatable
    #[arg(long = "note", value_name = "KEY=VALUE", value_parser = parse_note)]
    pub(crate) notes: Vec<(String, String)>,

    /// Writes JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,

    /// Adds the histogram of the latencies to the JSON
    #[arg(long, requires = "json")]
    pub(crate) histogram: bool,
}

fn parse_note(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it is KEY=VALUE".into()),
    }
}
