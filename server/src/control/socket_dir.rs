//! The directory of the sockets, and who owns it. A lock on a file in it says whether a server is alive:
//! it goes with the process, however that ends, so a dead server's sockets are taken over at once, and a live
//! one's only by agreement ([`super::takeover`]).
//!
//! A successor binds its sockets under other names, and makes a lock file of its own that it holds already. Each
//! then takes the place of the former one by a rename, so that at no moment the directory lacks a socket or an owner.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

pub use adjoin_control_api::{ADMIN_SOCKET, CONTROL_SOCKET};
use adjoin_shm::socket::AttachListener;
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use thiserror::Error;

/// Where clients attach.
pub const ATTACH_SOCKET: &str = "attach.sock";
const LOCK_FILE: &str = "adjoin.lock";
/// Held by whoever changes which sockets are in the directory: a successor while it takes over, and a server that ends
/// while it cleans up. The file stays.
const CHANGE_FILE: &str = "takeover.lock";
/// What a successor's names end with until it takes over.
const SUCCESSOR: &str = ".new";

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
    /// The server that is alive there was to be taken over from, and cannot be reached.
    #[error(
        "the server in {} cannot be taken over from: {reason}; both servers need the same user and directory, or stop it first",
        path.display()
    )]
    NoHandOver {
        /// The directory.
        path: PathBuf,
        /// What stands in the way.
        reason: String,
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

/// A socket directory that this process owns, or is about to. The sockets go when it is dropped.
#[derive(Debug)]
pub struct SocketDir {
    path: PathBuf,
    lock: OwnedFd,
    /// Of a successor, until it has taken over: the right to change the directory.
    change: Option<OwnedFd>,
    /// What names of sockets end with now.
    suffix: &'static str,
}

/// Who owns a directory.
pub(super) enum Owner {
    /// This process, from now on.
    This(SocketDir),
    /// Another one. This process is the only one that is about to take over from it.
    Other(SocketDir),
    /// Another one that is being taken over from, or that ends just now.
    Changing,
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
        // A successor's name, so that a path that does for the first server does for the next one.
        let longest = successor(path, CONTROL_SOCKET);
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
        match lock_named(&path.join(LOCK_FILE))? {
            Some(lock) => Ok(Self {
                path: path.to_owned(),
                lock,
                change: None,
                suffix: "",
            }),
            None => Err(SocketDirError::InUse {
                path: path.to_owned(),
            }),
        }
    }

    /// As [`SocketDir::lock`]; where another server is alive, a place beside its sockets.
    ///
    /// # Errors
    /// See [`SocketDirError`].
    pub(super) fn lock_or_beside(path: &Path) -> Result<Owner, SocketDirError> {
        // Before the look at the owner, so that none can come or go between the look and what follows of it.
        let Some(change) = lock_named(&path.join(CHANGE_FILE))? else {
            return Ok(Owner::Changing);
        };
        match Self::lock(path) {
            Ok(dir) => return Ok(Owner::This(dir)),
            Err(SocketDirError::InUse { .. }) => {}
            Err(error) => return Err(error),
        }
        let file = successor(path, LOCK_FILE);
        remove(&file)?;
        let Some(lock) = lock_named(&file)? else {
            return Ok(Owner::Changing);
        };
        Ok(Owner::Other(Self {
            path: path.to_owned(),
            lock,
            change: Some(change),
            suffix: SUCCESSOR,
        }))
    }

    /// Puts the sockets of a successor in the place of the former server's. From here on new sessions come here.
    ///
    /// # Errors
    /// The system's; the former server's sockets may have been replaced in part then.
    pub(super) fn take_over(&mut self) -> Result<(), SocketDirError> {
        // Should this process be killed meanwhile, the next one can mend it: it meets a former server that it can ask,
        // as long as that one has the lock, or a lock that nobody has.
        for name in [ATTACH_SOCKET, CONTROL_SOCKET, LOCK_FILE, ADMIN_SOCKET] {
            let from = successor(&self.path, name);
            std::fs::rename(&from, self.path.join(name)).map_err(system("rename", &from))?;
        }
        self.suffix = "";
        Ok(())
    }

    /// Lets others change the directory again, after it has been taken over.
    pub(super) fn settle(&mut self) {
        self.change = None;
    }

    /// Whether no server owns the directory any more, neither this one nor one that took over from it.
    pub(super) fn is_vacant(&self) -> bool {
        !self.is_owner() && matches!(lock_named(&self.path.join(LOCK_FILE)), Ok(Some(_)))
    }

    /// Whether the lock in the directory is the one that this process holds.
    fn is_owner(&self) -> bool {
        is_at(&self.lock, &self.path.join(LOCK_FILE))
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
        let path = self.path.join(format!("{name}{}", self.suffix));
        remove(&path)?;
        Ok(path)
    }
}

fn successor(path: &Path, name: &str) -> PathBuf {
    path.join(format!("{name}{SUCCESSOR}"))
}

