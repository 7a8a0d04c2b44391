//! Makes and undoes the bind mounts. Every call may be repeated: whatever a former one left, the outcome is the same.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
use thiserror::Error;

/// What holds for the sockets in a pod: nothing can be changed, and nothing there is a program or a device.
const FLAGS: MountFlags = MountFlags::RDONLY
    .union(MountFlags::NOSUID)
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);
/// Mounts on top of each other that are undone; more than one is already a mistake of somebody.
const MOUNTS_MAX: usize = 16;

/// Why a volume was not published, or not taken back.
#[derive(Debug, Error)]
pub enum PublishError {
    /// The path is not one that the kubelet gives.
    #[error("target path {path:?} {reason}")]
    Target {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The path leads out of the directory of pods.
    #[error("target path {path:?} is not beneath {}", beneath.display())]
    Outside {
        /// The path.
        path: PathBuf,
        /// The directory of pods.
        beneath: PathBuf,
    },
    /// Something else is there.
    #[error("target path {path:?} is taken: {what}")]
    Taken {
        /// The path.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// The server's directory is not there.
    #[error("{} is not there: no adjoin server has run on this node since its start", path.display())]
    NoServer {
        /// The socket directory.
        path: PathBuf,
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

fn system<E: Into<std::io::Error>>(
    what: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> PublishError {
    let path = path.to_owned();
    move |error| PublishError::System {
        what,
        path,
        source: error.into(),
    }
}

/// Publishes one directory to pods.
#[derive(Clone, Debug)]
pub struct Publisher {
    source: PathBuf,
    /// As it was given, and without links.
    given: PathBuf,
    beneath: PathBuf,
}

impl Publisher {
    /// Publishes `source` to targets beneath `beneath`, which must be there.
    ///
    /// # Errors
    /// [`PublishError::System`] if `beneath` cannot be looked at.
    pub fn new(source: &Path, beneath: &Path) -> Result<Self, PublishError> {
        Ok(Self {
            source: source.to_owned(),
            given: beneath.to_owned(),
            beneath: beneath
                .canonicalize()
                .map_err(system("find the directory of pods", beneath))?,
        })
    }

    /// Mounts the directory at a target, read-only.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn publish(&self, target: &Path) -> Result<(), PublishError> {
        if !self.check(target)? {
            let reason = "has no parent directory";
            return Err(target_error(target, reason));
        }
        let source = match self.source.metadata() {
            Ok(found) if found.is_dir() => found,
            _ => {
                let path = self.source.clone();
                return Err(PublishError::NoServer { path });
            }
        };
        let taken = |what| PublishError::Taken {
            path: target.to_owned(),
            what,
        };
        match target.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut builder = std::fs::DirBuilder::new();
                let made = builder.mode(0o750).create(target);
                made.map_err(system("make", target))?;
            }
            Err(error) => return Err(system("look at", target)(error)),
            Ok(found) if !found.is_dir() => return Err(taken("it is no directory")),
            Ok(found) if is_mount_point(target)? => {
                if (found.dev(), found.ino()) != (source.dev(), source.ino()) {
                    return Err(taken("something else is mounted there"));
                }
                // Published before; perhaps only in part.
                return protect(target);
            }
            Ok(_) => {
                let mut entries = std::fs::read_dir(target).map_err(system("read", target))?;
                if entries.next().is_some() {
                    return Err(taken("it has files"));
                }
            }
        }
        mount_bind(&self.source, target).map_err(system("mount on", target))?;
        protect(target).inspect_err(|_| {
            // A mount that can be written must not stay.
            let _ = unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        })
    }

    /// Takes a target away.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn unpublish(&self, target: &Path) -> Result<(), PublishError> {
        if !self.check(target)? {
            return Ok(());
        }
        for _ in 0..MOUNTS_MAX {
            if !is_mount_point(target)? {
                break;
            }
            // A client may have a file there open, or its working directory: its sessions do not need the mount.
            let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
            unmount(target, flags).map_err(system("unmount", target))?;
        }
        match std::fs::remove_dir(target) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(system("remove", target)(error))
            }
            _ => Ok(()),
        }
    }

    /// Whether a target may be used, by its form and its place; false if the directory that it would be in is not there.
    fn check(&self, target: &Path) -> Result<bool, PublishError> {
        let mut components = target.components();
        let is_plain = components.next() == Some(Component::RootDir)
            && components.all(|part| matches!(part, Component::Normal(_)));
        if !is_plain {
            return Err(target_error(target, "is not absolute, or has \"..\" in it"));
        }
        let outside = || PublishError::Outside {
            path: target.to_owned(),
            beneath: self.beneath.clone(),
        };
        let parent = target.parent().ok_or_else(outside)?;
        let real = match parent.canonicalize() {
            Ok(real) => real,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // Nothing can be mounted there, but it has to be a place of ours to be called gone.
                let is_ours = [&self.given, &self.beneath]
                    .iter()
                    .any(|dir| parent.starts_with(dir));
                return is_ours.then_some(false).ok_or_else(outside);
            }
            Err(error) => return Err(system("look at", parent)(error)),
        };
        if real == self.beneath || !real.starts_with(&self.beneath) {
            return Err(outside());
        }
        Ok(true)
    }
}

fn target_error(path: &Path, reason: &'static str) -> PublishError {
    PublishError::Target {
        path: path.to_owned(),
        reason,
    }
}

/// Makes a bind mount read-only; a mount takes such flags by being mounted once more.
fn protect(target: &Path) -> Result<(), PublishError> {
    mount_remount(target, MountFlags::BIND | FLAGS, "").map_err(system("make read-only", target))
}

/// Whether something is mounted at a path; false if there is nothing.
fn is_mount_point(path: &Path) -> Result<bool, PublishError> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(CWD, path, flags, StatxFlags::BASIC_STATS) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(system("look at", path)(errno)),
    }
}
