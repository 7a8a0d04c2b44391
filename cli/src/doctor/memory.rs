//! Shared memory: memory files, their seals, mappings, and sleeping on a word in them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use adjoin_schema::layout::SessionLayout;
use adjoin_shm::doorbell::{futex_wait, futex_wake_all};
use adjoin_shm::{ClientMemory, SessionMemory};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;

use super::Finding;

const SEALS: &str = "memory files and seals";
const READ_ONLY: &str = "read-only reopening";
const SESSION: &str = "session memory";
const POPULATE: &str = "population in advance";
const FUTEX: &str = "futex on shared memory";

/// A session as small as they come is enough to try one.
const REGION_BYTES: u64 = 1 << 20;
/// How long a sleeper sleeps that nobody wakes.
const SLEEP_MAX: Duration = Duration::from_secs(2);

pub(super) fn findings() -> Vec<Finding> {
    let mut findings = vec![seals(), read_only()];
    findings.extend(session());
    findings
}

fn create() -> Result<OwnedFd, Errno> {
    let fd = rustix::fs::memfd_create(
        "adjoin-doctor",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    rustix::fs::ftruncate(&fd, REGION_BYTES)?;
    Ok(fd)
}

fn seals() -> Finding {
    let sealed = create().and_then(|fd| {
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(fd)
    });
    let fd = match sealed {
        Ok(fd) => fd,
        Err(errno) => {
            let found = format!("a sealed memory file cannot be made: {errno}");
            return Finding::fail(
                SEALS,
                found,
                "allow memfd_create and fcntl in the sandbox or seccomp profile",
            );
        }
    };
    match (
        rustix::fs::ftruncate(&fd, 0),
        rustix::fs::ftruncate(&fd, 2 * REGION_BYTES),
    ) {
        (Err(Errno::PERM), Err(Errno::PERM)) => {
            Finding::ok(SEALS, "nobody can change the size of a region")
        }
        _ => Finding::fail(
            SEALS,
            "a sealed memory file was resized",
            "use a kernel that keeps seals; gVisor does not",
        ),
    }
}

fn read_only() -> Finding {
    let reopened = create().and_then(|fd| {
        rustix::fs::fchmod(&fd, Mode::RUSR)?;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(rustix::fs::open(
            &path,
            OFlags::RDWR | OFlags::CLOEXEC,
            Mode::empty(),
        ))
    });
    match reopened {
        Err(errno) => {
            let found = format!("a memory file cannot be reopened: {errno}");
            Finding::fail(
                READ_ONLY,
                found,
                "mount /proc in the sandbox: descriptors are reopened through it",
            )
        }
        Ok(Err(_)) => Finding::ok(READ_ONLY, "clients cannot write the server's region"),
        Ok(Ok(_)) => Finding::ok(
            READ_ONLY,
            "clients cannot write the server's region, unless they are root as this user is",
        ),
    }
}

/// Makes a session as the server does, and maps it as a client does.
fn session() -> Vec<Finding> {
    let advice = "raise the memory limit, or allow mmap of shared memory in the sandbox";
    let made = SessionLayout::new(REGION_BYTES, REGION_BYTES, 64)
        .map_err(|rejection| rejection.to_string())
        .and_then(|layout| {
            let server = SessionMemory::create(layout, 1).map_err(|error| error.to_string())?;
            let [request, response] = server.client_fds().map(|fd| fd.try_clone_to_owned());
            let (request, response) = (
                request.map_err(|e| e.to_string())?,
                response.map_err(|e| e.to_string())?,
            );
            let client = ClientMemory::map(layout, &request, &response)
                .map_err(|error| error.to_string())?;
            Ok((server, client))
        });
    match made {
        Err(error) => vec![Finding::fail(SESSION, error, advice)],
        Ok((server, client)) => vec![
            Finding::ok(SESSION, "both regions of a session were made and mapped"),
            populated(&server),
            futex(&server, &client),
        ],
    }
}

fn populated(server: &SessionMemory) -> Finding {
    let has_pages = server.client_fds().iter().all(|fd| {
        let blocks = rustix::fs::fstat(fd.as_fd()).map_or(0, |file| file.st_blocks);
        u64::try_from(blocks).is_ok_and(|blocks| blocks * 512 >= REGION_BYTES)
    });
    if has_pages {
        Finding::ok(
            POPULATE,
            "regions have their pages before the first request",
        )
    } else {
        let found =
            "MADV_POPULATE_WRITE has no effect: first touches cost about 2 us for each 4 KiB";
        Finding::warn(POPULATE, found, "use Linux 5.14 or later")
    }
}

fn futex(server: &SessionMemory, client: &ClientMemory) -> Finding {
    let began = Instant::now();
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| futex_wait(client.completion_ring().tail, 0, SLEEP_MAX));
        while !sleeper.is_finished() {
            std::thread::sleep(Duration::from_millis(2));
            futex_wake_all(server.completion_ring().tail);
        }
    });
    if began.elapsed() < SLEEP_MAX {
        Finding::ok(
            FUTEX,
            "a client that sleeps on its read-only mapping is woken",
        )
    } else {
        let found = "a wake-up does not reach a sleeper on another mapping: waits take up to 50 ms";
        Finding::warn(
            FUTEX,
            found,
            "allow futex in the sandbox, or have clients await instead of block",
        )
    }
}
