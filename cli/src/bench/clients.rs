//! The client processes of a measurement, told phase by phase what to do.

use std::time::Duration;

use super::job::{Command, InProcess, Job, Phase, Ready};
use crate::histogram::Latencies;
use crate::process::Worker;
use crate::{Failure, child};

/// Shortest phase: long enough that its beginning does not count, short enough that what happens on the
/// machine meets both sides.
const PHASE_MS_MIN: u64 = 200;
const PHASE_MS_MAX: u64 = 2000;
/// Calls that a phase should hold.
const CALLS_PER_PHASE: u64 = 20;

/// The client processes; the first one also makes the in-process call.
pub(super) struct Clients {
    workers: Vec<Worker>,
    /// Release of the engine of the in-process call, if there is one.
    pub(super) engine_version: Option<String>,
}

impl Clients {
    pub(super) async fn start(
        count: u32,
        job: &Job,
        in_process: Option<InProcess>,
    ) -> Result<Self, Failure> {
        let mut workers = Vec::new();
        for number in 0..count {
            let mut worker = child::worker("bench-client")?;
            let in_process = in_process.clone().filter(|_| number == 0);
            worker
                .send(&Job {
                    in_process,
                    ..job.clone()
                })
                .await?;
            workers.push(worker);
        }
        let mut engine_version = None;
        for worker in &mut workers {
            let ready: Ready = worker.receive().await?;
            engine_version = engine_version.or(ready.engine_version);
        }
        Ok(Self {
            workers,
            engine_version,
        })
    }

    /// A phase of all clients through the server.
    pub(super) async fn serve(&mut self, phase_ms: u64) -> Result<Vec<Phase>, Failure> {
        for worker in &mut self.workers {
            worker.send(&Command::Serve { phase_ms }).await?;
        }
        let mut phases = Vec::new();
        for worker in &mut self.workers {
            phases.push(worker.receive().await?);
        }
        Ok(phases)
    }

    /// A phase of the first client in-process.
    pub(super) async fn in_process(&mut self, phase_ms: u64) -> Result<Option<Phase>, Failure> {
        let Some(worker) = self
            .workers
            .first_mut()
            .filter(|_| self.engine_version.is_some())
        else {
            return Ok(None);
        };
        worker.send(&Command::InProcess { phase_ms }).await?;
        worker.receive().await.map(Some)
    }

    /// Runs both sides once; how long phases should be.
    pub(super) async fn warm_up(&mut self) -> Result<u64, Failure> {
        let mut latencies = Latencies::new();
        for phase in self.serve(PHASE_MS_MIN).await? {
            latencies.merge(&phase.latencies);
        }
        if let Some(phase) = self.in_process(PHASE_MS_MIN).await? {
            latencies.merge(&phase.latencies);
        }
        let call = Duration::from_secs_f64(latencies.quantile_us(0.9) / 1e6);
        let calls_ms = u64::try_from(call.as_millis())
            .unwrap_or(u64::MAX)
            .saturating_mul(CALLS_PER_PHASE);
        Ok(calls_ms.clamp(PHASE_MS_MIN, PHASE_MS_MAX))
    }

    pub(super) async fn end(self) -> Result<(), Failure> {
        for worker in self.workers {
            worker.end().await?;
        }
        Ok(())
    }
}
