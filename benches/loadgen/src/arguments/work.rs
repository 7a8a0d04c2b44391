//! What a target is asked to do; in `compare` each target may have its own.

use adjoin_cli_kit::Failure;
use adjoin_cli_kit::tensor::Tensor;
use clap::Args;

use super::Target;
use super::tensors::parse_input;

/// Longest look before a sleep that adjoin's client library has.
const SPIN_US_MAX: i64 = 20_000;
const SPIN_US: u64 = 100;

/// Options that hold for one target.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Work")]
pub(crate) struct WorkArguments {
    /// Name of the target in the results [default: the target]
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,

    /// Name of the model, where requests name one
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// An input: its name, its data type as the Open Inference Protocol writes it, all its dimensions;
    /// repeatable
    #[arg(long = "input", value_name = "NAME:DTYPE:1,128", value_parser = parse_input)]
    inputs: Vec<Tensor>,

    /// Outputs that are asked for [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    outputs: Vec<String>,

    /// Clients, each with connections of its own [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    clients: Option<u32>,

    /// Clients in one process, a thread each [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    threads_per_process: Option<u32>,

    /// Requests that each client has under way at once in closed loop; over HTTP it has as many
    /// connections [default: 1]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pipeline: Option<u32>,

    /// An answer later than this many microseconds is late. Sent to the server where the protocol can, which
    /// may refuse the request then
    #[arg(long, value_name = "US", value_parser = clap::value_parser!(u64).range(1..=60_000_000))]
    deadline_us: Option<u64>,

    /// How long a client of adjoin or iceoryx2 looks before it sleeps, in microseconds [default: 100; 0 in open
    /// loop]
    #[arg(long, value_name = "US", value_parser = clap::value_parser!(u64).range(0..=SPIN_US_MAX as u64))]
    client_spin_us: Option<u64>,

    /// Threads of the engine for one operator, in-process and for --verify [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: Option<u32>,

    /// Counts processor time and context switches of this process and its descendants; repeatable
    #[arg(long = "server-pid", value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    server_pids: Vec<u32>,
}

/// What a target is asked to do, settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) target: Target,
    pub(crate) label: String,
    /// Empty where none was named.
    pub(crate) model: String,
    pub(crate) inputs: Vec<Tensor>,
    /// Names of outputs; empty for all.
    pub(crate) wanted: Vec<String>,
    pub(crate) clients: u32,
    pub(crate) threads_per_process: u32,
    pub(crate) pipeline: u32,
    pub(crate) deadline_us: Option<u64>,
    /// `None` for what suits the loop.
    pub(crate) client_spin_us: Option<u64>,
    pub(crate) threads: u32,
    pub(crate) server_pids: Vec<u32>,
}

impl WorkArguments {
    /// These options, with those of `common` where they say nothing.
    pub(crate) fn over(self, common: &Self) -> Self {
        let or = |own: Vec<_>, common: &Vec<_>| if own.is_empty() { common.clone() } else { own };
        Self {
            label: self.label.or_else(|| common.label.clone()),
            model: self.model.or_else(|| common.model.clone()),
            inputs: if self.inputs.is_empty() {
                common.inputs.clone()
            } else {
                self.inputs
            },
            outputs: or(self.outputs, &common.outputs),
            clients: self.clients.or(common.clients),
            threads_per_process: self.threads_per_process.or(common.threads_per_process),
            pipeline: self.pipeline.or(common.pipeline),
            deadline_us: self.deadline_us.or(common.deadline_us),
            client_spin_us: self.client_spin_us.or(common.client_spin_us),
            threads: self.threads.or(common.threads),
            server_pids: if self.server_pids.is_empty() {
                common.server_pids.clone()
            } else {
                self.server_pids
            },
        }
    }

    /// What `target` is asked to do.
    pub(crate) fn settle(self, target: Target) -> Result<Work, Failure> {
        let missing = |what: &str| Err(format!("{target} needs {what}").into());
        if self.inputs.is_empty() {
            return missing("--input NAME:DTYPE:1,128");
        }
        if target.is_one_tensor() && self.inputs.len() > 1 {
            return missing("one --input only: its bodies hold one tensor");
        }
        if target.names_model() && self.model.is_none() {
            return missing("--model NAME");
        }
        let pipeline = self.pipeline.unwrap_or(1);
        if target.is_one_by_one() && pipeline > 1 {
            return missing("--pipeline 1: its clients have one request under way");
        }
        Ok(Work {
            label: self.label.unwrap_or_else(|| target.to_string()),
            model: self.model.unwrap_or_default(),
            inputs: self.inputs,
            wanted: self.outputs,
            clients: self.clients.unwrap_or(1),
            threads_per_process: self.threads_per_process.unwrap_or(1),
            pipeline,
            deadline_us: self.deadline_us,
            client_spin_us: self.client_spin_us,
            threads: self.threads.unwrap_or(1),
            server_pids: self.server_pids,
            target,
        })
    }
}

impl Work {
    /// How long clients look before they sleep.
    pub(crate) fn spin_us(&self, is_open_loop: bool) -> u64 {
        let usual = if is_open_loop { 0 } else { SPIN_US };
        self.client_spin_us.unwrap_or(usual)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(no_binary_name = true)]
    struct Line {
        #[command(flatten)]
        work: WorkArguments,
    }

    fn work(flags: &str) -> WorkArguments {
        Line::parse_from(flags.split_whitespace()).work
    }

    #[test]
    fn a_targets_own_options_stand_over_the_common_ones() {
        let common = work("--model mlp --input x:FP32:1,4 --clients 4 --server-pid 7");
        let own = work("--clients 2 --input y:FP32:1,8 --threads 3");
        let target: Target = "adjoin:/run".parse().unwrap();
        let settled = own.over(&common).settle(target).unwrap();
        assert_eq!(
            (settled.clients, settled.threads, settled.pipeline),
            (2, 3, 1)
        );
        assert_eq!(
            (settled.inputs.len(), settled.inputs[0].name.as_str()),
            (1, "y")
        );
        assert_eq!(
            (settled.model.as_str(), settled.label.as_str()),
            ("mlp", "adjoin:/run")
        );
        assert_eq!(settled.server_pids, [7]);
        assert_eq!((settled.spin_us(false), settled.spin_us(true)), (100, 0));
    }

    #[test]
    fn what_a_target_cannot_do_is_said() {
        let error = |target: &str, flags: &str| {
            let settled = work(flags).settle(target.parse().unwrap());
            settled.unwrap_err().to_string()
        };
        assert!(error("adjoin:/run", "--model m").contains("--input"));
        assert!(error("grpc:a:1", "--input x:FP32:1").contains("--model"));
        let two = "--input x:FP32:1 --input y:FP32:1";
        assert!(error("http-msgpack:http://a:1/", two).contains("one --input"));
        let pipelined = "--input x:FP32:1 --pipeline 2";
        assert!(error("in-process:m.onnx", pipelined).contains("--pipeline 1"));
    }
}
