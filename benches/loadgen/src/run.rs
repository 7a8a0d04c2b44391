//! `adjoin-loadgen run`: one target.

use adjoin_cli_kit::Failure;
use clap::{Args, ValueEnum};

use crate::arguments::{CommonArguments, Target, WorkArguments, parse_rate, parse_seconds};
use crate::measured::Mode;
use crate::report::{Kind, Report};
use crate::{prepare, progress};

/// Measures one target.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArguments {
    /// What is driven, such as adjoin:/run/adjoin; `adjoin-loadgen --help` lists the kinds
    #[arg(long, value_name = "TARGET")]
    target: Target,

    #[command(flatten)]
    work: WorkArguments,

    /// How requests follow each other
    #[arg(
        long,
        value_name = "MODE",
        default_value = "closed",
        help_heading = "Load"
    )]
    mode: ModeName,

    /// Requests a second of all clients together, in open loop
    #[arg(long, value_name = "R", value_parser = parse_rate, help_heading = "Load", required_if_eq("mode", "poisson"))]
    rate: Option<f64>,

    /// Most requests that each client has under way at once in open loop; later ones wait, and their clocks
    /// run
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Load", value_parser = clap::value_parser!(u32).range(1..=1024))]
    in_flight_max: u32,

    /// What the moments of an open loop follow from
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Load")]
    seed: u64,

    /// Time that is measured
    #[arg(long, value_name = "S", default_value_t = 5.0, help_heading = "Load", value_parser = parse_seconds)]
    seconds: f64,

    /// Time before that
    #[arg(long, value_name = "S", default_value_t = 1.0, help_heading = "Load", value_parser = parse_seconds)]
    warmup: f64,

    #[command(flatten)]
    common: CommonArguments,
}

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeName {
    /// Each as soon as the one before is answered
    Closed,
    /// At moments of a Poisson process, whether or not earlier ones are answered
    Poisson,
}

/// Milliseconds of a number of seconds that was checked.
pub(crate) fn milliseconds(seconds: f64) -> u64 {
    let length = std::time::Duration::from_secs_f64(seconds);
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) async fn run(arguments: &RunArguments) -> Result<(), Failure> {
    let work = arguments.work.clone().settle(arguments.target.clone())?;
    let mode = match (arguments.mode, arguments.rate) {
        (ModeName::Poisson, Some(rate)) => Mode::Poisson {
            rate,
            in_flight_max: arguments.in_flight_max,
        },
        _ => Mode::Closed,
    };
    let (warmup_ms, length_ms) = (
        milliseconds(arguments.warmup),
        milliseconds(arguments.seconds),
    );
    let bar = progress::bar(warmup_ms + length_ms, "ms");
    bar.set_message("connecting");
    let mut measured = prepare::start(&arguments.common, work, mode).await?;
    bar.set_message("warming up");
    // Other moments than those that are measured.
    let other_seed = arguments.seed.wrapping_add(1 << 32);
    progress::meanwhile(&bar, measured.phase(warmup_ms, other_seed)).await?;
    measured.forget();
    bar.set_message("measuring");
    let report = Report::begin(
        Kind::Run,
        &arguments.common,
        std::slice::from_ref(&measured),
    );
    progress::meanwhile(&bar, measured.phase(length_ms, arguments.seed)).await?;
    bar.finish_and_clear();
    measured.look_at_memory();
    report.print(std::slice::from_ref(&measured))?;
    measured.end().await
}
