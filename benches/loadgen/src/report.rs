//! What was measured: as JSON with stable keys, and as a table.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use adjoin_cli_kit::Failure;
use adjoin_cli_kit::bystanders::{Look, SHARE_MAX};
use adjoin_cli_kit::latencies::Latencies;
use adjoin_cli_kit::machine::Machine;
use adjoin_cli_kit::output::{self, grouped_rate};
use adjoin_cli_kit::spread::Spread;
use adjoin_cli_kit::table::{self, Column};
use adjoin_cli_kit::tensor::Tensor;
use serde::Serialize;

use crate::arguments::CommonArguments;
use crate::measured::{Measured, Mode};
use crate::processes::Usage;

/// Which command measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Run,
    Mixed,
    /// The first target is what the others are compared with.
    Compare {
        phase_ms: u64,
    },
}

/// What is known when the measurement begins.
#[derive(Debug)]
pub(crate) struct Report {
    kind: Kind,
    common: CommonArguments,
    began: Option<Look>,
    /// What the processes of all servers had used then.
    servers: Usage,
    unix_time_s: u64,
}

/// One line of JSON. The keys are a promise; see README.md.
#[derive(Debug, Serialize)]
struct Line {
    kind: &'static str,
    label: String,
    target: String,
    model: String,
    mode: &'static str,
    rate_per_s: Option<f64>,
    in_flight_max: Option<u32>,
    clients: u32,
    processes: usize,
    pipeline: Option<u32>,
    payload: &'static str,
    input_bytes: u64,
    output_bytes: u64,
    deadline_us: Option<u64>,
    client_spin_us: u64,
    threads: u32,
    counted_s: f64,
    requests: u64,
    ok_in_time: u64,
    ok_late: u64,
    refused: u64,
    failed: u64,
    requests_per_s: f64,
    goodput_per_s: f64,
    mean_us: Option<f64>,
    p50_us: Option<f64>,
    p90_us: Option<f64>,
    p99_us: Option<f64>,
    p999_us: Option<f64>,
    max_us: Option<f64>,
    refusal_p50_us: Option<f64>,
    refusal_p99_us: Option<f64>,
    refusal_max_us: Option<f64>,
    start_lag_p99_us: Option<f64>,
    client_cpu_us_per_request: f64,
    client_context_switches_per_request: f64,
    server_cpu_us_per_request: Option<f64>,
    server_cpu_s: Option<f64>,
    server_context_switches_per_request: Option<f64>,
    mean_batch_rows: Option<f64>,
    mean_execute_us: Option<f64>,
    bytes_copied_per_request: Option<f64>,
    server_wakeups_per_request: Option<f64>,
    client_wakeups_per_request: Option<f64>,
    server_resident_bytes: Option<u64>,
    region_bytes: Option<u64>,
    sessions: Option<u32>,
    server_pss_bytes: Option<u64>,
    server_pss_shared_bytes: Option<u64>,
    server_pss_anonymous_bytes: Option<u64>,
    reconnects: u64,
    verified: bool,
    verify_error_max: Option<f64>,
    round_p50_us: Option<Spread>,
    paired_p50_ratio: Option<Spread>,
    paired_p50_difference_us: Option<Spread>,
    rounds: Option<usize>,
    phase_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    histogram_us: Option<Vec<(f64, u64)>>,
    other_processes_share: Option<f64>,
    notes: BTreeMap<String, String>,
    machine: String,
    version: &'static str,
    command: String,
    unix_time_s: u64,
}

/// The processes of all servers.
fn server_pids(measured: &[Measured]) -> Vec<u32> {
    let pids = measured.iter().flat_map(|of| &of.work.server_pids);
    pids.copied().collect()
}

