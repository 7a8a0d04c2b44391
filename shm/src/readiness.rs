//! Awaiting a descriptor on a tokio runtime (feature `tokio`).

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A copy of a descriptor, registered with the runtime that it was made in.
#[derive(Debug)]
pub struct Readiness {
    fd: AsyncFd<OwnedFd>,
}

impl Readiness {
    /// Registers a copy of `fd`.
    ///
    /// # Errors
    /// The system's: no descriptors left, or one that cannot be polled.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(fd: impl AsFd) -> std::io::Result<Self> {
        let fd = fd.as_fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` is open and names one description until it is dropped, and it is dropped
        // by the `AsyncFd` alone: nothing takes it out.
        let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        Ok(Self {
            fd: registered.map_err(std::io::Error::from)?,
        })
    }

    /// Resolves when the descriptor is readable, or its other end is gone.
    ///
    /// # Errors
    /// If the runtime is shutting down.
    pub async fn readable(&self) -> std::io::Result<()> {
        self.fd.readable().await.map(drop)
    }

    /// Calls `read` whenever there may be something, until it gives another answer than `AGAIN`.
    ///
    /// # Errors
    /// Those of `read`; `IO` if the runtime is shutting down.
    pub async fn read_with<R>(
        &self,
        mut read: impl FnMut() -> Result<R, Errno>,
    ) -> Result<R, Errno> {
        loop {
            let mut ready = self.fd.readable().await.map_err(|_| Errno::IO)?;
            match read() {
                Err(Errno::AGAIN) => ready.clear_ready(),
                other => return other,
            }
        }
    }
}
