//! Memory handed to other processes: by a handle that names it, or by a file descriptor.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::device_memory::{Allocation, Backing, Reservation};
use super::state::Driver;
use super::status::{
    INVALID_CONTEXT, INVALID_HANDLE, INVALID_VALUE, OUT_OF_MEMORY, Status, UNKNOWN,
};

/// Bytes of an IPC handle.
pub(crate) const HANDLE_BYTES: usize = 64;
/// What an IPC handle of ours starts with.
const MAGIC: [u8; 8] = *b"fakecuda";
/// Memory of its own comes in multiples of this.
pub(crate) const GRANULARITY: usize = 2 << 20;

/// Memory without an address.
#[derive(Debug)]
pub(crate) struct Physical {
    pub(crate) backing: Arc<Backing>,
    pub(crate) device: u32,
}

/// Who made an allocation, and where its file is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IpcHandle {
    process: u32,
    descriptor: u32,
    byte_size: u64,
}

impl IpcHandle {
    fn to_bytes(self) -> [u8; HANDLE_BYTES] {
        let mut bytes = [0; HANDLE_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.process.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.descriptor.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.byte_size.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; HANDLE_BYTES]) -> Option<Self> {
        let word = |at: usize| bytes[at..at + 4].try_into().map(u32::from_le_bytes).ok();
        let long = bytes[16..24].try_into().map(u64::from_le_bytes).ok();
        (bytes[..8] == MAGIC).then_some(())?;
        Some(Self {
            process: word(8)?,
            descriptor: word(12)?,
            byte_size: long?,
        })
    }
}

impl Driver {
    /// A handle of the allocation that starts at an address.
    pub(crate) fn ipc_handle(&self, address: u64) -> Result<[u8; HANDLE_BYTES], Status> {
        let start = usize::try_from(address).map_err(|_| INVALID_VALUE)?;
        let memory = self.memory.lock();
        let allocation = memory.get(start).ok_or(INVALID_VALUE)?;
        let descriptor = allocation.backing.file().as_raw_fd();
        let handle = IpcHandle {
            process: std::process::id(),
            descriptor: u32::try_from(descriptor).map_err(|_| INVALID_VALUE)?,
            byte_size: allocation.byte_size as u64,
        };
        Ok(handle.to_bytes())
    }

    /// Maps another process's allocation.
    pub(crate) fn open_ipc(&self, device: u32, bytes: &[u8; HANDLE_BYTES]) -> Result<u64, Status> {
        let handle = IpcHandle::from_bytes(bytes).ok_or(INVALID_HANDLE)?;
        if handle.process == std::process::id() {
            // A driver does not open what the same process made.
            return Err(INVALID_CONTEXT);
        }
        let path = format!("/proc/{}/fd/{}", handle.process, handle.descriptor);
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path);
        let file = file.map_err(|_| INVALID_HANDLE)?;
        let byte_size = usize::try_from(handle.byte_size).map_err(|_| INVALID_HANDLE)?;
        let is_long_enough = file
            .metadata()
            .is_ok_and(|data| data.len() >= handle.byte_size);
        if !is_long_enough {
            return Err(INVALID_HANDLE);
        }
        let backing = Backing::map(OwnedFd::from(file), byte_size).map_err(|_| OUT_OF_MEMORY)?;
        let reservation = Reservation::new(byte_size).map_err(|_| OUT_OF_MEMORY)?;
        let start = reservation.start();
        let allocation = Allocation {
            reservation: Arc::new(reservation),
            backing: Arc::new(backing),
            byte_size,
            device,
            counts: false,
        };
        self.memory.lock().insert(start, allocation);
        self.report.lock().device_allocations_live += 1;
        Ok(start as u64)
    }
}

/// Addresses that were reserved and are not given back, by where they start.
pub(crate) type Reservations = BTreeMap<usize, (Arc<Reservation>, usize)>;

impl Driver {
    pub(crate) fn reserve(&self, byte_size: usize) -> Result<u64, Status> {
        if byte_size == 0 || !byte_size.is_multiple_of(GRANULARITY) {
            return Err(INVALID_VALUE);
        }
        let reservation = Reservation::new(byte_size).map_err(|_| OUT_OF_MEMORY)?;
        let start = reservation.start();
        let entry = (Arc::new(reservation), byte_size);
        self.reservations.lock().insert(start, entry);
        Ok(start as u64)
    }