impl Report {
    /// The measurement begins now.
    pub(crate) fn begin(kind: Kind, common: &CommonArguments, measured: &[Measured]) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            kind,
            common: common.clone(),
            began: Look::now(),
            servers: Usage::of_trees(&server_pids(measured)),
            unix_time_s: since_epoch.map_or(0, |time| time.as_secs()),
        }
    }

    /// The measurement ends now: writes what came of it.
    pub(crate) fn print(&self, measured: &[Measured]) -> Result<(), Failure> {
        let share = self.others_share(measured);
        let lines: Vec<Line> = measured
            .iter()
            .map(|of| self.line(of, measured, share))
            .collect();
        if !self.common.json {
            return output::print(&text(self.kind, &lines));
        }
        for line in &lines {
            output::print(&(serde_json::to_string(line)? + "\n"))?;
        }
        Ok(())
    }

    /// Part of all processors that others used; `None` where what a server used is not known.
    fn others_share(&self, measured: &[Measured]) -> Option<f64> {
        let clients_us: u64 = measured.iter().map(|of| of.totals.client_cpu_us()).sum();
        let servers_us = self.servers_us(measured)?;
        Some(Look::now()?.others_since(self.began?, clients_us + servers_us))
    }

    /// What all servers used: also while another one was measured, as one that looks for requests all the time does.
    fn servers_us(&self, measured: &[Measured]) -> Option<u64> {
        let of_processes = Usage::of_trees(&server_pids(measured)).since(&self.servers);
        let mut sum_us = of_processes.cpu_ns / 1000;
        // All groups of `mixed` have the same server.
        let servers = match self.kind {
            Kind::Mixed => &measured[..measured.len().min(1)],
            Kind::Run | Kind::Compare { .. } => measured,
        };
        for of in servers {
            if of.work.server_pids.is_empty() {
                sum_us += of.totals.server_cpu_us()?;
            }
        }
        Some(sum_us)
    }

    fn line(&self, of: &Measured, all: &[Measured], share: Option<f64>) -> Line {
        let (work, totals) = (&of.work, &of.totals);
        let (rate_per_s, in_flight_max) = match of.mode {
            Mode::Closed => (None, None),
            Mode::Poisson {
                rate,
                in_flight_max,
            } => (Some(rate), Some(in_flight_max)),
        };
        let is_open_loop = rate_per_s.is_some();
        let phase_ms = match self.kind {
            Kind::Compare { phase_ms } => Some(phase_ms),
            Kind::Run | Kind::Mixed => None,
        };
        let first = all
            .first()
            .filter(|first| phase_ms.is_some() && !std::ptr::eq(*first, of));
        let (ratio, difference) = first.map_or((None, None), |first| totals.paired(&first.totals));
        let medians = totals.round_medians().filter(|_| phase_ms.is_some());
        let growth = totals.growth;
        let answered = if self.kind == Kind::Mixed {
            all.iter().map(|group| group.totals.answered).sum()
        } else {
            totals.answered
        };
        // What a server used, it used for the requests of all groups.
        let by_server = |sum: u64| rounded(sum as f64 / answered.max(1) as f64);
        let counters = of.counters.as_ref();
        let latency = |quantile| quantile_us(&totals.latencies, quantile);
        let refusal = |quantile| quantile_us(&totals.refusals, quantile);
        let bytes = |tensors: &[Tensor]| tensors.iter().map(|tensor| tensor.bytes() as u64).sum();
        let histogram = self.common.histogram.then(|| {
            let pairs = totals.latencies.pairs().into_iter();
            pairs
                .map(|(ns, count)| (ns as f64 / 1000.0, count))
                .collect()
        });
        Line {
            kind: match self.kind {
                Kind::Run => "run",
                Kind::Mixed => "mixed",
                Kind::Compare { .. } => "compare",
            },
            label: work.label.clone(),
            target: work.target.to_string(),
            model: work.model.clone(),
            mode: if is_open_loop { "poisson" } else { "closed" },
            rate_per_s,
            in_flight_max,
            clients: work.clients,
            processes: of.processes(),
            pipeline: (!is_open_loop).then_some(work.pipeline),
            payload: if self.common.untouched {
                "untouched"
            } else {
                "rewritten"
            },
            input_bytes: bytes(&work.inputs),
            output_bytes: bytes(of.outputs()),
            deadline_us: work.deadline_us,
            client_spin_us: work.spin_us(is_open_loop),
            threads: work.threads,
            counted_s: rounded(totals.counted_s()),
            requests: totals.requests(),
            ok_in_time: totals.in_time,
            ok_late: totals.late,
            refused: totals.refused,
            failed: totals.failed,
            requests_per_s: rounded(totals.requests_per_s()),
            goodput_per_s: rounded(totals.goodput_per_s()),
            mean_us: (totals.latencies.count() > 0).then(|| rounded(totals.latencies.mean_us())),
            p50_us: latency(0.5),
            p90_us: latency(0.9),
            p99_us: latency(0.99),
            p999_us: latency(0.999),
            max_us: latency(1.0),
            refusal_p50_us: refusal(0.5),
            refusal_p99_us: refusal(0.99),
            refusal_max_us: refusal(1.0),
            start_lag_p99_us: quantile_us(&totals.lags, 0.99),
            client_cpu_us_per_request: rounded(totals.client_cpu_us_per_request()),
            client_context_switches_per_request: rounded(
                totals.client_context_switches_per_request(),
            ),
            server_cpu_us_per_request: totals.server_cpu_us().map(by_server),
            server_cpu_s: totals.server_cpu_s().map(rounded),
            server_context_switches_per_request: totals.server_context_switches().map(by_server),
            mean_batch_rows: growth
                .map(|growth| rounded(growth.rows as f64 / growth.executions.max(1) as f64)),
            mean_execute_us: growth.filter(|growth| growth.executions > 0).map(|growth| {
                rounded(growth.execute_ns as f64 / 1000.0 / growth.executions as f64)
            }),
            bytes_copied_per_request: growth
                .map(|growth| rounded(growth.bytes_copied as f64 / growth.requests.max(1) as f64)),
            server_wakeups_per_request: growth.map(|growth| by_server(growth.wakeups)),
            client_wakeups_per_request: growth.map(|growth| by_server(growth.client_wakeups)),
            server_resident_bytes: counters.map(|counters| counters.resident_bytes()),
            region_bytes: counters.map(|counters| counters.region_bytes()),
            sessions: counters.map(|counters| counters.sessions()),
            server_pss_bytes: of.memory.map(|memory| memory.pss_bytes),
            server_pss_shared_bytes: of.memory.map(|memory| memory.pss_shared_bytes),
            server_pss_anonymous_bytes: of.memory.map(|memory| memory.pss_anonymous_bytes),
            reconnects: totals.reconnects,
            verified: of.verify_error_max.is_some(),
            verify_error_max: of.verify_error_max,
            rounds: medians.map(|medians| medians.rounds),
            round_p50_us: medians.map(rounded_spread),
            paired_p50_ratio: ratio.map(rounded_spread),
            paired_p50_difference_us: difference.map(rounded_spread),
            phase_ms,
            histogram_us: histogram,
            other_processes_share: share.map(rounded),
            notes: self.common.notes.iter().cloned().collect(),
            machine: Machine::of_this().text(),
            version: env!("CARGO_PKG_VERSION"),
            command: command(),
            unix_time_s: self.unix_time_s,
        }
    }
}

