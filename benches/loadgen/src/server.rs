//! What an adjoin server counts of itself.

use std::path::Path;

use adjoin_cli_kit::Failure;
use adjoin_cli_kit::control::Control;
use adjoin_control_api::control::{ModelStatistics, ServerStatusResponse};

/// Asks a server for its counters.
#[derive(Debug)]
pub(crate) struct Server {
    control: Control,
    model: String,
}

/// The counters at a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    status: ServerStatusResponse,
    statistics: ModelStatistics,
}

/// How much they grew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Growth {
    pub(crate) cpu_ns: u64,
    pub(crate) requests: u64,
    pub(crate) executions: u64,
    pub(crate) rows: u64,
    pub(crate) bytes_copied: u64,
    /// Time of the batches in the engine.
    pub(crate) execute_ns: u64,
    /// Times that the server woke from sleep.
    pub(crate) wakeups: u64,
    /// Wake-ups that it sent to sleeping clients.
    pub(crate) client_wakeups: u64,
}

impl Server {
    pub(crate) async fn connect(socket_dir: &Path, model: &str) -> Result<Self, Failure> {
        Ok(Self {
            control: Control::connect(socket_dir).await?,
            model: model.to_owned(),
        })
    }

    /// The counters as they are now.
    pub(crate) async fn look(&mut self) -> Result<Counters, Failure> {
        let models = self.control.models().await?;
        let versions = models.into_iter().filter(|found| found.name == self.model);
        let newest = versions
            .filter(|found| found.state == "ready")
            .max_by_key(|found| found.version);
        Ok(Counters {
            status: self.control.status().await?,
            statistics: newest
                .and_then(|found| found.statistics)
                .unwrap_or_default(),
        })
    }
}

impl Counters {
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.status.resident_bytes
    }

    pub(crate) fn region_bytes(&self) -> u64 {
        self.status.region_bytes
    }

    pub(crate) fn sessions(&self) -> u32 {
        self.status.sessions
    }

    pub(crate) fn since(&self, earlier: &Self) -> Growth {
        let (now, before) = (&self.statistics, &earlier.statistics);
        let copied = |counted: &ModelStatistics| {
            counted.gathered_bytes
                + counted.scattered_bytes
                + counted.engine_copied_bytes
                + counted.copied_first_bytes
                + counted.dynamic_output_bytes
                + counted.message_body_bytes
                + counted.transformed_bytes
        };
        let of_server = |of: fn(&ServerStatusResponse) -> u64| {
            of(&self.status).saturating_sub(of(&earlier.status))
        };
        Growth {
            cpu_ns: of_server(|status| status.cpu_time_us) * 1000,
            requests: now.request_count.saturating_sub(before.request_count),
            executions: now.execution_count.saturating_sub(before.execution_count),
            rows: now.inference_count.saturating_sub(before.inference_count),
            bytes_copied: copied(now).saturating_sub(copied(before)),
            execute_ns: now.execute_ns.saturating_sub(before.execute_ns),
            wakeups: of_server(|status| status.wakeups),
            client_wakeups: of_server(|status| status.client_wakeups),
        }
    }
}

impl std::ops::AddAssign for Growth {
    fn add_assign(&mut self, more: Self) {
        self.cpu_ns += more.cpu_ns;
        self.requests += more.requests;
        self.executions += more.executions;
        self.rows += more.rows;
        self.bytes_copied += more.bytes_copied;
        self.execute_ns += more.execute_ns;
        self.wakeups += more.wakeups;
        self.client_wakeups += more.client_wakeups;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_grow_and_every_copy_counts() {
        let earlier = Counters::default();
        let mut later = Counters::default();
        later.status.cpu_time_us = 3;
        later.statistics.request_count = 5;
        later.statistics.gathered_bytes = 1;
        later.statistics.scattered_bytes = 2;
        later.statistics.engine_copied_bytes = 4;
        later.statistics.copied_first_bytes = 8;
        later.statistics.dynamic_output_bytes = 16;
        later.statistics.message_body_bytes = 32;
        later.statistics.transformed_bytes = 64;
        let grown = later.since(&earlier);
        assert_eq!(
            (grown.cpu_ns, grown.requests, grown.bytes_copied),
            (3000, 5, 127)
        );
        assert_eq!(earlier.since(&later), Growth::default());
    }
}
