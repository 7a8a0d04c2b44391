//! The directory of the sockets, and who owns it. A lock on a file in it says whether a server is alive:
//! it goes with the process, however that ends, so a dead server's sockets are taken over and a live one's
//! never are.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

pub use adjoin_control_api::{ADMIN_SOCKET, CONTROL_SOCKET};
use adjoin_shm::socket::AttachListener;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use thiserror::Error;

/// Where clients attach.
pub const ATTACH_SOCKET: &str = "attach.sock";
const LOCK_FILE: &str = "adjoin.lock";

/// Longest path of a unix socket in bytes (`sun_path`, with its end mark).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Why the directory cannot be used.
#[derive(Debug, Error)]
pub enum SocketDirError {
    /// Another server is alive there.
    #[error("a server is already running in {}; stop it, or choose another --socket-dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The path is too long for a socket.
    #[error("{} has {byte_size} bytes; the path of a socket may have {SOCKET_PATH_BYTES_MAX}: choose a shorter --socket-dir", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its bytes.
        byte_size: usize,
    },
    /// The system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

/// A locked socket directory. The sockets go when it is dropped.
#[derive(Debug)]
pub struct SocketDir {
    path: PathBuf,
    _lock: rustix::fd::OwnedFd,
}

fn system(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> SocketDirError {
    let path = path.to_owned();
    move |source| SocketDirError::System { what, path, source }
}

impl SocketDir {
    /// Makes the directory if it is not there, and locks it.
    ///
    /// # Errors
    /// See [`SocketDirError`].
    pub fn lock(path: &Path) -> Result<Self, SocketDirError> {
        let longest = path.join(CONTROL_SOCKET);
        let byte_size = longest.as_os_str().len();
        if byte_size > SOCKET_PATH_BYTES_MAX {
            return Err(SocketDirError::PathTooLong {
                path: longest,
                byte_size,
            });
        }
        if !path.is_dir() {
            let mut builder = std::fs::DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o755)
                .create(path)
                .map_err(system("make directory", path))?;
        }
        let file = path.join(LOCK_FILE);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = rustix::fs::open(&file, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| system("open", &file)(errno.into()))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(Errno::WOULDBLOCK) => Err(SocketDirError::InUse {
                path: path.to_owned(),
            }),
            Err(errno) => Err(system("lock", &file)(errno.into())),
        }
    }

    /// Binds the attach socket.
    ///
    /// # Errors
    /// The system's.
    pub fn bind_attach(&self, mode: u32) -> Result<AttachListener, SocketDirError> {
        let path = self.fresh(ATTACH_SOCKET)?;
        let listener =
            AttachListener::bind(&path).map_err(|errno| system("bind", &path)(errno.into()))?;
        set_mode(&path, mode)?;
        Ok(listener)
    }

    /// Binds a stream socket.
    ///
    /// # Errors
    /// The system's.
    pub fn bind_stream(&self, name: &str, mode: u32) -> Result<UnixListener, SocketDirError> {
        let path = self.fresh(name)?;
        let listener = UnixListener::bind(&path).map_err(system("bind", &path))?;
        set_mode(&path, mode)?;
        Ok(listener)
    }

    /// The path of a socket, with a dead server's one out of the way.
    fn fresh(&self, name: &str) -> Result<PathBuf, SocketDirError> {
        let path = self.path.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(system("remove", &path)(error))
            }
            _ => Ok(path),
        }
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), SocketDirError> {
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).map_err(system("set permissions of", path))
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        for name in [ATTACH_SOCKET, CONTROL_SOCKET, ADMIN_SOCKET] {
            let _ = std::fs::remove_file(self.path.join(name));
        }
        // The lock file stays: removing it would let two servers lock two files of one name.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_server_is_refused_and_a_dead_ones_sockets_are_taken_over() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        let first = SocketDir::lock(&path).unwrap();
        drop(first.bind_attach(0o600).unwrap());
        assert!(matches!(
            SocketDir::lock(&path),
            Err(SocketDirError::InUse { .. })
        ));
        drop(first);
        // What a killed server leaves: the socket, and no lock.
        drop(AttachListener::bind(&path.join(ATTACH_SOCKET)).unwrap());
        assert!(path.join(ATTACH_SOCKET).exists());
        let second = SocketDir::lock(&path).unwrap();
        second.bind_attach(0o600).unwrap();
        drop(second);
        assert!(!path.join(ATTACH_SOCKET).exists());
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused_with_its_length() {
        let path = PathBuf::from("/").join("d".repeat(120));
        let message = SocketDir::lock(&path).unwrap_err().to_string();
        assert!(message.contains("134 bytes"), "{message}");
    }
}
