//! Memory of the device that clients share with the server by descriptor.
//!
//! Nothing of it is ever looked at by a processor. What takes the payload of a request gets addresses that stand for it
//! ([`StandIn`]), and a batch finds the memory by them, as it finds a registered region by its own: so a request on the
//! device goes every way that others go, and is copied from there to its row, and back, within the device.
//!
//! A region is taken out of the table at once when its [`DeviceRegion`] is dropped. Its memory is unmapped when no lane
//! holds it any more, on the registry's thread, as whoever drops it may be one that others wait for.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use adjoin_shm::{Payload, PayloadMut, StandIn};
use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::driver::{DeviceBuffer, Hold};
use crate::error::CudaError;
use crate::registry::Registry;
use crate::transfers::Transfers;

/// All such regions of one device, by the addresses that stand for them. Read without a lock.
#[derive(Debug, Default)]
pub struct DeviceRegions {
    table: ArcSwap<Vec<Arc<Entry>>>,
    /// Held while the table is copied and changed.
    changing: Mutex<()>,
}

struct Entry {
    stand_in: StandIn,
    // Dropped in this order: the memory before what is given back for it.
    buffer: DeviceBuffer,
    _charge: Box<dyn Send + Sync>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("stand_in", &self.stand_in)
            .field("buffer", &self.buffer)
            .finish_non_exhaustive()
    }
}

/// A region on the device, for as long as requests may name it.
#[derive(Debug)]
pub struct DeviceRegion {
    /// Behind an option only so that drop can hand it on.
    entry: Option<Arc<Entry>>,
    regions: Arc<DeviceRegions>,
    registry: Arc<Registry>,
}

impl DeviceRegion {
    /// Maps the memory behind a descriptor, of which its owner says that it has `byte_size` bytes. The descriptor is not
    /// kept. `charge` is dropped when the memory is unmapped, or could not be mapped.
    ///
    /// # Errors
    /// If it is no memory of a device, or has another size; or if there is no room for it.
    pub fn import(
        transfers: &Transfers,
        descriptor: &OwnedFd,
        byte_size: usize,
        charge: impl Send + Sync + 'static,
    ) -> Result<Self, CudaError> {
        let buffer = DeviceBuffer::import(transfers.device(), descriptor, byte_size)?;
        let stand_in = StandIn::new(byte_size).map_err(|error| CudaError::System {
            what: "addresses for a region on the device",
            reason: error.to_string(),
        })?;
        let entry = Arc::new(Entry {
            stand_in,
            buffer,
            _charge: Box::new(charge),
        });
        let regions = Arc::clone(transfers.regions());
        regions.change(|table| {
            let at = table.partition_point(|other| other.start() < entry.start());
            table.insert(at, Arc::clone(&entry));
        });
        let registry = Arc::clone(transfers.registry());
        Ok(Self {
            entry: Some(entry),
            regions,
            registry,
        })
    }

    /// Bytes of the region.
    #[must_use]
    pub fn byte_size(&self) -> u64 {
        let entry = self.entry.as_ref();
        entry.map_or(0, |entry| entry.stand_in.byte_size())
    }

    /// What stands for a range in a batch; `None` if it is not all within.
    #[must_use]
    pub fn payload(&self, offset: u64, byte_size: u64) -> Option<Payload<'_>> {
        self.entry.as_ref()?.stand_in.payload(offset, byte_size)
    }

    /// The same for what a batch is to write.
    #[must_use]
    pub fn payload_mut(&self, offset: u64, byte_size: u64) -> Option<PayloadMut<'_>> {
        self.entry.as_ref()?.stand_in.payload_mut(offset, byte_size)
    }

    /// Whether the context in which it is mapped is lost or gone: no batch can use it any more.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        let entry = self.entry.as_ref();
        entry.is_none_or(|entry| entry.buffer.check_usable().is_err())
    }
}

impl Drop for DeviceRegion {
    fn drop(&mut self) {
        let Some(entry) = self.entry.take() else {
            return;
        };
        self.regions
            .change(|table| table.retain(|other| !Arc::ptr_eq(other, &entry)));
        self.registry.drop_there(entry);
    }
}

impl DeviceRegions {
    /// How many there are, and their bytes.
    #[must_use]
    pub fn held(&self) -> (usize, u64) {
        let table = self.table.load();
        let bytes = table.iter().map(|entry| entry.stand_in.byte_size());
        (table.len(), bytes.sum())
    }

    /// Where the `byte_size` bytes are on the device that `address` stands for, and what keeps them; `None` if it
    /// stands for nothing here.
    ///
    /// # Errors
    /// If that memory is lost, or the range reaches past it.
    pub(crate) fn find(
        &self,
        address: *const u8,
        byte_size: usize,
    ) -> Option<Result<(u64, Hold), CudaError>> {
        let address = address.addr();
        let table = self.table.load();
        let behind = table.partition_point(|entry| entry.start() <= address);
        let entry = table.get(behind.checked_sub(1)?)?;
        let at = address - entry.start();
        // One past the end may be the first byte of something else.
        (at < entry.buffer.byte_size()).then(|| entry.range(at, byte_size))
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Entry>>)) {
        let _one_at_a_time = self.changing.lock();
        let mut table = Vec::clone(&self.table.load());
        change(&mut table);
        self.table.store(Arc::new(table));
    }
}

impl Entry {
    fn start(&self) -> usize {
        self.stand_in.start()
    }

    fn range(&self, at: usize, byte_size: usize) -> Result<(u64, Hold), CudaError> {
        self.buffer.check_usable()?;
        Ok((self.buffer.range(at, byte_size)?, self.buffer.hold()))
    }
}
