//! What the environment asks of the driver.
//!
//! | variable | meaning |
//! |---|---|
//! | `FAKE_CUDA_DEVICES` | how many devices there are (1) |
//! | `FAKE_CUDA_MEMORY` | bytes of memory of each (1 GiB) |
//! | `FAKE_CUDA_DELAY_US` | how long each operation takes before it is done: `300`, or `0-500` for any between (0) |
//! | `FAKE_CUDA_SEED` | where those times start (1) |
//! | `FAKE_CUDA_FAIL` | failures, divided by commas: see [`Failure`] |
//! | `FAKE_CUDA_REPORT` | file for the report |

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use parking_lot::Mutex;

use super::status::Status;

/// A failure to bring about: `NAME:N:CODE` is the N-th call of a function, `NAME:N+:CODE` that and all later ones.
/// `exec.copy` and `exec.kernel` as names are not calls but operations when a stream comes to them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    name: String,
    calls: RangeInclusive<u64>,
    status: Status,
}

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) devices: u32,
    pub(crate) memory_bytes: usize,
    pub(crate) delay_us: RangeInclusive<u64>,
    pub(crate) seed: u64,
    pub(crate) report: Option<PathBuf>,
    failures: Vec<Failure>,
    calls: Mutex<HashMap<String, u64>>,
}

impl Settings {
    /// Reads the environment. What cannot be read ends the process: a test that asks for a failure and gets none would
    /// pass for nothing.
    pub(crate) fn from_environment() -> Self {
        Self::parse(|name| std::env::var(name).ok())
            .unwrap_or_else(|reason| panic!("fake CUDA driver: {reason}"))
    }

    fn parse(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let number = |name: &str, default: u64| -> Result<u64, String> {
            variable(name).map_or(Ok(default), |text| parse_number(name, &text))
        };
        let narrow = |name: &str, number: u64| format!("{name}={number} is too large");
        let devices = number("FAKE_CUDA_DEVICES", 1)?;
        let memory = number("FAKE_CUDA_MEMORY", 1 << 30)?;
        let delay = variable("FAKE_CUDA_DELAY_US").unwrap_or_else(|| "0".to_owned());
        let (least, most) = delay.split_once('-').unwrap_or((&delay, &delay));
        let failures = variable("FAKE_CUDA_FAIL").unwrap_or_default();
        let failures = failures.split(',').filter(|text| !text.is_empty());
        Ok(Self {
            devices: u32::try_from(devices).map_err(|_| narrow("FAKE_CUDA_DEVICES", devices))?,
            memory_bytes: usize::try_from(memory)
                .map_err(|_| narrow("FAKE_CUDA_MEMORY", memory))?,
            delay_us: parse_number("FAKE_CUDA_DELAY_US", least)?
                ..=parse_number("FAKE_CUDA_DELAY_US", most)?,
            seed: number("FAKE_CUDA_SEED", 1)?,
            report: variable("FAKE_CUDA_REPORT").map(PathBuf::from),
            failures: failures.map(parse_failure).collect::<Result<_, _>>()?,
            calls: Mutex::default(),
        })
    }

    /// Counts a call, and says with what it is to fail.
    pub(crate) fn failure(&self, name: &str) -> Option<Status> {
        if self.failures.is_empty() {
            return None;
        }
        let mut calls = self.calls.lock();
        let call = calls.entry(name.to_owned()).or_default();
        *call += 1;
        let matching = |failure: &&Failure| failure.name == name && failure.calls.contains(call);
        self.failures
            .iter()
            .find(matching)
            .map(|failure| failure.status)
    }
}

fn parse_number(name: &str, text: &str) -> Result<u64, String> {
    let number = text.trim().parse();
    number.map_err(|_| format!("{name}={text:?} is no number"))
}

fn parse_failure(text: &str) -> Result<Failure, String> {
    let wrong = || format!("FAKE_CUDA_FAIL has {text:?}, which is not NAME:N:CODE or NAME:N+:CODE");
    let parts: Vec<&str> = text.split(':').collect();
    let &[name, calls, status] = parts.as_slice() else {
        return Err(wrong());
    };
    let (first, goes_on) = match calls.strip_suffix('+') {
        Some(first) => (first, true),
        None => (calls, false),
    };
    let first: u64 = first.parse().map_err(|_| wrong())?;
    Ok(Failure {
        name: name.to_owned(),
        calls: first..=if goes_on { u64::MAX } else { first },
        status: status.parse().map_err(|_| wrong())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::parse(|name| {
            let pair = pairs.iter().find(|(key, _)| *key == name);
            pair.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn failures_come_when_they_are_asked_for() {
        let settings = parse(&[("FAKE_CUDA_FAIL", "cuMemAlloc_v2:2:2,exec.copy:1+:700")]).unwrap();
        assert_eq!(settings.failure("cuMemAlloc_v2"), None);
        assert_eq!(settings.failure("cuMemAlloc_v2"), Some(2));
        assert_eq!(settings.failure("cuMemAlloc_v2"), None);
        assert_eq!(settings.failure("exec.copy"), Some(700));
        assert_eq!(settings.failure("exec.copy"), Some(700));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for text in ["cuInit", "cuInit:x:2", "cuInit:1:two", "cuInit:1:2:3"] {
            let error = parse(&[("FAKE_CUDA_FAIL", text)]).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
        assert!(parse(&[("FAKE_CUDA_DELAY_US", "fast")]).is_err());
        let settings = parse(&[("FAKE_CUDA_DELAY_US", "10-20")]).unwrap();
        assert_eq!(settings.delay_us, 10..=20);
    }
}
