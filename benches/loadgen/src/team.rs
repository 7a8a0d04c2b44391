//! The client processes of one target or group, as the command sees them.

use std::time::{Duration, Instant};

use adjoin_cli_kit::Failure;
use adjoin_cli_kit::process::{Worker, this_program};
use adjoin_cli_kit::tensor::Tensor;

use crate::PROGRAM;
use crate::job::{Command, Done, Job, PhasePlan, ProcessPhase, Ready};
use crate::lanes::segment;

/// How long clients may take to give back what they hold. A client ends itself when that time is up.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// Client processes. When dropped they are told to end, and are waited for.
#[derive(Debug)]
pub(crate) struct Team {
    workers: Vec<Worker>,
    /// Outputs of an answer, as a first client saw them.
    pub(crate) outputs: Vec<Tensor>,
    pub(crate) clients: u32,
}

impl Team {
    /// Starts processes for `clients`, at most `in_one_process` of them in one, and waits until they have
    /// connected.
    pub(crate) async fn start(
        job: &Job,
        clients: u32,
        in_one_process: u32,
    ) -> Result<Self, Failure> {
        let mut team = Self {
            workers: Vec::new(),
            outputs: Vec::new(),
            clients,
        };
        let mut first = 0;
        while first < clients {
            let job = Job {
                clients: in_one_process.min(clients - first),
                first_client: first,
                ..job.clone()
            };
            first += job.clients;
            let mut worker = Worker::start(this_program(PROGRAM, "client"))?;
            let sent = worker.send(&job).await;
            team.workers.push(worker);
            sent?;
        }
        for worker in &mut team.workers {
            let ready: Ready = worker.receive().await?;
            team.outputs = ready.outputs;
        }
        Ok(team)
    }

    /// How many processes there are.
    pub(crate) fn processes(&self) -> usize {
        self.workers.len()
    }

    async fn send(&mut self, command: &Command) -> Result<(), Failure> {
        for worker in &mut self.workers {
            worker.send(command).await?;
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<Vec<Done>, Failure> {
        let mut done = Vec::new();
        for worker in &mut self.workers {
            done.push(worker.receive().await?);
        }
        Ok(done)
    }

    /// Begins a phase of all clients.
    pub(crate) async fn begin(&mut self, plan: PhasePlan) -> Result<(), Failure> {
        self.send(&Command::Phase(plan)).await
    }

    /// Waits for the end of a phase.
    pub(crate) async fn finish(&mut self) -> Result<Vec<ProcessPhase>, Failure> {
        let phases = self.receive().await?.into_iter().map(|done| match done {
            Done::Phase(phase) => Ok(phase),
            other => Err(format!("a client measured nothing: {other:?}").into()),
        });
        phases.collect()
    }

    /// Has the answers written into a file, or compared with one; the largest difference.
    pub(crate) async fn look_at_answers(&mut self, command: &Command) -> Result<f64, Failure> {
        self.send(command).await?;
        let errors = self.receive().await?.into_iter().map(|done| match done {
            Done::Checked { error_max } => error_max,
            Done::Recorded | Done::Phase(_) => 0.0,
        });
        Ok(errors.fold(0.0, f64::max))
    }

    /// Lets all clients end, which must go well.
    pub(crate) async fn end(mut self) -> Result<(), Failure> {
        for worker in &mut self.workers {
            worker.hang_up();
        }
        for worker in std::mem::take(&mut self.workers) {
            worker.end().await?;
        }
        Ok(())
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.hang_up();
        }
        let give_up = Instant::now() + END_TIMEOUT;
        while !self.workers.iter_mut().all(Worker::has_ended) && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(2));
        }
        segment::sweep();
    }
}
