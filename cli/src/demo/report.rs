//! What the demo says at its end. All of it was measured or counted, and the last line is for programs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use adjoin_control_api::control::ModelStatistics;

use super::digits::Reading;
use crate::histogram::Latencies;
use crate::output::{bytes_text, grouped, grouped_rate};
use crate::table;
use crate::table::Column::{Number, Text};

/// Characters of the longest bar.
const BAR_WIDTH: u64 = 40;

/// The requests of one way.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) latencies: Latencies,
    pub(super) requests: usize,
    /// Answers that are the label.
    pub(super) right: usize,
    pub(super) elapsed: Duration,
    /// Of the first pass.
    pub(super) readings: Vec<Reading>,
}

impl Stream {
    fn accuracy(&self) -> f64 {
        self.right as f64 / self.requests.max(1) as f64
    }

    fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// All that was measured and counted.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// All clients, pipelined, through shared memory.
    pub(super) shared: Stream,
    /// One client, one request at a time, through shared memory.
    pub(super) alone: Stream,
    /// All clients, as many at once, in messages.
    pub(super) messages: Stream,
    /// The server's counts before and after `shared`, and after `alone`.
    pub(super) before: ModelStatistics,
    pub(super) after: ModelStatistics,
    pub(super) after_alone: ModelStatistics,
}

impl Report {
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let (right, requests) = (self.shared.right, self.shared.requests);
        let _ = writeln!(
            text,
            "accuracy {:.4}: {right} of {requests} answers are the digit on the picture\n",
            self.shared.accuracy()
        );
        text.push_str(&self.comparison());
        text.push_str(&self.batches());
        text.push_str(&self.copies());
        text.push_str("the server finished what it had and ended with exit code 0\n");
        text.push_str(&self.last_line());
        text
    }

    fn comparison(&self) -> String {
        let columns = [
            Text(""),
            Number("SHARED MEMORY"),
            Number("GRPC MESSAGES"),
            Number("SHARED MEMORY, ONE BY ONE"),
        ];
        let streams = [&self.shared, &self.messages, &self.alone];
        let row = |name: &str, cell: &dyn Fn(&Stream) -> String| {
            std::iter::once(name.to_owned())
                .chain(streams.iter().map(|stream| cell(stream)))
                .collect()
        };
        let us = |latency: f64| format!("{latency:.1} us");
        let rows: [Vec<String>; 4] = [
            row("requests", &|stream| grouped(stream.requests as u64)),
            row("requests/s", &|stream| grouped_rate(stream.per_second())),
            row("latency p50", &|stream| us(stream.latencies.median_us())),
            row("latency p99", &|stream| {
                us(stream.latencies.quantile_us(0.99))
            }),
        ];
        table::render(&columns, rows) + "\n"
    }

    /// Batches of the shared stream by their rows.
    fn by_rows(&self) -> BTreeMap<u32, u64> {
        let grown = self.after.executions_by_rows.iter().map(|(&rows, &count)| {
            let earlier = self
                .before
                .executions_by_rows
                .get(&rows)
                .copied()
                .unwrap_or(0);
            (rows, count.saturating_sub(earlier))
        });
        grown.filter(|(_, count)| *count > 0).collect()
    }

    fn batches(&self) -> String {
        // One line for each power of two: least rows, most rows, batches.
        let mut groups: BTreeMap<u32, (u32, u32, u64)> = BTreeMap::new();
        for (rows, count) in self.by_rows() {
            let (_, most, batches) = groups.entry(rows.max(1).ilog2()).or_insert((rows, rows, 0));
            *most = rows;
            *batches += count;
        }
        let longest = groups.values().map(|group| group.2).max().unwrap_or(1);
        let mut text =
            String::from("batches that formed across the processes, by pictures in them:\n");
        for &(least, most, batches) in groups.values() {
            let range = if least == most {
                least.to_string()
            } else {
                format!("{least} to {most}")
            };
            let width = (batches * BAR_WIDTH).div_ceil(longest);
            let bar = "█".repeat(usize::try_from(width).unwrap_or(0));
            let _ = writeln!(text, "  {range:>9}  {:>7}  {bar}", grouped(batches));
        }
        text + "\n"
    }

    fn counted(&self, of: fn(&ModelStatistics) -> u64) -> u64 {
        of(&self.after).saturating_sub(of(&self.before))
    }

    fn copies(&self) -> String {
        let in_place = self.counted(|counted| counted.in_place_count);
        let alone = self
            .after_alone
            .in_place_count
            .saturating_sub(self.after.in_place_count);
        let mut text = format!(
            "{} of {} pipelined requests ran in place, and {} of {} one by one; for batches, {} were gathered and {} handed back\n",
            grouped(in_place),
            grouped(self.shared.requests as u64),
            grouped(alone),
            grouped(self.alone.requests as u64),
            bytes_text(self.counted(|counted| counted.gathered_bytes)),
            bytes_text(self.counted(|counted| counted.scattered_bytes)),
        );
        let engine = self.counted(|counted| counted.engine_copied_bytes);
        if engine > 0 {
            let _ = writeln!(
                text,
                "the engine itself copied {}: the built-in one copies what it reads and gives; ONNX Runtime does not (--onnxruntime)",
                bytes_text(engine)
            );
        }
        text
    }

    /// All requests through shared memory.
    fn last_line(&self) -> String {
        let mut latencies = self.shared.latencies.clone();
        latencies.merge(&self.alone.latencies.pairs());
        let requests = self.shared.requests + self.alone.requests;
        let right = self.shared.right + self.alone.right;
        let grown = |of: fn(&ModelStatistics) -> u64| {
            of(&self.after_alone).saturating_sub(of(&self.before))
        };
        format!(
            "demo: accuracy={:.3} requests={requests} p50_us={:.1} p99_us={:.1} max_batch={} in_place={} gathered_bytes={}\n",
            right as f64 / requests.max(1) as f64,
            latencies.median_us(),
            latencies.quantile_us(0.99),
            self.by_rows().keys().next_back().copied().unwrap_or(0),
            grown(|counted| counted.in_place_count),
            grown(|counted| counted.gathered_bytes),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(requests: usize, right: usize) -> Stream {
        let mut latencies = Latencies::new();
        latencies.record(20_000);
        Stream {
            latencies,
            requests,
            right,
            elapsed: Duration::from_secs(1),
            readings: Vec::new(),
        }
    }

    #[test]
    fn last_line_counts_all_requests_through_shared_memory() {
        let statistics = |in_place_count, gathered_bytes, batches: &[(u32, u64)]| ModelStatistics {
            in_place_count,
            gathered_bytes,
            executions_by_rows: batches.iter().copied().collect(),
            ..ModelStatistics::default()
        };
        let report = Report {
            shared: stream(1440, 1428),
            alone: stream(360, 357),
            messages: stream(1440, 1428),
            before: statistics(2, 100, &[(1, 2), (32, 1)]),
            after: statistics(12, 5100, &[(1, 12), (7, 3), (32, 1)]),
            after_alone: statistics(372, 5100, &[(1, 372)]),
        };
        let text = report.text();
        let last = "demo: accuracy=0.992 requests=1800 p50_us=20.0 p99_us=20.0 max_batch=7 in_place=370 gathered_bytes=5000";
        assert_eq!(text.lines().last(), Some(last));
        assert!(text.contains("\n          7        3  ███"), "{text}");
        assert!(text.contains("360 of 360 one by one"), "{text}");
        assert!(!text.contains("engine itself"), "{text}");
    }
}
