//! One mapping of memory in this process: its address, its length, unmapped on drop.

use std::os::fd::AsFd;
use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::blank::Blank;
use crate::memfd::MemfdError;

/// What this process may do with a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

/// A shared mapping of a whole memory file, or private anonymous memory.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    byte_size: usize,
    access: Access,
    /// For mappings that children get as zeros.
    blank: Option<Blank>,
}

// SAFETY: the mapping is plain memory owned by this value; it is not tied to a thread.
unsafe impl Send for Mapping {}
// SAFETY: methods give out addresses and atomics only; how bytes behind an address are shared is the
// obligation of whoever dereferences it.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps all `byte_size` bytes of a memory file.
    pub(crate) fn shared(
        fd: impl AsFd,
        byte_size: u64,
        access: Access,
    ) -> Result<Self, MemfdError> {
        let failed = |errno| MemfdError::new("mapping", byte_size, errno);
        let len = usize::try_from(byte_size).map_err(|_| failed(Errno::OVERFLOW))?;
        let protection = match access {
            Access::ReadOnly => ProtFlags::READ,
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: a fresh address chosen by the kernel aliases nothing in this process.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                MapFlags::SHARED,
                fd,
                0,
            )
        }
        .map_err(failed)?;
        let start = NonNull::new(start.cast()).ok_or_else(|| failed(Errno::FAULT))?;
        Ok(Self {
            start,
            byte_size: len,
            access,
            blank: None,
        })
    }

    /// Maps a part of a memory file so that what this process writes there stays its own: a page is shared until
    /// it is written, and a copy from then on. `offset` is a multiple of the page size.
    pub(crate) fn copy_on_write(
        fd: impl AsFd,
        offset: u64,
        byte_size: usize,
    ) -> Result<Self, MemfdError> {
        let failed = |errno| MemfdError::new("mapping", byte_size as u64, errno);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh address chosen by the kernel aliases nothing in this process.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                byte_size,
                protection,
                MapFlags::PRIVATE,
                fd,
                offset,
            )
        }
        .map_err(failed)?;
        let start = NonNull::new(start.cast()).ok_or_else(|| failed(Errno::FAULT))?;
        Ok(Self {
            start,
            byte_size,
            access: Access::ReadWrite,
            blank: None,
        })
    }

    /// Maps private, zeroed memory.
    pub(crate) fn private(byte_size: usize) -> Result<Self, MemfdError> {
        Self::anonymous(byte_size, MapFlags::PRIVATE)
    }

    /// Takes addresses that nobody means to touch: no memory is set aside for them.
    pub(crate) fn address_space(byte_size: usize) -> Result<Self, MemfdError> {
        Self::anonymous(byte_size, MapFlags::PRIVATE | MapFlags::NORESERVE)
    }

    fn anonymous(byte_size: usize, flags: MapFlags) -> Result<Self, MemfdError> {
        let failed = |errno| MemfdError::new("allocation", byte_size as u64, errno);
        // SAFETY: a fresh address chosen by the kernel aliases nothing in this process.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                byte_size,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
            )
        }
        .map_err(failed)?;
        let start = NonNull::new(start.cast()).ok_or_else(|| failed(Errno::FAULT))?;
        Ok(Self {
            start,
            byte_size,
            access: Access::ReadWrite,
            blank: None,
        })
    }

    /// Touches every page now, so that no request pays for a first touch (about 2 us each) and a lack
    /// of memory shows up here as an error instead of later as a signal.
    pub(crate) fn populate(&self) -> Result<(), MemfdError> {
        let advice = match self.access {
            Access::ReadOnly => Advice::LinuxPopulateRead,
            Access::ReadWrite => Advice::LinuxPopulateWrite,
        };
        match self.advise(advice) {
            Err(error) if error.errno() == Errno::INVAL => Ok(()), // before Linux 5.14: pay on first touch
            other => other,
        }
    }

    /// Leaves the mapping out of forked children, which have no session and share no memory. They find
    /// private zeros there.
    pub(crate) fn blank_in_children(&mut self) -> Result<(), MemfdError> {
        self.advise(Advice::LinuxDontFork)?;
        self.blank = Some(Blank::new(self.start, self.byte_size, self.is_writable()));
        Ok(())
    }

    /// Forked children see zeros here.
    pub(crate) fn wipe_on_fork(&self) -> Result<(), MemfdError> {
        self.advise(Advice::LinuxWipeOnFork)
    }

    fn advise(&self, advice: Advice) -> Result<(), MemfdError> {
        // SAFETY: the range is exactly this mapping, and none of the advices used here takes pages away.
        unsafe { rustix::mm::madvise(self.start.as_ptr().cast(), self.byte_size, advice) }
            .map_err(|errno| MemfdError::new("populating", self.byte_size as u64, errno))
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn byte_size(&self) -> usize {
        self.byte_size
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.access == Access::ReadWrite
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.blank.take().is_some_and(|blank| !blank.is_mapped()) {
            return;
        }
        // SAFETY: the range is exactly what was mapped, and this value was its only owner.
        // An error would mean a wrong range, which `new` rules out; there is nobody to tell.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.byte_size) };
    }
}