fn remove(path: &Path) -> Result<(), SocketDirError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(system("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Opens a file, made if it is not there.
fn open_lock(path: &Path) -> Result<OwnedFd, SocketDirError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| system("open", path)(errno.into()))
}

/// The lock on the file of that name; `None` if somebody holds it.
fn lock_named(path: &Path) -> Result<Option<OwnedFd>, SocketDirError> {
    loop {
        let lock = open_lock(path)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            // Between the two calls a successor may have put its own file there; then this lock says nothing.
            Ok(()) if is_at(&lock, path) => return Ok(Some(lock)),
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(system("lock", path)(errno.into())),
        }
    }
}

/// Whether an open file is the one of that name.
fn is_at(file: &OwnedFd, path: &Path) -> bool {
    match (rustix::fs::fstat(file), rustix::fs::stat(path)) {
        (Ok(open), Ok(named)) => (open.st_dev, open.st_ino) == (named.st_dev, named.st_ino),
        _ => false,
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), SocketDirError> {
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).map_err(system("set permissions of", path))
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        if self.suffix == SUCCESSOR {
            for name in [ATTACH_SOCKET, CONTROL_SOCKET, ADMIN_SOCKET, LOCK_FILE] {
                let _ = std::fs::remove_file(successor(&self.path, name));
            }
            return;
        }
        // A successor that takes over just now must not lose its sockets. It holds this for moments.
        let change = open_lock(&self.path.join(CHANGE_FILE)).ok();
        if let Some(change) = &change {
            let _ = rustix::fs::flock(change, FlockOperation::LockExclusive);
        }
        if self.is_owner() {
            for name in [ATTACH_SOCKET, CONTROL_SOCKET, ADMIN_SOCKET] {
                let _ = std::fs::remove_file(self.path.join(name));
            }
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
        assert!(message.contains("138 bytes"), "{message}");
    }

    #[test]
    fn a_successor_takes_the_sockets_and_its_predecessor_leaves_them_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        let first = SocketDir::lock(&path).unwrap();
        for name in [ADMIN_SOCKET, CONTROL_SOCKET] {
            drop(first.bind_stream(name, 0o600).unwrap());
        }
        let _listener = first.bind_attach(0o600).unwrap();
        let Owner::Other(mut second) = SocketDir::lock_or_beside(&path).unwrap() else {
            panic!("the first one is alive");
        };
        let third = SocketDir::lock_or_beside(&path).unwrap();
        assert!(matches!(third, Owner::Changing), "one successor at a time");
        let _admin = second.bind_stream(ADMIN_SOCKET, 0o600).unwrap();
        let _control = second.bind_stream(CONTROL_SOCKET, 0o600).unwrap();
        let listener = second.bind_attach(0o600).unwrap();
        second.take_over().unwrap();
        assert!(!first.is_owner() && !first.is_vacant());
        second.settle();
        drop(first);
        adjoin_shm::socket::AttachSocket::connect(&path.join(ATTACH_SOCKET)).unwrap();
        assert!(listener.accept().is_ok());
        // The former lock is gone with its process; the directory is not free for that.
        assert!(matches!(
            SocketDir::lock(&path),
            Err(SocketDirError::InUse { .. })
        ));
        drop(second);
        let names = std::fs::read_dir(&path).unwrap();
        let left: std::collections::BTreeSet<_> =
            names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [LOCK_FILE, CHANGE_FILE].map(Into::into).into());
    }

    #[test]
    fn a_successor_that_gives_up_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let first = SocketDir::lock(root.path()).unwrap();
        let _listener = first.bind_attach(0o600).unwrap();
        let Owner::Other(second) = SocketDir::lock_or_beside(root.path()).unwrap() else {
            panic!("the first one is alive");
        };
        drop(second.bind_attach(0o600).unwrap());
        drop(second);
        assert!(first.is_owner());
        assert!(!successor(root.path(), ATTACH_SOCKET).exists());
        assert!(!successor(root.path(), LOCK_FILE).exists());
        assert!(root.path().join(ATTACH_SOCKET).exists());
    }

    #[test]
    fn a_directory_whose_successor_died_is_vacant() {
        let root = tempfile::tempdir().unwrap();
        let first = SocketDir::lock(root.path()).unwrap();
        let Owner::Other(mut second) = SocketDir::lock_or_beside(root.path()).unwrap() else {
            panic!("the first one is alive");
        };
        let _admin = second.bind_stream(ADMIN_SOCKET, 0o600).unwrap();
        let _control = second.bind_stream(CONTROL_SOCKET, 0o600).unwrap();
        let _attach = second.bind_attach(0o600).unwrap();
        second.take_over().unwrap();
        second.settle();
        assert!(!first.is_vacant());
        drop(second);
        assert!(first.is_vacant());
        // Looking does not take it.
        assert!(SocketDir::lock(root.path()).is_ok());
    }
}
