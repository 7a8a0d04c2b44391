//! Shared-memory objects that a client names: files of one directory, such as `/dev/shm`, whose size and content their
//! owner may change at any moment.
//!
//! They cannot be sealed, so they are never mapped: a file that is cut short would turn the next access into SIGBUS. They
//! are read and written by copies, and what is no longer there is an error.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Resource, geteuid, getrlimit};
use thiserror::Error;

use crate::aligned::AlignedBytes;

/// Most bytes of a name in a directory.
const NAME_BYTES_MAX: usize = 255;

/// Why a named object cannot be opened, read or written. No text has a path of this side.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NamedError {
    /// No name that one directory can have.
    #[error("the key {shown:?} of {byte_size} bytes is no name; {expected}")]
    Key {
        /// The beginning of it.
        shown: String,
        /// Bytes of all of it.
        byte_size: usize,
        /// What it should be.
        expected: &'static str,
    },
    /// The system does not open it.
    #[error("it cannot be opened to be read and written: {0}")]
    Open(Errno),
    /// Something else than a file.
    #[error("it is {0:?}, not a regular file")]
    Type(FileType),
    /// Also known by another name, or by none any more.
    #[error("its file has {0} links; it may have one")]
    Links(u64),
    /// Another user's.
    #[error("its file belongs to another user")]
    Owner,
    /// A mode that shared memory never has.
    #[error("its file has mode {0:o}; set-user-ID, set-group-ID and sticky bits are refused")]
    Mode(u32),
    /// Fewer bytes than the caller wants.
    #[error("its file ends at {file_size} bytes; {end} are needed")]
    Short {
        /// End of what the caller wants, from the start of the file.
        end: u64,
        /// Where the file ended when it was looked at.
        file_size: u64,
    },
    /// More than this process may make files: the system would send a signal.
    #[error("{end} bytes are more than the server may write to a file")]
    FileSize {
        /// End of what the caller wants.
        end: u64,
    },
    /// No memory for a copy.
    #[error("no memory for a copy of {0} bytes")]
    Memory(usize),
    /// The system's error.
    #[error("it cannot be {what}: {errno}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        errno: Errno,
    },
}

/// The directory that keys are looked up in.
#[derive(Debug)]
pub struct NamedDirectory {
    fd: OwnedFd,
    /// Where a write would bring SIGXFSZ, which ends the process.
    file_size_max: u64,
}

impl NamedDirectory {
    /// Opens the directory.
    ///
    /// # Errors
    /// The system's, also if it has no `openat2`.
    pub fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        // Some sandboxes know no `openat2`. That should show now, and not with the first client.
        let itself = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(&fd, ".", itself, Mode::empty(), ResolveFlags::BENEATH)?;
        Ok(Self {
            fd,
            file_size_max: getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX),
        })
    }

    /// Opens the object that `key` names; it has to belong to the user `owner`, if one is given. Never waits.
    ///
    /// # Errors
    /// See [`NamedError`].
    pub fn object(&self, key: &str, owner: Option<u32>) -> Result<NamedObject, NamedError> {
        // Not waiting matters for files, too: the open would wait for whoever holds a lease on it.
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        let fd = rustix::fs::openat2(&self.fd, name(key)?, flags, Mode::empty(), resolve)
            .map_err(NamedError::Open)?;
        let stat = stat(&fd)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::RegularFile {
            return Err(NamedError::Type(kind));
        }
        if owner.is_some_and(|uid| uid != stat.st_uid) {
            return Err(NamedError::Owner);
        }
        // Links cross directories: a second name could belong to a file that another program keeps elsewhere.
        if stat.st_nlink != 1 {
            return Err(NamedError::Links(stat.st_nlink));
        }
        let special = Mode::SUID | Mode::SGID | Mode::SVTX;
        if Mode::from_raw_mode(stat.st_mode).intersects(special) {
            return Err(NamedError::Mode(stat.st_mode & 0o7777));
        }
        let others_write = Mode::WGRP | Mode::WOTH;
        Ok(NamedObject {
            fd,
            file_size_max: self.file_size_max,
            is_own: stat.st_uid == geteuid().as_raw()
                && !Mode::from_raw_mode(stat.st_mode).intersects(others_write),
        })
    }
}

