//! Processor time, context switches and memory of processes, read from `/proc`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

/// What threads have used so far, by process and thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    threads: HashMap<(u32, u32), Spent>,
}

/// What was used between two looks. A thread that began and ended between them is not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    pub(crate) cpu_ns: u64,
    pub(crate) context_switches: u64,
}

impl Usage {
    /// The threads of these processes and of all their descendants.
    pub(crate) fn of_trees(roots: &[u32]) -> Self {
        let mut usage = Self::default();
        if roots.is_empty() {
            return usage;
        }
        for pid in with_descendants(roots, &parents()) {
            usage.add(pid, &Path::new("/proc").join(pid.to_string()));
        }
        usage
    }

    /// The threads of this process.
    pub(crate) fn of_this() -> Self {
        let mut usage = Self::default();
        usage.add(0, Path::new("/proc/self"));
        usage
    }

    fn add(&mut self, pid: u32, directory: &Path) {
        // A process or a thread may end while it is looked at.
        let threads = fs::read_dir(directory.join("task")).into_iter().flatten();
        for thread in threads.flatten() {
            let Some(number) = number(&thread.file_name().to_string_lossy()) else {
                continue;
            };
            let read = |file| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
            let spent = Spent {
                cpu_ns: run_time_ns(&read("schedstat")),
                context_switches: context_switches(&read("status")),
            };
            self.threads.insert((pid, number), spent);
        }
    }

    /// What was used since an earlier look.
    pub(crate) fn since(&self, earlier: &Self) -> Spent {
        let mut sum = Spent::default();
        for (thread, now) in &self.threads {
            let before = earlier.threads.get(thread).copied().unwrap_or_default();
            sum.cpu_ns += now.cpu_ns.saturating_sub(before.cpu_ns);
            sum.context_switches += now.context_switches.saturating_sub(before.context_switches);
        }
        sum
    }
}

/// Memory of processes, where each page counts in parts for those that have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) pss_bytes: u64,
    /// Of that, memory that is made to be shared: regions of sessions, segments.
    pub(crate) pss_shared_bytes: u64,
    /// Of that, memory without a file: heaps and stacks.
    pub(crate) pss_anonymous_bytes: u64,
}

impl Memory {
    /// Of these processes and all their descendants.
    pub(crate) fn of_trees(roots: &[u32]) -> Self {
        let mut sum = Self::default();
        for pid in with_descendants(roots, &parents()) {
            let path = format!("/proc/{pid}/smaps_rollup");
            let text = fs::read_to_string(path).unwrap_or_default();
            sum.pss_bytes += kib(&text, "Pss:") * 1024;
            sum.pss_shared_bytes += kib(&text, "Pss_Shmem:") * 1024;
            sum.pss_anonymous_bytes += kib(&text, "Pss_Anon:") * 1024;
        }
        sum
    }
}

/// A line such as `Pss:    443 kB`; 0 if there is none.
fn kib(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key));
    let number = value.and_then(|value| value.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The process and all that descend from it.
fn with_descendants(roots: &[u32], parents: &[(u32, u32)]) -> HashSet<u32> {
    let mut found: HashSet<u32> = roots.iter().copied().collect();
    loop {
        let before = found.len();
        let children = parents
            .iter()
            .filter(|(_, parent)| found.contains(parent))
            .map(|(pid, _)| *pid);
        let children: Vec<u32> = children.collect();
        found.extend(children);
        if found.len() == before {
            return found;
        }
    }
}

/// All processes, with their parents.
fn parents() -> Vec<(u32, u32)> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pair = |process: fs::DirEntry| {
        let pid = number(&process.file_name().to_string_lossy())?;
        let stat = fs::read_to_string(process.path().join("stat")).ok()?;
        Some((pid, parent(&stat)?))
    };
    processes.filter_map(pair).collect()
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

/// The parent in a line of `/proc/PID/stat`; the name before it may hold anything.
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    number(rest.split_whitespace().nth(1)?)
}

/// Time on a processor in a line of `schedstat`.
fn run_time_ns(schedstat: &str) -> u64 {
    let first = schedstat.split_whitespace().next();
    first.and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn context_switches(status: &str) -> u64 {
    let lines = status
        .lines()
        .filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
    let counts = lines.filter_map(|(_, count)| count.trim().parse::<u64>().ok());
    counts.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_found_whatever_their_order() {
        let parents = [(4, 3), (3, 2), (2, 1), (9, 1), (5, 9)];
        let found = with_descendants(&[2, 9], &parents);
        assert_eq!(found, HashSet::from([2, 3, 4, 5, 9]));
    }

    #[test]
    fn lines_of_proc_are_read() {
        assert_eq!(parent("12 (a) b) R 7 12 12 0"), Some(7));
        assert_eq!(parent("12"), None);
        assert_eq!(run_time_ns("109417 5038 2\n"), 109_417);
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(context_switches(status), 7);
        let rollup = "Rss:\t9 kB\nPss:    443 kB\nPss_Anon:   1 kB\nPss_Shmem:  12 kB\n";
        assert_eq!((kib(rollup, "Pss:"), kib(rollup, "Pss_Shmem:")), (443, 12));
        assert_eq!(kib(rollup, "Pss_File:"), 0);
    }

    #[test]
    fn own_work_is_seen_as_a_process_of_any_number() {
        let pid = std::process::id();
        let before = Usage::of_trees(&[pid]);
        let mut sum = 0u64;
        while Usage::of_trees(&[pid]).since(&before).cpu_ns < 1_000_000 {
            sum = (0..1_000_000).fold(sum, u64::wrapping_add);
        }
        std::hint::black_box(sum);
        std::thread::sleep(std::time::Duration::from_millis(1));
        let spent = Usage::of_trees(&[pid]).since(&before);
        assert!(spent.context_switches > 0);
        assert_eq!(Usage::of_trees(&[]).since(&before), Spent::default());
    }
}
