//! `adjoin-loadgen compare`: several targets in turn.

use adjoin_cli_kit::Failure;
use clap::{Args, Parser};

use crate::arguments::{CommonArguments, Target, Work, WorkArguments, parse_rate};
use crate::measured::{Measured, Mode};
use crate::report::{Kind, Report};
use crate::{prepare, progress};

/// Measures several targets in turn, in short phases, so that whatever else happens on the machine meets all.
///
/// All clients of all targets are connected from the beginning to the end, and one target's clients work at a
/// time. The first target is what the others are compared with, round by round.
#[derive(Clone, Debug, Args)]
pub(crate) struct CompareArguments {
    /// Phases of each target
    #[arg(long, value_name = "N", default_value_t = 25, help_heading = "Load", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rounds: u64,

    /// Length of a phase, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 200, help_heading = "Load", value_parser = clap::value_parser!(u64).range(10..=600_000))]
    phase_ms: u64,

    #[command(flatten)]
    pace: PaceArguments,

    #[command(flatten)]
    work: WorkArguments,

    #[command(flatten)]
    common: CommonArguments,

    /// A target, then options of the sections Work and Pace that hold for it alone; `--`, and the next one
    #[arg(
        last = true,
        required = true,
        value_name = "TARGET [OPTIONS] [-- TARGET [OPTIONS]]..."
    )]
    targets: Vec<String>,
}

/// How requests follow each other.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Pace")]
struct PaceArguments {
    /// Open loop with so many requests a second of all clients together, in Poisson's way [default: closed loop]
    #[arg(long, value_name = "R", value_parser = parse_rate)]
    rate: Option<f64>,

    /// Most requests that each client has under way at once in open loop [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    in_flight_max: Option<u32>,
}

impl PaceArguments {
    /// These options, with those of `common` where they say nothing.
    fn over(self, common: Self) -> Mode {
        let in_flight_max = self.in_flight_max.or(common.in_flight_max);
        match self.rate.or(common.rate) {
            Some(rate) => Mode::Poisson {
                rate,
                in_flight_max: in_flight_max.unwrap_or(64),
            },
            None => Mode::Closed,
        }
    }
}

/// What stands between two `--`.
#[derive(Debug, Parser)]
#[command(
    no_binary_name = true,
    override_usage = "TARGET [--label TEXT] [--clients N] ..."
)]
struct Section {
    /// What is driven
    target: Target,

    #[command(flatten)]
    pace: PaceArguments,

    #[command(flatten)]
    work: WorkArguments,
}

fn works(arguments: &CompareArguments) -> Result<Vec<(Work, Mode)>, Failure> {
    let work = |section: &[String]| {
        let section = Section::try_parse_from(section)?;
        let work = section.work.over(&arguments.work).settle(section.target)?;
        Ok((work, section.pace.over(arguments.pace)))
    };
    let sections = arguments.targets.split(|word| word == "--");
    sections.map(work).collect()
}

pub(crate) async fn run(arguments: &CompareArguments) -> Result<(), Failure> {
    let works = works(arguments)?;
    let bar = progress::bar(arguments.rounds, "rounds");
    bar.set_message("connecting");
    let mut targets = Vec::new();
    for (work, mode) in works {
        targets.push(prepare::start(&arguments.common, work, mode).await?);
    }
    bar.set_message("warming up");
    for target in &mut targets {
        // Other moments than those that are measured.
        target.phase(arguments.phase_ms, 1 << 32).await?;
        target.forget();
    }
    bar.set_message("measuring");
    let report = Report::begin(
        Kind::Compare {
            phase_ms: arguments.phase_ms,
        },
        &arguments.common,
        &targets,
    );
    for round in 0..arguments.rounds {
        round_of(&mut targets, round, arguments.phase_ms).await?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    targets.iter_mut().for_each(Measured::look_at_memory);
    report.print(&targets)?;
    Measured::end_all(targets).await
}

/// A phase of each target, beginning with another one each time: none always follows the same neighbour.
async fn round_of(targets: &mut [Measured], round: u64, phase_ms: u64) -> Result<(), Failure> {
    let count = targets.len();
    let first = usize::try_from(round).unwrap_or(0) % count;
    for step in 0..count {
        targets[(first + step) % count]
            .phase(phase_ms, round)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        compare: CompareArguments,
    }

    fn parsed(text: &str) -> Result<Vec<(Work, Mode)>, Failure> {
        let words = std::iter::once("compare").chain(text.split_whitespace());
        works(&Line::try_parse_from(words)?.compare)
    }

    #[test]
    fn each_target_has_the_common_options_and_its_own() {
        let works = parsed(
            "--model mlp --input x:FP32:1,4 --clients 4 --rounds 3 \
             -- in-process:m.onnx --clients 1 --threads 2 -- adjoin:/run \
             -- grpc:h:1 --label peer --server-pid 7 --server-pid 8 --rate 50",
        )
        .unwrap();
        let seen: Vec<_> = works
            .iter()
            .map(|(work, _)| (work.label.as_str(), work.clients, work.threads))
            .collect();
        assert_eq!(
            seen,
            [
                ("in-process:m.onnx", 1, 2),
                ("adjoin:/run", 4, 1),
                ("peer", 4, 1)
            ]
        );
        assert_eq!(works[2].0.server_pids, [7, 8]);
        let open = Mode::Poisson {
            rate: 50.0,
            in_flight_max: 64,
        };
        assert_eq!((works[1].1, works[2].1), (Mode::Closed, open));
    }

    #[test]
    fn wrong_targets_are_refused() {
        for text in [
            "",
            "--",
            "-- nothing",
            "-- adjoin:/run --",
            "-- adjoin:/run --rounds 3",
            "--model m --input x:FP32:1 -- adjoin:/run --clients 0",
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
