//! The kernel and its limits: peers, descriptors, memory, pages, cores.

use std::path::Path;
use std::time::Duration;

use adjoin_server::cgroup::{Cgroup, MemoryLimit};
use adjoin_server::config::CheckedFile;
use adjoin_server::session::budget::MemoryBudget;
use adjoin_shm::socket::{AttachListener, AttachSocket};
use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::output::bytes_text;

const PEER: &str = "end of a client's process";
const DESCRIPTORS: &str = "open descriptors";
const MEMORY: &str = "memory";
const BUDGET: &str = "memory for sessions";
const PAGES: &str = "huge pages";
const CORES: &str = "cores";

/// Descriptors that the server holds for a session.
const DESCRIPTORS_PER_SESSION: u64 = 5;
/// Both regions of a session, as clients ask for them unless they are told otherwise.
const SESSION_BYTES_DEFAULT: u64 = 32 << 20;
/// Descriptors of the server besides.
const DESCRIPTORS_BESIDE: u64 = 64;

pub(super) fn findings() -> Vec<Finding> {
    let cgroup = Cgroup::of_this_process();
    vec![
        peer_process(),
        descriptors(),
        memory(&cgroup),
        budget(&cgroup),
        huge_pages(),
        cores(&cgroup),
    ]
}

/// What a server that is started without a configuration allows.
#[derive(Clone, Copy, Debug, Default)]
struct DefaultLimits {
    sessions: u64,
    total_bytes: u64,
    memory_percent: u8,
}

fn default_limits() -> DefaultLimits {
    let config = CheckedFile::read(None);
    config.map_or_else(
        |_| DefaultLimits::default(),
        |config| DefaultLimits {
            sessions: u64::try_from(config.limits.session_count_max).unwrap_or(u64::MAX),
            total_bytes: config.limits.total_bytes_max,
            memory_percent: config.memory_percent,
        },
    )
}

fn peer_process() -> Finding {
    let connected = tempfile::tempdir()
        .map_err(|error| error.to_string())
        .and_then(|directory| {
            let path = directory.path().join("attach.sock");
            let listener = AttachListener::bind(&path).map_err(|error| error.to_string())?;
            let _client = AttachSocket::connect(&path).map_err(|error| error.to_string())?;
            let server = listener.accept().map_err(|error| error.to_string())?;
            server
                .wait_readable(Duration::ZERO)
                .map_err(|error| error.to_string())?;
            Ok(server.peer_process())
        });
    match connected {
        Err(error) => {
            let found = format!("a packet socket cannot be used: {error}");
            Finding::fail(
                PEER,
                found,
                "allow AF_UNIX sockets of type SOCK_SEQPACKET in the sandbox",
            )
        }
        Ok(Some(_)) => Finding::ok(PEER, "the kernel tells it at once (SO_PEERPIDFD)"),
        Ok(None) => {
            let found = "SO_PEERPIDFD is not there: the session of a client that forked ends when its last child does";
            Finding::warn(
                PEER,
                found,
                "use Linux 6.5 or later, or do not fork clients without exec",
            )
        }
    }
}

fn descriptors() -> Finding {
    let sessions = default_limits().sessions;
    let needed = sessions * DESCRIPTORS_PER_SESSION + DESCRIPTORS_BESIDE;
    // The server raises the soft limit itself.
    match getrlimit(Resource::Nofile).maximum {
        Some(limit) if limit < needed => {
            let possible = limit.saturating_sub(DESCRIPTORS_BESIDE) / DESCRIPTORS_PER_SESSION;
            let found = format!(
                "at most {limit}: enough for {possible} sessions, and the server allows {sessions}"
            );
            Finding::warn(
                DESCRIPTORS,
                found,
                format!("raise it (ulimit -Hn {needed}), or set limits.sessions = {possible}"),
            )
        }
        Some(limit) => Finding::ok(
            DESCRIPTORS,
            format!("at most {limit}; {sessions} sessions take {needed}"),
        ),
        None => Finding::ok(DESCRIPTORS, "no limit"),
    }
}

