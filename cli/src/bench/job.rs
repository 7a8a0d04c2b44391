//! What the command and its client processes tell each other.

use std::path::PathBuf;

pub(super) use adjoin_cli_kit::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::Transport;
use crate::histogram::Pairs;

/// What a client process is to do, once; its first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Job {
    /// Where the server is.
    pub(super) socket_dir: PathBuf,
    pub(super) transport: Transport,
    pub(super) model: String,
    pub(super) version: u64,
    pub(super) inputs: Vec<Tensor>,
    /// In the model's order.
    pub(super) outputs: Vec<Tensor>,
    /// Requests under way at once.
    pub(super) pipeline: u32,
    /// Whether each request's inputs are written anew.
    pub(super) is_rewritten: bool,
    pub(super) spin_us: u64,
    /// For the client that also makes the in-process call.
    pub(super) in_process: Option<InProcess>,
}

/// How the in-process call is made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct InProcess {
    /// Name of the engine.
    pub(super) engine: String,
    /// ONNX Runtime's library, if it is not in the usual places.
    pub(super) onnxruntime: Option<PathBuf>,
    /// The model's file.
    pub(super) path: PathBuf,
    pub(super) threads: usize,
}

/// A phase.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Command {
    /// Calls through the server for that long.
    Serve { phase_ms: u64 },
    /// Calls in-process for that long.
    InProcess { phase_ms: u64 },
}

/// Answer to the job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    /// Release of the engine of the in-process call.
    pub(super) engine_version: Option<String>,
}

/// What a phase gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Phase {
    /// All requests, those at the beginning included.
    pub(super) requests: u64,
    /// Time of the counted ones.
    pub(super) counted_ns: u64,
    /// Processor time of the client in this phase.
    pub(super) cpu_us: u64,
    /// Latencies of the counted ones.
    pub(super) latencies: Pairs,
}
