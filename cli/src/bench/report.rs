//! What was measured: as JSON with stable keys, and as text.

use std::fmt::Write;

use adjoin_control_api::control::ModelVersion;
use serde_json::{Map, Value, json};

use super::Transport;
use super::bystanders::SHARE_MAX;
use super::machine::Machine;
use super::plan::Plan;
use super::totals::{Counted, Totals};
use crate::output::{bytes_text, grouped, grouped_rate};
use crate::table::Column::{Number, Text};
use crate::{Failure, output, table};

/// A measurement and its circumstances.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) model: ModelVersion,
    pub(super) plan: Plan,
    pub(super) transport: Transport,
    pub(super) clients: u32,
    pub(super) pipeline: u32,
    pub(super) is_rewritten: bool,
    pub(super) client_spin_us: u64,
    /// Of a server that was started for this.
    pub(super) server_spin_us: Option<u128>,
    /// Of the in-process call.
    pub(super) threads: Option<usize>,
    /// Of the in-process call.
    pub(super) engine_version: Option<String>,
    pub(super) server_version: String,
    /// Memory of the server at the end.
    pub(super) resident_bytes: u64,
    /// Shared memory of a session.
    pub(super) session_bytes: u64,
    /// Engines of the server, with their versions.
    pub(super) engines: Vec<String>,
    pub(super) machine: Machine,
    pub(super) phase_ms: u64,
    /// Part of all cores that other processes used meanwhile.
    pub(super) others_share: Option<f64>,
    pub(super) counted: Counted,
    /// Payload that travelled in the messages of one request, where it did.
    pub(super) message_bytes: Option<u64>,
    pub(super) totals: Totals,
}

impl Report {
    pub(super) fn print(&self, is_json: bool) -> Result<(), Failure> {
        if is_json {
            output::print_json(&self.to_json())
        } else {
            output::print(&self.to_text())
        }
    }

    fn to_json(&self) -> Value {
        let served = &self.totals.served;
        let in_process = &self.totals.in_process;
        let has_in_process = in_process.count() > 0;
        let in_process_us =
            |quantile| has_in_process.then(|| rounded(in_process.quantile_us(quantile)));
        let spread = |spread: Option<super::spread::Spread>| {
            spread.map(|spread| {
                json!({
                    "median": rounded(spread.median),
                    "low": rounded(spread.low),
                    "high": rounded(spread.high),
                    "rounds": spread.rounds,
                })
            })
        };
        let median = served.median_us();
        let mut keys = Map::new();
        let mut put = |key: &str, value: Value| drop(keys.insert(key.to_owned(), value));
        put("model", json!(self.model.name));
        put("engine", json!(self.model.engine));
        put("clients", json!(self.clients));
        put("batch", json!(self.plan.rows));
        put(
            "requests_per_s",
            json!(rounded(self.totals.requests_per_s())),
        );
        put("p50_us", json!(rounded(median)));
        put("p99_us", json!(rounded(served.quantile_us(0.99))));
        put("p999_us", json!(rounded(served.quantile_us(0.999))));
        put("in_process_p50_us", json!(in_process_us(0.5)));
        put("in_process_p99_us", json!(in_process_us(0.99)));
        put(
            "server_cpu_us_per_request",
            json!(rounded(self.totals.server_cpu_us_per_request())),
        );
        put("bytes_copied", json!(self.counted.bytes_copied));
        put("transport", json!(self.transport.name()));
        put("pipeline", json!(self.pipeline));
        put(
            "payload",
            json!(if self.is_rewritten {
                "rewritten"
            } else {
                "untouched"
            }),
        );
        put("input_bytes", json!(total_bytes(&self.plan.inputs)));
        put("output_bytes", json!(total_bytes(&self.plan.outputs)));
        put(
            "p50_ratio",
            json!(has_in_process.then(|| rounded(median / in_process.median_us()))),
        );
        put("paired_p50_ratio", json!(spread(self.totals.ratio())));
        put(
            "overhead_us",
            json!(has_in_process.then(|| rounded(median - in_process.median_us()))),
        );
        put(
            "paired_overhead_us",
            json!(spread(self.totals.overhead_us())),
        );
        put("in_process_p999_us", json!(in_process_us(0.999)));
        put(
            "in_process_requests_per_s",
            json!(self.totals.in_process_per_s().map(rounded)),
        );
        put("requests", json!(self.counted.requests));
        put("requests_in_place", json!(self.counted.in_place));
        put("executions", json!(self.counted.executions));
        put("mean_batch_rows", json!(rounded(self.mean_batch_rows())));
        put(
            "server_wakeups_per_request",
            json!(rounded(self.totals.server_wakeups_per_request())),
        );
        put(
            "client_wakeups_per_request",
            json!(rounded(self.totals.client_wakeups_per_request())),
        );
        put("server_resident_bytes", json!(self.resident_bytes));
        put("session_bytes", json!(self.session_bytes));
        put("message_bytes_per_request", json!(self.message_bytes));
        put("counted_latencies", json!(served.count()));
        put("phase_ms", json!(self.phase_ms));
        put("client_spin_us", json!(self.client_spin_us));
        put("server_spin_us", json!(self.server_spin_us));
        put("threads", json!(self.threads));
        put("model_version", json!(self.model.version));
        put("engine_version", json!(self.engine_version));
        put("server_version", json!(self.server_version));
        put("server_engines", json!(self.engines));
        put(
            "other_processes_share",
            json!(self.others_share.map(rounded)),
        );
        put("machine", json!(self.machine.text()));
        Value::Object(keys)
    }

