//! Telling a forked child from its parent, without a system call.

use crate::mapping::Mapping;
use crate::memfd::MemfdError;
use crate::sync::{AtomicU32, Ordering};

/// A page that the kernel empties in forked children. A child must not use its parent's session: two
/// processes would produce to one ring.
#[derive(Debug)]
pub struct ForkGuard {
    page: Mapping,
}

impl ForkGuard {
    /// Marks this process.
    ///
    /// # Errors
    /// If the system has no page for it.
    pub fn new() -> Result<Self, MemfdError> {
        let page = Mapping::private(4096)?;
        page.wipe_on_fork()?;
        let guard = Self { page };
        guard.word().store(1, Ordering::Relaxed);
        Ok(guard)
    }

    /// Whether this is the process that made the guard.
    #[must_use]
    pub fn is_same_process(&self) -> bool {
        self.word().load(Ordering::Relaxed) == 1
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the first four bytes of a mapped page, aligned, only used as this atomic.
        unsafe { self.page.start().cast::<AtomicU32>().as_ref() }
    }
}
