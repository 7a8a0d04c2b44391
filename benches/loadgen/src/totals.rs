//! What the phases of a target gave together.

use adjoin_cli_kit::latencies::Latencies;
use adjoin_cli_kit::spread::Spread;

use crate::job::{Phase, ProcessPhase};
use crate::server::Growth;

/// What a server used in a phase, as far as it can be seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ServerSpent {
    pub(crate) cpu_ns: Option<u64>,
    pub(crate) context_switches: Option<u64>,
    /// What an adjoin server counted.
    pub(crate) growth: Option<Growth>,
}

/// Sums over all phases.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) latencies: Latencies,
    pub(crate) refusals: Latencies,
    pub(crate) lags: Latencies,
    pub(crate) in_time: u64,
    pub(crate) late: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    pub(crate) reconnects: u64,
    /// Requests of all phases, those that do not count included.
    pub(crate) answered: u64,
    counted_ns: u64,
    client_cpu_ns: u64,
    client_context_switches: u64,
    server_cpu_ns: Option<u64>,
    server_context_switches: Option<u64>,
    pub(crate) growth: Option<Growth>,
    rates: Vec<f64>,
    goodputs: Vec<f64>,
    medians: Vec<f64>,
}

impl Totals {
    /// Takes a phase of all clients.
    pub(crate) fn add(&mut self, processes: &[ProcessPhase], server: &ServerSpent) {
        let mut latencies = Latencies::new();
        let (mut rate, mut goodput, mut counted_ns) = (0.0, 0.0, 0);
        for process in processes {
            self.client_cpu_ns += process.cpu_ns;
            self.client_context_switches += process.context_switches;
            for client in &process.clients {
                self.count(client);
                latencies.merge(&client.latencies);
                let seconds = client.counted_ns.max(1) as f64 / 1e9;
                rate += (client.in_time + client.late) as f64 / seconds;
                goodput += client.in_time as f64 / seconds;
                counted_ns = counted_ns.max(client.counted_ns);
            }
        }
        self.counted_ns += counted_ns;
        self.rates.push(rate);
        self.goodputs.push(goodput);
        if latencies.count() > 0 {
            self.medians.push(latencies.median_us());
        } else {
            self.medians.push(f64::NAN);
        }
        self.latencies.merge(&latencies.pairs());
        add(&mut self.server_cpu_ns, server.cpu_ns);
        add(&mut self.server_context_switches, server.context_switches);
        if let Some(growth) = server.growth {
            *self.growth.get_or_insert_default() += growth;
        }
    }

    fn count(&mut self, client: &Phase) {
        self.answered += client.answered;
        self.in_time += client.in_time;
        self.late += client.late;
        self.refused += client.refused;
        self.failed += client.failed;
        self.reconnects += client.reconnects;
        self.refusals.merge(&client.refusals);
        self.lags.merge(&client.lags);
    }

    /// Requests that counted.
    pub(crate) fn requests(&self) -> u64 {
        self.in_time + self.late + self.refused + self.failed
    }

    pub(crate) fn counted_s(&self) -> f64 {
        self.counted_ns as f64 / 1e9
    }

    /// Good answers a second.
    pub(crate) fn requests_per_s(&self) -> f64 {
        mean(&self.rates)
    }

    /// Good answers in time a second.
    pub(crate) fn goodput_per_s(&self) -> f64 {
        mean(&self.goodputs)
    }

    pub(crate) fn client_cpu_us_per_request(&self) -> f64 {
        self.per_request(self.client_cpu_ns) / 1000.0
    }

    pub(crate) fn client_context_switches_per_request(&self) -> f64 {
        self.per_request(self.client_context_switches)
    }

    pub(crate) fn server_cpu_s(&self) -> Option<f64> {
        self.server_cpu_ns.map(|ns| ns as f64 / 1e9)
    }

    pub(crate) fn server_context_switches(&self) -> Option<u64> {
        self.server_context_switches
    }

    /// Something that the whole phases used, for each of all requests.
    fn per_request(&self, sum: u64) -> f64 {
        sum as f64 / self.answered.max(1) as f64
    }

    /// Processor time of the clients and, if it is known, of the server.
    pub(crate) fn client_cpu_us(&self) -> u64 {
        self.client_cpu_ns / 1000
    }

    pub(crate) fn server_cpu_us(&self) -> Option<u64> {
        self.server_cpu_ns.map(|ns| ns / 1000)
    }

    /// Median of each phase's latencies.
    pub(crate) fn round_medians(&self) -> Option<Spread> {
        Spread::of(self.medians.iter().copied())
    }

    /// Medians divided by those of `first` in the same round, and the differences.
    pub(crate) fn paired(&self, first: &Self) -> (Option<Spread>, Option<Spread>) {
        let pairs = || self.medians.iter().zip(&first.medians);
        (
            Spread::of(pairs().map(|(own, first)| own / first)),
            Spread::of(pairs().map(|(own, first)| own - first)),
        )
    }
}

/// A sum is known if each part is.
fn add(sum: &mut Option<u64>, part: Option<u64>) {
    if let Some(part) = part {
        *sum.get_or_insert(0) += part;
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(in_time: u64, late: u64, latency_us: u64) -> Phase {
        Phase {
            answered: in_time + late + 1,
            counted_ns: 500_000_000,
            in_time,
            late,
            latencies: vec![(latency_us * 1000, in_time + late)],
            ..Phase::default()
        }
    }

    fn process(clients: Vec<Phase>) -> ProcessPhase {
        ProcessPhase {
            clients,
            cpu_ns: 1_000_000,
            context_switches: 5,
        }
    }

    #[test]
    fn rates_of_clients_add_up_and_those_of_phases_are_averaged() {
        let mut totals = Totals::default();
        let spent = ServerSpent {
            cpu_ns: Some(4_000_000),
            ..ServerSpent::default()
        };
        let two = [
            process(vec![phase(40, 10, 20)]),
            process(vec![phase(50, 0, 20)]),
        ];
        totals.add(&two, &spent);
        totals.add(&[process(vec![phase(60, 40, 30)])], &spent);
        // 100 in half a second twice.
        assert!((totals.requests_per_s() - 200.0).abs() < 1e-9);
        assert!((totals.goodput_per_s() - 150.0).abs() < 1e-9);
        assert_eq!((totals.requests(), totals.late), (200, 50));
        assert!((totals.counted_s() - 1.0).abs() < 1e-9);
        // 203 were answered in all.
        assert_eq!(totals.answered, 203);
        assert!((totals.client_cpu_us_per_request() - 3000.0 / 203.0).abs() < 1e-9);
        assert_eq!(totals.server_cpu_us(), Some(8000));
        assert_eq!(totals.server_context_switches(), None);
    }

    #[test]
    fn pairs_are_of_the_same_round() {
        let of = |latencies_us: [u64; 3]| {
            let mut totals = Totals::default();
            for latency_us in latencies_us {
                totals.add(
                    &[process(vec![phase(10, 0, latency_us)])],
                    &ServerSpent::default(),
                );
            }
            totals
        };
        let (first, second) = (of([10, 20, 30]), of([20, 40, 60]));
        let (ratio, difference) = second.paired(&first);
        assert!((ratio.unwrap().median - 2.0).abs() < 0.01);
        assert!((difference.unwrap().median - 20.0).abs() < 0.1);
        assert_eq!(second.round_medians().unwrap().rounds, 3);
    }
}