    fn mean_batch_rows(&self) -> f64 {
        self.counted.rows as f64 / self.counted.executions.max(1) as f64
    }

    fn to_text(&self) -> String {
        let mut text = self.heading();
        let served = &self.totals.served;
        let in_process = &self.totals.in_process;
        let has_in_process = in_process.count() > 0;
        let mut columns = vec![Text(""), Number("THROUGH THE SERVER")];
        if has_in_process {
            columns.push(Number("IN-PROCESS"));
        }
        let mut rows = vec![vec![
            "requests/s".to_owned(),
            grouped_rate(self.totals.requests_per_s()),
            self.totals
                .in_process_per_s()
                .map(grouped_rate)
                .unwrap_or_default(),
        ]];
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let us = |latency: f64| format!("{latency:.1} us");
            rows.push(vec![
                name.to_owned(),
                us(served.quantile_us(quantile)),
                us(in_process.quantile_us(quantile)),
            ]);
        }
        text.push_str(&table::render(&columns, rows));
        text.push('\n');
        text.push_str(&self.comparison());
        text.push_str(&self.counts());
        if let Some(share) = self.others_share.filter(|&share| share > SHARE_MAX) {
            let _ = writeln!(
                text,
                "other processes used {:.0} % of the cores meanwhile: do not rely on these numbers",
                100.0 * share
            );
        }
        text
    }

    fn heading(&self) -> String {
        let plural =
            |count: u32, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let engine = self
            .engines
            .iter()
            .find(|engine| engine.starts_with(&self.model.engine));
        let mut text = format!(
            "{} {} on {}: {}, {} each, {}, {}\n",
            self.model.name,
            self.model.version,
            engine.unwrap_or(&self.model.engine),
            plural(self.clients, "client"),
            plural(self.pipeline, "request"),
            plural(self.plan.rows, "row"),
            self.transport.name(),
        );
        let written = if self.is_rewritten {
            "written anew each time"
        } else {
            "written once"
        };
        let (input, output) = (
            total_bytes(&self.plan.inputs),
            total_bytes(&self.plan.outputs),
        );
        let _ = write!(
            text,
            "{} in, {written}; {} out; {}",
            bytes_text(input),
            bytes_text(output),
            self.machine.text()
        );
        if let Some(threads) = self.threads {
            let threads = plural(u32::try_from(threads).unwrap_or(u32::MAX), "thread");
            let _ = write!(text, ", {threads} for an operator");
        }
        text.push_str("\n\n");
        text
    }

    fn comparison(&self) -> String {
        let (Some(ratio), Some(overhead)) = (self.totals.ratio(), self.totals.overhead_us()) else {
            return "no in-process call: name the model's --model-repository for one\n".into();
        };
        format!(
            "p50 is {:.3} times in-process ({:.3} to {:.3}), {:+.1} us ({:+.1} to {:+.1}); medians of {} paired rounds with 95 % intervals\n",
            ratio.median,
            ratio.low,
            ratio.high,
            overhead.median,
            overhead.low,
            overhead.high,
            ratio.rounds,
        )
    }

    fn counts(&self) -> String {
        let counted = &self.counted;
        let share = 100.0 * counted.in_place as f64 / counted.requests.max(1) as f64;
        let mut text = format!(
            "server: {:.1} us of processor time a request, {:.2} rows a batch, {share:.1} % of the requests in place, {} copied ({} bytes a request)\n",
            self.totals.server_cpu_us_per_request(),
            self.mean_batch_rows(),
            bytes_text(counted.bytes_copied),
            grouped(counted.bytes_copied / counted.requests.max(1)),
        );
        if let Some(bytes) = self.message_bytes {
            let _ = writeln!(
                text,
                "{} bytes of payload a request travel in messages; what gRPC copies for that is not counted",
                grouped(bytes)
            );
        }
        text
    }
}

fn total_bytes(tensors: &[super::job::Tensor]) -> u64 {
    tensors.iter().filter_map(|tensor| tensor.byte_size).sum()
}

/// Three decimals: more is noise, and less would be too little for a call of some microseconds.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
