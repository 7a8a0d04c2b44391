//! `--group name=flood,clients=1,pipeline=64`: clients of one kind among others.

use clap::Parser;

use super::{WorkArguments, parse_rate};

/// Clients of one kind.
#[derive(Clone, Debug, Parser)]
#[command(no_binary_name = true)]
pub(crate) struct Group {
    #[command(flatten)]
    pub(crate) work: WorkArguments,
    /// Requests a second of all its clients; `None` for a closed loop.
    #[arg(long, value_parser = parse_rate)]
    pub(crate) rate: Option<f64>,
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) in_flight_max: u32,
}

/// The keys, each the flag of the same name, so that it has the same check.
const KEYS: [(&str, &str); 7] = [
    ("name", "--label"),
    ("clients", "--clients"),
    ("threads_per_process", "--threads-per-process"),
    ("pipeline", "--pipeline"),
    ("deadline_us", "--deadline-us"),
    ("rate", "--rate"),
    ("in_flight_max", "--in-flight-max"),
];

/// Parses a group.
pub(crate) fn parse_group(text: &str) -> Result<Group, String> {
    let mut flags = Vec::new();
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let known = KEYS.iter().find(|(known, _)| *known == key.trim());
        let Some((_, flag)) = known else {
            let keys: Vec<_> = KEYS.iter().map(|(key, _)| *key).collect();
            return Err(format!("{key:?} is no key; keys are {}", keys.join(", ")));
        };
        flags.push(format!("{flag}={}", value.trim()));
    }
    Group::try_parse_from(flags).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        first.trim_start_matches("error: ").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::Target;

    #[test]
    fn groups_have_the_flags_of_the_command() {
        let group = parse_group("name=flood, clients=2,pipeline=64,rate=1.5").unwrap();
        assert_eq!((group.rate, group.in_flight_max), (Some(1.5), 64));
        let target: Target = "iceoryx2:x".parse().unwrap();
        let mut common = parse_group("clients=1").unwrap().work;
        common = group.work.over(&common);
        // No input was named.
        assert!(common.settle(target).is_err());
    }

    #[test]
    fn wrong_groups_are_refused_in_one_line() {
        for (text, reason) in [
            ("", "no key"),
            ("speed=1", "name, clients"),
            ("clients=0", "clients"),
            ("clients", "clients"),
            ("rate=fast", "a second"),
        ] {
            let error = parse_group(text).unwrap_err();
            assert!(error.contains(reason) && !error.contains('\n'), "{error}");
        }
    }
}
