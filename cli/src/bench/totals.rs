//! What the rounds of a measurement gave.

use adjoin_control_api::control::ModelStatistics;

use super::clients::Clients;
use super::job::Phase;
use super::spread::Spread;
use crate::Failure;
use crate::control::Control;
use crate::histogram::Latencies;

/// What the server counted while it was measured.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    pub(super) requests: u64,
    pub(super) executions: u64,
    pub(super) rows: u64,
    pub(super) in_place: u64,
    pub(super) bytes_copied: u64,
}

impl Counted {
    /// The growth from one look to a later one.
    pub(super) fn between(before: &ModelStatistics, after: &ModelStatistics) -> Self {
        let grown = |of: fn(&ModelStatistics) -> u64| of(after).saturating_sub(of(before));
        Self {
            requests: grown(|counted| counted.request_count),
            executions: grown(|counted| counted.execution_count),
            rows: grown(|counted| counted.inference_count),
            in_place: grown(|counted| counted.in_place_count),
            bytes_copied: grown(|counted| {
                counted.gathered_bytes
                    + counted.scattered_bytes
                    + counted.engine_copied_bytes
                    + counted.copied_first_bytes
                    + counted.dynamic_output_bytes
                    + counted.message_body_bytes
                    + counted.transformed_bytes
            }),
        }
    }
}

/// What all rounds gave.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    pub(super) served: Latencies,
    pub(super) in_process: Latencies,
    /// Requests of all phases through the server, those that do not count included.
    requests: u64,
    cpu_us: u64,
    clients_cpu_us: u64,
    server_wakeups: u64,
    client_wakeups: u64,
    rates: Vec<f64>,
    in_process_rates: Vec<f64>,
    ratios: Vec<f64>,
    overheads: Vec<f64>,
}

impl Totals {
    pub(super) fn new() -> Self {
        Self {
            served: Latencies::new(),
            in_process: Latencies::new(),
            requests: 0,
            cpu_us: 0,
            clients_cpu_us: 0,
            server_wakeups: 0,
            client_wakeups: 0,
            rates: Vec::new(),
            in_process_rates: Vec::new(),
            ratios: Vec::new(),
            overheads: Vec::new(),
        }
    }

    /// A phase through the server, and one in-process.
    pub(super) async fn round(
        &mut self,
        control: &mut Control,
        clients: &mut Clients,
        phase_ms: u64,
    ) -> Result<(), Failure> {
        let before = control.status().await?;
        let phases = clients.serve(phase_ms).await?;
        let after = control.status().await?;
        self.cpu_us += after.cpu_time_us.saturating_sub(before.cpu_time_us);
        self.server_wakeups += after.wakeups.saturating_sub(before.wakeups);
        self.client_wakeups += after.client_wakeups.saturating_sub(before.client_wakeups);
        let mut served = Latencies::new();
        for phase in &phases {
            served.merge(&phase.latencies);
            self.requests += phase.requests;
            self.clients_cpu_us += phase.cpu_us;
        }
        self.served.merge(&served.pairs());
        self.rates.push(phases.iter().map(rate).sum());

        if let Some(phase) = clients.in_process(phase_ms).await? {
            let mut in_process = Latencies::new();
            in_process.merge(&phase.latencies);
            self.clients_cpu_us += phase.cpu_us;
            self.in_process.merge(&phase.latencies);
            self.in_process_rates.push(rate(&phase));
            self.ratios
                .push(served.median_us() / in_process.median_us());
            self.overheads
                .push(served.median_us() - in_process.median_us());
        }
        Ok(())
    }

    pub(super) fn requests_per_s(&self) -> f64 {
        mean(&self.rates)
    }

    pub(super) fn in_process_per_s(&self) -> Option<f64> {
        (!self.in_process_rates.is_empty()).then(|| mean(&self.in_process_rates))
    }

    pub(super) fn server_cpu_us_per_request(&self) -> f64 {
        self.cpu_us as f64 / self.requests.max(1) as f64
    }

    /// Processor time of the clients and the server.
    pub(super) fn measured_cpu_us(&self) -> u64 {
        self.cpu_us + self.clients_cpu_us
    }

    /// How often the server woke from sleep, for each request.
    pub(super) fn server_wakeups_per_request(&self) -> f64 {
        self.server_wakeups as f64 / self.requests.max(1) as f64
    }

    /// How often it woke a sleeping client, for each request.
    pub(super) fn client_wakeups_per_request(&self) -> f64 {
        self.client_wakeups as f64 / self.requests.max(1) as f64
    }

    /// Median through the server, divided by the in-process one of the same round.
    pub(super) fn ratio(&self) -> Option<Spread> {
        Spread::of(self.ratios.iter().copied())
    }

    /// The same, subtracted, in us.
    pub(super) fn overhead_us(&self) -> Option<Spread> {
        Spread::of(self.overheads.iter().copied())
    }
}

fn rate(phase: &Phase) -> f64 {
    let counted: u64 = phase.latencies.iter().map(|pair| pair.1).sum();
    counted as f64 * 1e9 / phase.counted_ns.max(1) as f64
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
