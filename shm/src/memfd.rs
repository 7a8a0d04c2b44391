//! Anonymous memory files of fixed size. They have no name in any directory, so nothing can be left
//! behind, squatted or guessed, and no mount or `shm-size` limits them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use thiserror::Error;

/// Why a memory file could not be made or used.
#[derive(Debug, Error)]
#[error("{what} of {byte_size} bytes of shared memory failed: {errno}")]
pub struct MemfdError {
    what: &'static str,
    byte_size: u64,
    errno: Errno,
}

impl MemfdError {
    pub(crate) fn new(what: &'static str, byte_size: u64, errno: Errno) -> Self {
        Self {
            what,
            byte_size,
            errno,
        }
    }

    /// The system's error.
    pub fn errno(&self) -> Errno {
        self.errno
    }
}

/// Creates a memory file of `byte_size` bytes whose size nobody can change any more.
///
/// Without the SHRINK seal a peer's `ftruncate` would turn our next access into SIGBUS; SEAL keeps a
/// peer from adding seals of its own, such as one that stops us from giving pages back.
pub(crate) fn create_sealed(name: &str, byte_size: u64) -> Result<OwnedFd, MemfdError> {
    let failed = |what| move |errno| MemfdError::new(what, byte_size, errno);
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(failed("creation"))?;
    rustix::fs::ftruncate(&fd, byte_size).map_err(failed("sizing"))?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .map_err(failed("sealing"))?;
    Ok(fd)
}

/// A second, read-only descriptor of the same memory, for a peer that must not write it.
///
/// The file's mode becomes 0400, so that another user cannot reopen the descriptor for writing
/// through /proc. A FUTURE_WRITE seal would also do that, but it would deny the owner, too, to punch
/// holes: then a peer that keeps its mapping after the session would keep the pages charged to us.
pub(crate) fn reopen_read_only(fd: &OwnedFd, byte_size: u64) -> Result<OwnedFd, MemfdError> {
    let failed = |what| move |errno| MemfdError::new(what, byte_size, errno);
    rustix::fs::fchmod(fd, Mode::RUSR).map_err(failed("protection"))?;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("reopening"))
}

/// Gives all pages back to the system, whoever still maps them; they read as zeros from then on and
/// are charged to whoever touches them next.
pub(crate) fn punch_all(fd: impl AsFd, byte_size: u64) -> Result<(), MemfdError> {
    rustix::fs::fallocate(
        fd,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        0,
        byte_size,
    )
    .map_err(|errno| MemfdError::new("giving back", byte_size, errno))
}

/// Bytes of the file that have no page: whoever touches them first is charged for them.
pub(crate) fn hole_bytes(fd: impl AsFd, byte_size: u64) -> Result<u64, MemfdError> {
    let stat = rustix::fs::fstat(fd)
        .map_err(|errno| MemfdError::new("counting the pages", byte_size, errno))?;
    // In units of 512 bytes whatever the page size, says stat(2).
    let pages = u64::try_from(stat.st_blocks)
        .unwrap_or(0)
        .saturating_mul(512);
    Ok(byte_size.saturating_sub(pages))
}

/// Checks that a descriptor that came over a socket is memory of exactly this size that cannot shrink.
pub(crate) fn check_received(fd: &OwnedFd, byte_size: u64) -> Result<(), MemfdError> {
    let failed = |what| move |errno| MemfdError::new(what, byte_size, errno);
    let seals = rustix::fs::fcntl_get_seals(fd).map_err(failed("checking the seals"))?;
    if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
        return Err(MemfdError::new(
            "checking the seals",
            byte_size,
            Errno::PERM,
        ));
    }
    let stat = rustix::fs::fstat(fd).map_err(failed("checking the size"))?;
    if u64::try_from(stat.st_size) != Ok(byte_size) {
        return Err(MemfdError::new(
            "checking the size",
            byte_size,
            Errno::INVAL,
        ));
    }
    Ok(())
}
