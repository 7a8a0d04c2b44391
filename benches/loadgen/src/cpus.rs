//! Lists of processors, as `taskset` takes them.

use adjoin_cli_kit::Failure;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// Processors by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CpuList(Vec<usize>);

/// Parses numbers and ranges with commas between.
pub(crate) fn parse(text: &str) -> Result<CpuList, String> {
    let wrong = || "it is a list of processors, such as 0-1 or 0,2".to_owned();
    let number = |text: &str| {
        let number = text.trim().parse().ok();
        number.filter(|&number: &usize| number < CpuSet::MAX_CPU)
    };
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = number(first).zip(number(last)).ok_or_else(wrong)?;
        if first > last {
            return Err(wrong());
        }
        numbers.extend(first..=last);
    }
    Ok(CpuList(numbers))
}

/// Keeps this process, whose threads are yet to be started, to these processors.
pub(crate) fn keep_to(list: &CpuList) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    for &number in &list.0 {
        set.set(number);
    }
    sched_setaffinity(None, &set)
        .map_err(|error| format!("cannot run on processors {:?}: {error}", list.0))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        assert_eq!(parse("0-2, 5").unwrap(), CpuList(vec![0, 1, 2, 5]));
        for wrong in ["", "x", "2-1", "1-", "99999", "-1"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
