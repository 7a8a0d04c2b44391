//! Memory of the device: addresses that no program can touch, over memory files that the device's threads can.
//!
//! What a program gets is the address of a reservation without any right. A host that reads or writes it faults, as it
//! does on a machine with a GPU. The threads that play the device reach the same bytes by another mapping.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::sync::Arc;

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

/// Bytes that a program sees before anything was written: nonsense in any data type, and not zero.
const POISON: u8 = 0xA5;
/// Addresses behind an allocation that belong to none.
const GUARD: usize = 4096;

/// Bytes of the device.
#[derive(Debug)]
pub(crate) struct Backing {
    file: OwnedFd,
    start: usize,
    byte_size: usize,
}

impl Backing {
    /// What the name of every file begins with that has such memory; the device's number follows.
    const NAME: &str = "fake-cuda-device-";

    /// The name of a file with memory of a device.
    pub(crate) fn name(device: u32) -> String {
        format!("{}{device}", Self::NAME)
    }

    /// The device whose memory a file has; `None` if it is another file.
    pub(crate) fn device_of(file: impl AsFd) -> Option<u32> {
        let number = file.as_fd().as_raw_fd();
        let link = std::fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
        let (_, device) = link.to_str()?.split_once(Self::NAME)?;
        device.split(' ').next()?.parse().ok()
    }

    /// New memory, full of nonsense.
    pub(crate) fn new(device: u32, byte_size: usize) -> rustix::io::Result<Self> {
        let file = rustix::fs::memfd_create(Self::name(device), MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, byte_size as u64)?;
        let backing = Self::map(file, byte_size)?;
        // SAFETY: the mapping has that many bytes, and nobody else knows it yet.
        unsafe {
            ptr::write_bytes(
                ptr::with_exposed_provenance_mut::<u8>(backing.start),
                POISON,
                byte_size,
            )
        };
        Ok(backing)
    }

    /// Memory of a file that another process may have made.
    pub(crate) fn map(file: OwnedFd, byte_size: usize) -> rustix::io::Result<Self> {
        // SAFETY: a fresh address chosen by the kernel aliases nothing in this process.
        let start = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                byte_size,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
        }?;
        Ok(Self {
            file,
            start: start.expose_provenance(),
            byte_size,
        })
    }

    pub(crate) fn file(&self) -> rustix::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(crate) fn byte_size(&self) -> usize {
        self.byte_size
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`; whoever uses the bytes holds this value.
        let _ = unsafe {
            rustix::mm::munmap(ptr::with_exposed_provenance_mut(self.start), self.byte_size)
        };
    }
}

/// Addresses without any right.
#[derive(Debug)]
pub(crate) struct Reservation {
    start: usize,
    byte_size: usize,
}

impl Reservation {
    pub(crate) fn new(byte_size: usize) -> rustix::io::Result<Self> {
        let byte_size = byte_size + GUARD;
        // SAFETY: a fresh address chosen by the kernel aliases nothing in this process.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                byte_size,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        Ok(Self {
            start: start.expose_provenance(),
            byte_size,
        })
    }

    pub(crate) fn start(&self) -> usize {
        self.start
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: reserved by `new`, and never dereferenced.
        let _ = unsafe {
            rustix::mm::munmap(ptr::with_exposed_provenance_mut(self.start), self.byte_size)
        };
    }
}

/// Where a program's allocation lies.
#[derive(Debug)]
pub(crate) struct Allocation {
    /// Held so that no other mapping comes to lie at the allocation's addresses.
    #[expect(dead_code, reason = "there to be dropped with the allocation")]
    pub(crate) reservation: Arc<Reservation>,
    pub(crate) backing: Arc<Backing>,
    /// Bytes that were asked for: one more is an error.
    pub(crate) byte_size: usize,
    pub(crate) device: u32,
    /// Whether it counts against the device's memory.
    pub(crate) counts: bool,
}

/// A range of an allocation, as the device's threads reach it. Keeps the bytes alive.
#[derive(Clone, Debug)]
pub(crate) struct DeviceRange {
    backing: Arc<Backing>,
    at: usize,
    byte_size: usize,
}

impl DeviceRange {
    /// Address of the first byte for the device's threads.
    pub(crate) fn start(&self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.backing.start + self.at)
    }

    pub(crate) fn byte_size(&self) -> usize {
        self.byte_size
    }
}

/// All allocations of the process by address.
#[derive(Debug, Default)]
pub(crate) struct DeviceMemory {
    allocations: BTreeMap<usize, Allocation>,
}

impl DeviceMemory {
    /// Allocates, within a limit for the device. Returns the address.
    pub(crate) fn allocate(
        &mut self,
        device: u32,
        byte_size: usize,
        limit: usize,
    ) -> Option<usize> {
        if byte_size > limit.saturating_sub(self.used(device)) {
            return None;
        }
        let reservation = Reservation::new(byte_size).ok()?;
        let backing = Backing::new(device, byte_size).ok()?;
        let start = reservation.start();
        self.insert(
            start,
            Allocation {
                reservation: Arc::new(reservation),
                backing: Arc::new(backing),
                byte_size,
                device,
                counts: true,
            },
        );
        Some(start)
    }

    pub(crate) fn insert(&mut self, start: usize, allocation: Allocation) {
        self.allocations.insert(start, allocation);
    }

    /// Takes out the allocation that starts at an address.
    pub(crate) fn remove(&mut self, start: usize) -> Option<Allocation> {
        self.allocations.remove(&start)
    }

    pub(crate) fn get(&self, start: usize) -> Option<&Allocation> {
        self.allocations.get(&start)
    }

    /// Takes out all of a device's, as the end of its context does.
    pub(crate) fn remove_all(&mut self, device: u32) -> Vec<Allocation> {
        let mine = |_: &usize, allocation: &mut Allocation| allocation.device == device;
        self.allocations
            .extract_if(.., mine)
            .map(|(_, allocation)| allocation)
            .collect()
    }

    pub(crate) fn used(&self, device: u32) -> usize {
        let mine = |allocation: &&Allocation| allocation.device == device && allocation.counts;
        self.allocations
            .values()
            .filter(mine)
            .map(|allocation| allocation.byte_size)
            .sum()
    }

    /// Whether an address is one of the device's, in bounds or not.
    pub(crate) fn owns(&self, address: usize) -> bool {
        let before = self.allocations.range(..=address).next_back();
        before.is_some_and(|(start, allocation)| address - start < allocation.byte_size + GUARD)
    }

    /// Where the allocation that an address lies in starts, and its bytes.
    pub(crate) fn allocation_of(&self, address: usize) -> Option<(usize, usize)> {
        let (&start, allocation) = self.allocations.range(..=address).next_back()?;
        (address - start < allocation.byte_size).then_some((start, allocation.byte_size))
    }

    /// A range that lies in one allocation.
    pub(crate) fn range(&self, address: usize, byte_size: usize) -> Option<DeviceRange> {
        let (start, allocation) = self.allocations.range(..=address).next_back()?;
        let at = address - start;
        at.checked_add(byte_size)
            .filter(|&end| end <= allocation.byte_size)?;
        Some(DeviceRange {
            backing: allocation.backing.clone(),
            at,
            byte_size,
        })
    }
}
