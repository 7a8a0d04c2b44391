//! What the command and its client processes tell each other.

use std::path::PathBuf;

use adjoin_schema::DataType;
use serde::{Deserialize, Serialize};

use super::Transport;
use crate::Failure;
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

/// An input or output of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tensor {
    pub(super) name: String,
    /// As the Open Inference Protocol names it.
    pub(super) data_type: String,
    pub(super) shape: Vec<i64>,
    /// `None` for an output whose size is known afterwards only.
    pub(super) byte_size: Option<u64>,
}

impl Tensor {
    pub(super) fn dtype(&self) -> Result<DataType, Failure> {
        let dtype = DataType::from_name(&self.data_type);
        Ok(dtype.ok_or_else(|| format!("unknown data type {:?}", self.data_type))?)
    }

    /// The bytes, in a number for memory of this process.
    pub(super) fn bytes(&self) -> usize {
        self.byte_size
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(0)
    }
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