/// A shared-memory object of a client, open for as long as this lives, whatever happens to its name.
#[derive(Debug)]
pub struct NamedObject {
    fd: OwnedFd,
    file_size_max: u64,
    is_own: bool,
}

impl NamedObject {
    /// Bytes of the file, at this moment.
    ///
    /// # Errors
    /// The system's.
    pub fn byte_size(&self) -> Result<u64, NamedError> {
        stat(&self.fd).map(|stat| u64::try_from(stat.st_size).unwrap_or_default())
    }

    /// Whether only processes of this one's user, and root, could open it for writing when it was opened here: a
    /// [`NamedObject::write`] waits for nobody else.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.is_own
    }

    /// A copy of `byte_size` bytes from `offset`. Does not wait for whoever else uses the file, on tmpfs.
    ///
    /// # Errors
    /// [`NamedError::Short`] if the file ends before, [`NamedError::Memory`], or the system's.
    pub fn read(&self, offset: u64, byte_size: usize) -> Result<AlignedBytes, NamedError> {
        // The size first: a copy of what is not there must not cost memory.
        self.check_end(offset, byte_size)?;
        let copy = AlignedBytes::filled(byte_size, |copy| self.read_to(copy, offset, byte_size));
        copy.ok_or(NamedError::Memory(byte_size))?
    }

    /// Appends `byte_size` bytes from `offset`, or a few more.
    fn read_to(&self, copy: &mut Vec<u8>, offset: u64, byte_size: usize) -> Result<(), NamedError> {
        let start = copy.len();
        while copy.len() - start < byte_size {
            let place = offset + (copy.len() - start) as u64;
            match rustix::io::pread(&self.fd, spare_capacity(copy), place) {
                Ok(0) => {
                    return Err(NamedError::Short {
                        end: offset + byte_size as u64,
                        file_size: place,
                    });
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => {
                    let what = "read";
                    return Err(NamedError::System { what, errno });
                }
            }
        }
        Ok(())
    }

    /// Writes `bytes` at `offset`, within the file.
    ///
    /// This may wait without limit: the kernel lets one writer at a time into a file, and that one may be a client whose
    /// source of bytes never answers. So call it where only this client waits, unless the file [is ours](Self::is_own).
    ///
    /// # Errors
    /// [`NamedError::Short`] if the file ends before, or the system's; a part may be written then.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), NamedError> {
        let end = self.check_end(offset, bytes.len())?;
        if end > self.file_size_max {
            return Err(NamedError::FileSize { end });
        }
        let (mut offset, mut left) = (offset, bytes);
        while !left.is_empty() {
            match rustix::io::pwrite(&self.fd, left, offset) {
                Ok(written) => {
                    left = &left[written..];
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => {
                    let what = "written";
                    return Err(NamedError::System { what, errno });
                }
            }
        }
        Ok(())
    }

    fn check_end(&self, offset: u64, byte_size: usize) -> Result<u64, NamedError> {
        let file_size = self.byte_size()?;
        match offset.checked_add(byte_size as u64) {
            Some(end) if end <= file_size => Ok(end),
            end => Err(NamedError::Short {
                end: end.unwrap_or(u64::MAX),
                file_size,
            }),
        }
    }
}

/// The name in the directory that a key stands for: POSIX keys begin with a slash, and may do without.
fn name(key: &str) -> Result<&str, NamedError> {
    let refused = |expected| {
        let shown = key.chars().take(64).collect();
        let byte_size = key.len();
        Err(NamedError::Key {
            shown,
            byte_size,
            expected,
        })
    };
    let name = key.strip_prefix('/').unwrap_or(key);
    match name {
        "" => refused("it has at least 1 byte, besides a leading '/'"),
        _ if name.len() > NAME_BYTES_MAX => refused("it has at most 255 bytes"),
        "." | ".." => refused("it is a name, not a step"),
        _ if name.contains('/') => refused("it has no '/' but a leading one"),
        _ if name.contains('\0') => refused("it has no NUL"),
        _ => Ok(name),
    }
}

fn stat(fd: &OwnedFd) -> Result<rustix::fs::Stat, NamedError> {
    let what = "examined";
    rustix::fs::fstat(fd).map_err(|errno| NamedError::System { what, errno })
}

#[cfg(test)]
mod tests;
