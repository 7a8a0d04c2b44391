//! Memory of the host: which ranges are pinned, and what is under way over them.
//!
//! The device sees pinned memory at another address than the host does: a program that mixes up the two works on many
//! machines and not on all, and here on none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the device adds to the host's address.
const DEVICE_BIT: u64 = 1 << 62;

/// How a range came to be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Registered,
    Allocated,
}

/// A pinned range.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) start: usize,
    pub(crate) byte_size: usize,
    pub(crate) kind: Kind,
    pub(crate) is_mapped: bool,
    pub(crate) is_read_only: bool,
    pub(crate) device: u32,
    /// Operations over it that are enqueued or being done.
    pub(crate) under_way: AtomicU64,
}

/// A range of pinned memory that an operation uses: counts as under way while it lives.
#[derive(Debug)]
pub(crate) struct PinnedUse(Arc<Pinned>);

impl Drop for PinnedUse {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a range of the host's memory is for the driver.
#[derive(Debug)]
pub(crate) enum HostKind {
    Pinned(Arc<Pinned>),
    Pageable,
    /// It reaches over the edge of what is pinned, which no copy may.
    Partial,
}

#[derive(Debug, Default)]
pub(crate) struct HostMemory {
    ranges: BTreeMap<usize, Arc<Pinned>>,
}

impl HostMemory {
    pub(crate) fn insert(&mut self, pinned: Pinned) {
        self.ranges.insert(pinned.start, Arc::new(pinned));
    }

    pub(crate) fn remove(&mut self, start: usize, kind: Kind) -> Option<Arc<Pinned>> {
        self.ranges
            .get(&start)
            .filter(|pinned| pinned.kind == kind)?;
        self.ranges.remove(&start)
    }

    pub(crate) fn remove_all(&mut self, device: u32) -> Vec<Arc<Pinned>> {
        let mine = |_: &usize, pinned: &mut Arc<Pinned>| pinned.device == device;
        self.ranges
            .extract_if(.., mine)
            .map(|(_, pinned)| pinned)
            .collect()
    }

    pub(crate) fn overlaps(&self, start: usize, byte_size: usize) -> bool {
        let before = self
            .ranges
            .range(..start.saturating_add(byte_size))
            .next_back();
        before.is_some_and(|(_, pinned)| pinned.start + pinned.byte_size > start)
    }

    pub(crate) fn classify(&self, start: usize, byte_size: usize) -> HostKind {
        let before = self.ranges.range(..=start).next_back();
        if let Some((_, pinned)) = before
            && start + byte_size <= pinned.start + pinned.byte_size
        {
            return HostKind::Pinned(pinned.clone());
        }
        if self.overlaps(start, byte_size) {
            return HostKind::Partial;
        }
        HostKind::Pageable
    }

    /// The pinned range that an address of the device's view lies in, and that address for the host.
    pub(crate) fn by_device_address(
        &self,
        address: u64,
        byte_size: usize,
    ) -> Option<(Arc<Pinned>, usize)> {
        let host = usize::try_from(address.checked_sub(DEVICE_BIT)?).ok()?;
        match self.classify(host, byte_size) {
            HostKind::Pinned(pinned) if pinned.is_mapped => Some((pinned, host)),
            _ => None,
        }
    }

    /// Whether a range is pinned still, and is the same.
    pub(crate) fn has(&self, pinned: &Arc<Pinned>) -> bool {
        let found = self.ranges.get(&pinned.start);
        found.is_some_and(|found| Arc::ptr_eq(found, pinned))
    }

    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.ranges
            .values()
            .filter(|pinned| pinned.kind == kind)
            .count() as u64
    }
}

/// Where the device sees an address of the host.
pub(crate) fn device_address(host: usize) -> u64 {
    host as u64 + DEVICE_BIT
}

/// Takes note that an operation uses a range.
pub(crate) fn use_pinned(pinned: &Arc<Pinned>) -> PinnedUse {
    pinned.under_way.fetch_add(1, Ordering::AcqRel);
    PinnedUse(pinned.clone())
}

/// Copies from the host's memory by the kernel, which answers with an error where a thread would fault.
pub(crate) fn read_host(from: usize, to: *mut u8, byte_size: usize) -> bool {
    move_host(from, to, byte_size, libc::process_vm_readv)
}

/// Copies to the host's memory by the kernel.
pub(crate) fn write_host(to: usize, from: *mut u8, byte_size: usize) -> bool {
    move_host(to, from, byte_size, libc::process_vm_writev)
}

type Move = unsafe extern "C" fn(
    libc::pid_t,
    *const libc::iovec,
    libc::c_ulong,
    *const libc::iovec,
    libc::c_ulong,
    libc::c_ulong,
) -> libc::ssize_t;

fn move_host(host: usize, device: *mut u8, byte_size: usize, by: Move) -> bool {
    let mut done = 0;
    while done < byte_size {
        let local = libc::iovec {
            iov_base: device.wrapping_add(done).cast(),
            iov_len: byte_size - done,
        };
        let remote = libc::iovec {
            iov_base: std::ptr::with_exposed_provenance_mut(host + done),
            iov_len: byte_size - done,
        };
        // SAFETY: takes nothing.
        let process = unsafe { libc::getpid() };
        // SAFETY: the local range is the device's, and held by the caller; the remote one may be anything: the kernel
        // checks it, and what else this process does with those bytes is the program's matter, as with a device.
        let moved = unsafe { by(process, &raw const local, 1, &raw const remote, 1, 0) };
        match usize::try_from(moved) {
            Ok(moved) if moved > 0 => done += moved,
            _ => return false,
        }
    }
    true
}
