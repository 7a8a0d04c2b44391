//! A target, or a group of its clients, while it is measured.

use adjoin_cli_kit::Failure;
use adjoin_cli_kit::tensor::Tensor;

use crate::arguments::{Target, Work};
use crate::job::PhasePlan;
use crate::processes::{Memory, Usage};
use crate::server::{Counters, Server};
use crate::team::Team;
use crate::totals::{ServerSpent, Totals};

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    Closed,
    /// Requests a second of all clients, and how many each may have under way.
    Poisson {
        rate: f64,
        in_flight_max: u32,
    },
}

/// Clients of a target, and what they gave so far.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) work: Work,
    pub(crate) mode: Mode,
    team: Team,
    server: Option<Server>,
    /// The largest difference to the expected answers, if they were compared.
    pub(crate) verify_error_max: Option<f64>,
    pub(crate) totals: Totals,
    /// Of the last phase.
    pub(crate) counters: Option<Counters>,
    /// Of the processes that are counted, after the last phase.
    pub(crate) memory: Option<Memory>,
}

/// A look at a server before a phase.
#[derive(Debug)]
pub(crate) struct Before {
    usage: Usage,
    counters: Option<Counters>,
}

impl Measured {
    pub(crate) async fn new(work: Work, mode: Mode, team: Team) -> Result<Self, Failure> {
        let server = match &work.target {
            Target::Adjoin { socket_dir } => Some(Server::connect(socket_dir, &work.model).await?),
            _ => None,
        };
        Ok(Self {
            work,
            mode,
            team,
            server,
            verify_error_max: None,
            totals: Totals::default(),
            counters: None,
            memory: None,
        })
    }

    /// Compares the answers of all clients with those in a file.
    pub(crate) async fn verify(&mut self, check: &crate::job::Command) -> Result<(), Failure> {
        let checked = self.team.look_at_answers(check).await;
        let label = &self.work.label;
        self.verify_error_max = Some(checked.map_err(|error| format!("{label}: {error}"))?);
        Ok(())
    }

    /// Looks at the server.
    pub(crate) async fn before(&mut self) -> Result<Before, Failure> {
        Ok(Before {
            counters: self.counters().await?,
            usage: Usage::of_trees(&self.work.server_pids),
        })
    }

    /// Begins a phase.
    pub(crate) async fn begin(&mut self, length_ms: u64, seed: u64) -> Result<(), Failure> {
        let rate = match self.mode {
            Mode::Closed => None,
            Mode::Poisson { rate, .. } => Some(rate / f64::from(self.team.clients)),
        };
        let plan = PhasePlan {
            length_ms,
            rate,
            seed,
        };
        self.team.begin(plan).await
    }

    /// Waits for the end of a phase and counts it.
    pub(crate) async fn finish(&mut self, before: Before) -> Result<(), Failure> {
        let finished = self.team.finish().await;
        let label = &self.work.label;
        let phases = finished.map_err(|error| format!("{label}: {error}"))?;
        let seen = Usage::of_trees(&self.work.server_pids).since(&before.usage);
        let pids = !self.work.server_pids.is_empty();
        self.counters = self.counters().await?;
        let growth = self.counters.as_ref().zip(before.counters.as_ref());
        let growth = growth.map(|(now, before)| now.since(before));
        let is_in_client = matches!(self.work.target, Target::InProcess { .. });
        let counted_by_itself = growth.map(|growth| growth.cpu_ns);
        let spent = ServerSpent {
            cpu_ns: pids
                .then_some(seen.cpu_ns)
                .or(counted_by_itself)
                .or_else(|| is_in_client.then_some(0)),
            context_switches: pids
                .then_some(seen.context_switches)
                .or_else(|| is_in_client.then_some(0)),
            growth,
        };
        self.totals.add(&phases, &spent);
        Ok(())
    }

    /// A whole phase.
    pub(crate) async fn phase(&mut self, length_ms: u64, seed: u64) -> Result<(), Failure> {
        let before = self.before().await?;
        self.begin(length_ms, seed).await?;
        self.finish(before).await
    }

    /// Looks at the memory of the server while its clients are connected.
    pub(crate) fn look_at_memory(&mut self) {
        let pids = &self.work.server_pids;
        self.memory = (!pids.is_empty()).then(|| Memory::of_trees(pids));
    }

    /// Forgets what was measured so far.
    pub(crate) fn forget(&mut self) {
        self.totals = Totals::default();
    }

    async fn counters(&mut self) -> Result<Option<Counters>, Failure> {
        match &mut self.server {
            Some(server) => server.look().await.map(Some),
            None => Ok(None),
        }
    }

    pub(crate) fn outputs(&self) -> &[Tensor] {
        &self.team.outputs
    }

    pub(crate) fn processes(&self) -> usize {
        self.team.processes()
    }

    /// Lets the clients end.
    pub(crate) async fn end(self) -> Result<(), Failure> {
        self.team.end().await
    }

    /// Lets the clients of all end.
    pub(crate) async fn end_all(measured: Vec<Self>) -> Result<(), Failure> {
        for measured in measured {
            measured.end().await?;
        }
        Ok(())
    }
}
