//! From arguments to clients that are connected, and whose answers are right.

use std::path::Path;

use adjoin_cli_kit::Failure;
use adjoin_cli_kit::tensor::Tensor;
use tempfile::TempDir;

use crate::arguments::{CommonArguments, Target, Work};
use crate::job::{Command, Job};
use crate::measured::{Measured, Mode};
use crate::team::Team;

/// Starts the clients of a target, or of a group.
pub(crate) async fn start(
    common: &CommonArguments,
    work: Work,
    mode: Mode,
) -> Result<Measured, Failure> {
    let started = connect(common, &work, mode).await;
    let team = started.map_err(|error| format!("{}: {error}", work.label))?;
    let mut measured = Measured::new(work, mode, team).await?;
    if let Some(model) = &common.verify {
        let expected = Expected::of(common, &measured.work, model).await?;
        let path = expected.path();
        measured.verify(&Command::Check { path }).await?;
    }
    Ok(measured)
}

async fn connect(common: &CommonArguments, work: &Work, mode: Mode) -> Result<Team, Failure> {
    let job = job(common, work, mode);
    let first = Team::start(
        &Job {
            lanes: 1,
            ..job.clone()
        },
        1,
        1,
    )
    .await?;
    let outputs: Vec<Tensor> = first.outputs.clone();
    first.end().await?;
    let job = Job { outputs, ..job };
    Team::start(&job, work.clients, work.threads_per_process).await
}

fn job(common: &CommonArguments, work: &Work, mode: Mode) -> Job {
    let (lanes, is_open_loop) = match mode {
        Mode::Closed => (work.pipeline, false),
        Mode::Poisson { .. } if work.target.is_one_by_one() => (1, true),
        Mode::Poisson { in_flight_max, .. } => (in_flight_max, true),
    };
    Job {
        target: work.target.clone(),
        model: work.model.clone(),
        inputs: work.inputs.clone(),
        wanted: work.wanted.clone(),
        outputs: Vec::new(),
        lanes,
        is_open_loop,
        is_rewritten: !common.untouched,
        deadline_us: work.deadline_us,
        spin_us: work.spin_us(is_open_loop),
        engine_threads: work.threads,
        onnxruntime: common.onnxruntime.clone(),
        clients: 1,
        first_client: 0,
        cpus: common.cpus.clone(),
        failures_max: common.failures_max,
    }
}

/// The answers of a model in-process, in a file of their own.
struct Expected {
    directory: TempDir,
}

impl Expected {
    async fn of(common: &CommonArguments, work: &Work, model: &Path) -> Result<Self, Failure> {
        let expected = Self {
            directory: tempfile::Builder::new().prefix("adjoin-").tempdir()?,
        };
        let work = Work {
            target: Target::InProcess {
                model: model.to_owned(),
            },
            wanted: Vec::new(),
            deadline_us: None,
            ..work.clone()
        };
        let recorded = async {
            let job = job(common, &work, Mode::Closed);
            let mut team = Team::start(&Job { lanes: 1, ..job }, 1, 1).await?;
            let path = expected.path();
            team.look_at_answers(&Command::Record { path }).await?;
            team.end().await
        };
        let recorded: Result<(), Failure> = recorded.await;
        recorded.map_err(|error| format!("--verify {}: {error}", model.display()))?;
        Ok(expected)
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("expected")
    }
}