    pub(crate) fn unreserve(&self, address: u64) -> Result<(), Status> {
        let start = usize::try_from(address).map_err(|_| INVALID_VALUE)?;
        if self.memory.lock().get(start).is_some() {
            self.violation(format!(
                "addresses from {address:#x} on are given back while memory is mapped there"
            ));
        }
        let removed = self.reservations.lock().remove(&start);
        removed.map_or(Err(INVALID_VALUE), |_| Ok(()))
    }

    /// Puts memory at reserved addresses.
    pub(crate) fn map_physical(
        &self,
        address: u64,
        byte_size: usize,
        physical: &Physical,
    ) -> Result<(), Status> {
        let start = usize::try_from(address).map_err(|_| INVALID_VALUE)?;
        let reserved = self.reservations.lock().get(&start).cloned();
        let (reservation, reserved_bytes) = reserved.ok_or(INVALID_VALUE)?;
        let mut memory = self.memory.lock();
        // A part of it may be mapped: whether a real driver does that is not documented.
        let is_within = byte_size <= physical.backing.byte_size();
        let fits =
            byte_size == reserved_bytes && is_within && byte_size.is_multiple_of(GRANULARITY);
        if !fits || memory.get(start).is_some() {
            return Err(INVALID_VALUE);
        }
        memory.insert(
            start,
            Allocation {
                reservation,
                backing: physical.backing.clone(),
                byte_size,
                device: physical.device,
                counts: false,
            },
        );
        drop(memory);
        self.report.lock().device_allocations_live += 1;
        Ok(())
    }

    /// Takes out the allocation that starts at an address, however it came there.
    pub(crate) fn unmap_device(&self, address: u64) -> Result<(), Status> {
        let start = usize::try_from(address).map_err(|_| INVALID_VALUE)?;
        let removed = self.memory.lock().remove(start);
        drop(removed.ok_or(INVALID_VALUE)?);
        self.report.lock().device_allocations_live -= 1;
        Ok(())
    }
}

impl Physical {
    pub(crate) fn new(device: u32, byte_size: usize) -> Result<Self, Status> {
        if byte_size == 0 || !byte_size.is_multiple_of(GRANULARITY) {
            return Err(INVALID_VALUE);
        }
        let backing = Backing::new(device, byte_size).map_err(|_| OUT_OF_MEMORY)?;
        Ok(Self {
            backing: Arc::new(backing),
            device,
        })
    }

    /// A descriptor of the memory, for another process.
    pub(crate) fn export(&self) -> Result<RawFd, Status> {
        let file = self.backing.file().try_clone_to_owned();
        Ok(file.map_err(|_| OUT_OF_MEMORY)?.into_raw_fd())
    }

    /// The memory behind a descriptor, which stays the caller's.
    pub(crate) fn import(descriptor: RawFd) -> Result<Self, Status> {
        if descriptor < 0 {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the descriptor is the caller's; it is only borrowed, to be duplicated.
        let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let file = borrowed.try_clone_to_owned().map_err(|_| INVALID_VALUE)?;
        // A real driver knows its own files from others, those of memory among them, and whose memory it is. Release 580
        // answers others with an error that elsewhere means a spoiled context, and the context works on.
        let device = Backing::device_of(&file).ok_or(UNKNOWN)?;
        let file = std::fs::File::from(file);
        let byte_size = file.metadata().map_err(|_| INVALID_VALUE)?.len();
        let byte_size = usize::try_from(byte_size).map_err(|_| INVALID_VALUE)?;
        if byte_size == 0 || !byte_size.is_multiple_of(GRANULARITY) {
            return Err(INVALID_VALUE);
        }
        let backing = Backing::map(OwnedFd::from(file), byte_size).map_err(|_| OUT_OF_MEMORY)?;
        Ok(Self {
            backing: Arc::new(backing),
            device,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::FromRawFd;

    use super::*;

    #[test]
    fn handles_say_what_they_are() {
        let handle = IpcHandle {
            process: 7,
            descriptor: 9,
            byte_size: 1 << 40,
        };
        assert_eq!(IpcHandle::from_bytes(&handle.to_bytes()), Some(handle));
        assert_eq!(IpcHandle::from_bytes(&[0; HANDLE_BYTES]), None);
    }

    #[test]
    fn exported_memory_is_the_same_memory() {
        let physical = Physical::new(0, GRANULARITY).unwrap();
        // SAFETY: `export` gives the descriptor away.
        let descriptor = unsafe { OwnedFd::from_raw_fd(physical.export().unwrap()) };
        let imported = Physical::import(descriptor.as_raw_fd()).unwrap();
        assert_eq!(imported.backing.byte_size(), GRANULARITY);
        assert_eq!(Physical::new(0, 5).unwrap_err(), INVALID_VALUE);
    }
}
