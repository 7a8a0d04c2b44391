//! `adjoin-loadgen mixed`: clients of several kinds against one target at the same time.

use adjoin_cli_kit::Failure;
use clap::Args;

use crate::arguments::{CommonArguments, Group, Target, WorkArguments, parse_group, parse_seconds};
use crate::measured::{Measured, Mode};
use crate::report::{Kind, Report};
use crate::run::milliseconds;
use crate::{prepare, progress};

/// Measures one target under clients of several kinds at the same time, each kind by itself.
#[derive(Clone, Debug, Args)]
pub(crate) struct MixedArguments {
    /// What is driven, such as adjoin:/run/adjoin; `adjoin-loadgen --help` lists the kinds
    #[arg(long, value_name = "TARGET")]
    target: Target,

    /// Clients of one kind, such as name=flood,clients=1,pipeline=64; repeatable. Keys: name, clients,
    /// threads_per_process, pipeline, deadline_us, rate (requests a second of its clients: an open loop),
    /// in_flight_max
    #[arg(long = "group", value_name = "KEY=VALUE,...", required = true, value_parser = parse_group)]
    groups: Vec<Group>,

    #[command(flatten)]
    work: WorkArguments,

    /// Time that is measured
    #[arg(long, value_name = "S", default_value_t = 5.0, help_heading = "Load", value_parser = parse_seconds)]
    seconds: f64,

    /// Time before that
    #[arg(long, value_name = "S", default_value_t = 1.0, help_heading = "Load", value_parser = parse_seconds)]
    warmup: f64,

    #[command(flatten)]
    common: CommonArguments,
}

pub(crate) async fn run(arguments: &MixedArguments) -> Result<(), Failure> {
    let (warmup_ms, length_ms) = (
        milliseconds(arguments.warmup),
        milliseconds(arguments.seconds),
    );
    let bar = progress::bar(warmup_ms + length_ms, "ms");
    bar.set_message("connecting");
    let mut groups = Vec::new();
    for group in &arguments.groups {
        let work = group.work.clone().over(&arguments.work);
        let work = work.settle(arguments.target.clone())?;
        let mode = match group.rate {
            Some(rate) => Mode::Poisson {
                rate,
                in_flight_max: group.in_flight_max,
            },
            None => Mode::Closed,
        };
        groups.push(prepare::start(&arguments.common, work, mode).await?);
    }
    bar.set_message("warming up");
    progress::meanwhile(&bar, phase(&mut groups, warmup_ms, 1 << 32)).await?;
    groups.iter_mut().for_each(Measured::forget);
    bar.set_message("measuring");
    let report = Report::begin(Kind::Mixed, &arguments.common, &groups);
    progress::meanwhile(&bar, phase(&mut groups, length_ms, 1)).await?;
    bar.finish_and_clear();
    groups.iter_mut().for_each(Measured::look_at_memory);
    report.print(&groups)?;
    Measured::end_all(groups).await
}

/// A phase of all groups at the same time.
async fn phase(groups: &mut [Measured], length_ms: u64, seed: u64) -> Result<(), Failure> {
    let mut looks = Vec::new();
    for group in &mut *groups {
        looks.push(group.before().await?);
    }
    for group in &mut *groups {
        group.begin(length_ms, seed).await?;
    }
    for (group, before) in groups.iter_mut().zip(looks) {
        group.finish(before).await?;
    }
    Ok(())
}
