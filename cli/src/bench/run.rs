//! The measurement: a server, client processes, and phases in turn.

use std::time::Duration;

use adjoin_control_api::control::{ModelStatistics, ModelVersion};
use indicatif::{ProgressBar, ProgressStyle};

use super::bystanders::Look;
use super::clients::Clients;
use super::job::Job;
use super::machine::Machine;
use super::plan::{self, Plan};
use super::report::Report;
use super::target::Target;
use super::totals::{Counted, Totals};
use super::{BenchArguments, Transport};
use crate::control::Control;
use crate::{Failure, output};

/// Fewest rounds: below this there is no interval to speak of.
const ROUNDS_MIN: u64 = 5;

/// Measures what the arguments ask for.
pub(super) async fn run(arguments: &BenchArguments) -> Result<Report, Failure> {
    let progress = progress();
    progress.set_message("loading");
    let target = Target::open(arguments).await?;
    let mut control = Control::connect(&target.socket_dir).await?;
    let model = control.ready_model(&arguments.model).await?;
    let plan = plan::plan(&model, arguments.batch, &arguments.shapes)?;
    let in_process = target.in_process(arguments, &model);
    let job = Job {
        socket_dir: target.socket_dir.clone(),
        transport: arguments.transport,
        model: model.name.clone(),
        version: model.version,
        inputs: plan.inputs.clone(),
        outputs: plan.outputs.clone(),
        pipeline: arguments.pipeline,
        is_rewritten: !arguments.untouched,
        spin_us: arguments.spin_us,
        in_process: None,
    };
    let mut clients = Clients::start(arguments.clients, &job, in_process.clone()).await?;

    progress.set_message("warming up");
    let phase_ms = clients.warm_up().await?;
    let rounds = rounds(arguments.seconds, phase_ms);
    progress.set_length(rounds);
    progress.set_message("measuring");
    let before = statistics(&mut control, &model).await?;
    let mut totals = Totals::new();
    let began = Look::now();
    for _ in 0..rounds {
        totals.round(&mut control, &mut clients, phase_ms).await?;
        progress.inc(1);
    }
    let others_share = Look::now()
        .zip(began)
        .map(|(now, began)| now.others_since(began, totals.measured_cpu_us()));
    let after = statistics(&mut control, &model).await?;
    let status = control.status().await?;
    let engine_version = clients.engine_version.clone();
    clients.end().await?;
    progress.finish_and_clear();
    drop(control);

    let report = Report {
        transport: arguments.transport,
        clients: arguments.clients,
        pipeline: arguments.pipeline,
        is_rewritten: !arguments.untouched,
        client_spin_us: arguments.spin_us,
        server_spin_us: target.config.as_ref().map(|config| config.spin.as_micros()),
        threads: in_process.map(|how| how.threads),
        engine_version,
        server_version: status.version,
        resident_bytes: status.resident_bytes,
        session_bytes: status.region_bytes / u64::from(status.sessions.max(1)),
        engines: status.engines,
        machine: Machine::of_this(),
        phase_ms,
        others_share,
        counted: Counted::between(&before, &after),
        message_bytes: (arguments.transport == Transport::GrpcBody).then(|| message_bytes(&plan)),
        model,
        plan,
        totals,
    };
    target.close().await?;
    Ok(report)
}

fn progress() -> ProgressBar {
    if !output::is_progress_wanted() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::no_length();
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} rounds, {eta} left");
    // Drawn once a round and by no thread of its own, which would take a core from what is measured.
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn rounds(seconds: f64, phase_ms: u64) -> u64 {
    let wanted = Duration::from_secs_f64(seconds).as_millis();
    u64::try_from(wanted)
        .unwrap_or(u64::MAX)
        .div_ceil(phase_ms)
        .max(ROUNDS_MIN)
}

fn message_bytes(plan: &Plan) -> u64 {
    plan.inputs
        .iter()
        .chain(&plan.outputs)
        .filter_map(|tensor| tensor.byte_size)
        .sum()
}

async fn statistics(
    control: &mut Control,
    model: &ModelVersion,
) -> Result<ModelStatistics, Failure> {
    let models = control.models().await?;
    let found = models
        .into_iter()
        .find(|found| found.name == model.name && found.version == model.version);
    Ok(found
        .and_then(|found| found.statistics)
        .ok_or("the server does not list the model any more")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_fill_the_time_and_are_never_too_few() {
        assert_eq!(rounds(5.0, 200), 25);
        assert_eq!(rounds(0.1, 200), ROUNDS_MIN);
        assert_eq!(rounds(5.1, 1000), 6);
    }
}
