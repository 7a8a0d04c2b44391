//! What the command and its client processes tell each other.

use std::path::PathBuf;

use adjoin_cli_kit::latencies::Pairs;
use adjoin_cli_kit::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::arguments::Target;
use crate::cpus::CpuList;

/// What a client process is to do, once; its first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) target: Target,
    pub(crate) model: String,
    pub(crate) inputs: Vec<Tensor>,
    /// Names of outputs that are asked for; empty for all.
    pub(crate) wanted: Vec<String>,
    /// What a first client has seen of the outputs; empty for that one.
    pub(crate) outputs: Vec<Tensor>,
    /// Requests that a client may have under way at once.
    pub(crate) lanes: u32,
    pub(crate) is_open_loop: bool,
    /// Whether each request's inputs are written anew.
    pub(crate) is_rewritten: bool,
    pub(crate) deadline_us: Option<u64>,
    pub(crate) spin_us: u64,
    /// Threads of an engine in the client.
    pub(crate) engine_threads: u32,
    /// ONNX Runtime's library, if it is not in the usual places.
    pub(crate) onnxruntime: Option<PathBuf>,
    /// Clients in the process, and the number of the first.
    pub(crate) clients: u32,
    pub(crate) first_client: u32,
    pub(crate) cpus: Option<CpuList>,
    /// Failures of one client that are counted.
    pub(crate) failures_max: u64,
}

/// What all clients of a process do next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Measure for that long.
    Phase(PhasePlan),
    /// Write the answers to all contents into a file.
    Record { path: PathBuf },
    /// Compare the answers with those of such a file.
    Check { path: PathBuf },
}

/// A phase.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PhasePlan {
    pub(crate) length_ms: u64,
    /// In open loop: requests a second of each client, and what its arrivals follow from.
    pub(crate) rate: Option<f64>,
    pub(crate) seed: u64,
}

/// Answer to the job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) outputs: Vec<Tensor>,
}

/// Answer to a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Done {
    Phase(ProcessPhase),
    Recorded,
    /// The largest difference.
    Checked {
        error_max: f64,
    },
}

/// What a phase gave in one process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ProcessPhase {
    /// One for each client.
    pub(crate) clients: Vec<Phase>,
    /// Processor time of the process.
    pub(crate) cpu_ns: u64,
    pub(crate) context_switches: u64,
}

/// What a phase gave for one client.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Phase {
    /// All requests that were answered, those at the beginning included.
    pub(crate) answered: u64,
    /// Time in which requests counted.
    pub(crate) counted_ns: u64,
    /// Good answers that counted: in time (or without a deadline), and late.
    pub(crate) in_time: u64,
    pub(crate) late: u64,
    /// Requests that counted, which the server would not run.
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    /// Latencies of good answers.
    pub(crate) latencies: Pairs,
    /// Times to refusals.
    pub(crate) refusals: Pairs,
    /// Open loop: by how much requests started later than they were meant to.
    pub(crate) lags: Pairs,
    pub(crate) reconnects: u64,
}