/// The command line, as it can be read.
fn command() -> String {
    let words = std::env::args().skip(1);
    std::iter::once(crate::PROGRAM.to_owned())
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

/// `None` if there are none.
fn quantile_us(latencies: &Latencies, quantile: f64) -> Option<f64> {
    (latencies.count() > 0).then(|| rounded(latencies.quantile_us(quantile)))
}

fn text(kind: Kind, lines: &[Line]) -> String {
    let mut columns = vec![
        Column::Text("TARGET"),
        Column::Number("CLIENTS"),
        Column::Number("REQUESTS/S"),
        Column::Number("P50 US"),
        Column::Number("P99 US"),
        Column::Number("P99.9 US"),
        Column::Number("CLIENT CPU US"),
        Column::Number("SERVER CPU US"),
    ];
    let has_outcomes = lines
        .iter()
        .any(|line| line.deadline_us.is_some() || line.refused + line.failed > 0);
    if has_outcomes {
        columns.extend(["IN TIME", "LATE", "REFUSED", "FAILED"].map(Column::Number));
    }
    let is_compared = matches!(kind, Kind::Compare { .. });
    if is_compared {
        columns.extend([Column::Number("RATIO"), Column::Number("DIFFERENCE US")]);
    }
    let us = |value: Option<f64>| value.map_or_else(|| "-".into(), |us| format!("{us:.1}"));
    let rows = lines.iter().map(|line| {
        let mut row = vec![
            line.label.clone(),
            line.clients.to_string(),
            grouped_rate(line.requests_per_s),
            us(line.p50_us),
            us(line.p99_us),
            us(line.p999_us),
            us(Some(line.client_cpu_us_per_request)),
            us(line.server_cpu_us_per_request),
        ];
        if has_outcomes {
            let counts = [line.ok_in_time, line.ok_late, line.refused, line.failed];
            row.extend(counts.map(|count| count.to_string()));
        }
        if is_compared {
            let spread = |spread: Option<Spread>, digits: usize| match spread {
                Some(Spread {
                    median, low, high, ..
                }) => format!("{median:.digits$} ({low:.digits$} to {high:.digits$})"),
                None => "-".into(),
            };
            row.push(spread(line.paired_p50_ratio, 3));
            row.push(spread(line.paired_p50_difference_us, 1));
        }
        row
    });
    let mut text = table::render(&columns, rows);
    let share = lines.iter().find_map(|line| line.other_processes_share);
    if let Some(share) = share.filter(|&share| share > SHARE_MAX) {
        text.push_str(&format!(
            "other processes used {:.0} % of the processors meanwhile: do not rely on these numbers\n",
            100.0 * share
        ));
    }
    text
}

/// Three decimals: more is noise, and less would be too little for a call of some microseconds.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn rounded_spread(spread: Spread) -> Spread {
    Spread {
        median: rounded(spread.median),
        low: rounded(spread.low),
        high: rounded(spread.high),
        ..spread
    }
}