fn memory(cgroup: &Cgroup) -> Finding {
    let total_bytes_max = default_limits().total_bytes;
    let machine = meminfo("MemAvailable:").unwrap_or(u64::MAX);
    let tightest = cgroup.tightest_memory_limit();
    if let Some(limit) = tightest.filter(|limit| limit.free() < machine) {
        // What sessions may have of it is a finding of its own.
        let (free, limit) = (bytes_text(limit.free()), bytes_text(limit.bytes));
        return Finding::ok(MEMORY, format!("{free} left of the limit of {limit}"));
    }
    let found = format!("{} available, no limit below that", bytes_text(machine));
    if machine >= total_bytes_max {
        return Finding::ok(MEMORY, found);
    }
    // Nothing but the quota keeps sessions from taking the machine's memory.
    let wanted = bytes_text(total_bytes_max);
    let found = format!("{found}; sessions may take {wanted} in all, and models come on top");
    Finding::warn(
        MEMORY,
        found,
        "give the server a memory limit, or set limits.total_bytes in the configuration to what may be taken",
    )
}

/// What the server makes of the memory limit, where there is one.
fn budget(cgroup: &Cgroup) -> Finding {
    let percent = default_limits().memory_percent;
    let Some(account) = MemoryBudget::new(cgroup.clone(), percent).account() else {
        return Finding::ok(
            BUDGET,
            "no memory limit: sessions are bounded by the quotas of the configuration alone",
        );
    };
    let MemoryLimit { bytes, used } = account.limit;
    let found = format!(
        "sessions may take {} now: {percent} % of the limit of {}, less the {} in use",
        bytes_text(account.left()),
        bytes_text(bytes),
        bytes_text(used)
    );
    if account.left() < SESSION_BYTES_DEFAULT {
        let advice = format!(
            "raise the memory limit: a session of default size takes {}, and models come before it",
            bytes_text(SESSION_BYTES_DEFAULT)
        );
        return Finding::warn(BUDGET, found, advice);
    }
    Finding::ok(BUDGET, found)
}

fn meminfo(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024)
}

fn huge_pages() -> Finding {
    let read = |name: &str| {
        let path = Path::new("/sys/kernel/mm/transparent_hugepage").join(name);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        chosen(&text).unwrap_or("not known").to_owned()
    };
    let (shared, private) = (read("shmem_enabled"), read("enabled"));
    let size = match shared.as_str() {
        "always" | "within_size" | "force" => "regions get them",
        _ => "regions have pages of 4 KiB",
    };
    Finding::ok(
        PAGES,
        format!("{size} (shmem_enabled is {shared}, enabled is {private})"),
    )
}

/// The word in brackets.
fn chosen(text: &str) -> Option<&str> {
    Some(text.split_once('[')?.1.split_once(']')?.0)
}

fn cores(cgroup: &Cgroup) -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let limit = cgroup.cores();
    let found = match limit {
        Some(limit) => format!("{cores} usable, at a limit of {limit:.2} in all"),
        None => format!("{cores} usable, no limit"),
    };
    if cores < 2 || limit.is_some_and(|limit| limit < 2.0) {
        let advice = "set server.spin_us = 0 in the configuration: looking at the rings takes the core from those who fill them";
        return Finding::warn(CORES, found, advice);
    }
    Finding::ok(CORES, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_word_is_the_one_in_brackets() {
        assert_eq!(chosen("always [madvise] never\n"), Some("madvise"));
        assert_eq!(chosen(""), None);
    }

    #[test]
    fn this_machine_has_memory_and_default_limits() {
        assert!(meminfo("MemTotal:").is_some_and(|bytes| bytes > 1 << 20));
        assert!(default_limits().sessions > 0);
    }
}
