//! Outputs for those who cannot be told that they must not write.
//!
//! The client's mapping of the response region is read-only, and a write there ends the process. Some
//! array libraries have no notion of memory that is only to be read. They get the same pages through a
//! mapping of their own, where the first write to a page makes it a private copy.

use std::os::fd::AsFd;
use std::ptr::NonNull;

use rustix::io::Errno;

use crate::mapping::Mapping;
use crate::memfd::MemfdError;
use crate::region::Region;

/// A part of a region, shared for reading and private once written. Unmapped on drop.
///
/// It stays what it was after the peer has changed the shared pages only as far as it was written: its owner
/// drops it before what it shows is released.
#[derive(Debug)]
pub struct WritablePart {
    mapping: Mapping,
    /// Where the part begins in the first page.
    lead: usize,
}

impl WritablePart {
    pub(crate) fn new(
        fd: impl AsFd,
        region: &Region,
        offset: u64,
        byte_size: u64,
    ) -> Result<Self, MemfdError> {
        let failed = || MemfdError::new("mapping", byte_size, Errno::INVAL);
        region.address(offset, byte_size).map_err(|_| failed())?;
        let page = rustix::param::page_size() as u64;
        let lead = offset % page;
        let len = usize::try_from(lead + byte_size.max(1)).map_err(|_| failed())?;
        let mut mapping = Mapping::copy_on_write(fd, offset - lead, len)?;
        mapping.blank_in_children()?;
        let lead = usize::try_from(lead).map_err(|_| failed())?;
        Ok(Self { mapping, lead })
    }

    /// Address of the first byte in this process.
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        // SAFETY: `lead` is less than the bytes that were mapped.
        unsafe { self.mapping.start().add(self.lead) }
    }
}
