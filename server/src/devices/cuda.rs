//! NVIDIA's GPUs, one of which a server uses.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use adjoin_cuda::{
    CopiedBytes, CudaError, Driver, Path, RegionKey, Registry, SharedBuffer, TransferSettings,
    Transfers,
};
use adjoin_schema::attach::DeviceUuid;
use adjoin_shm::{AlignedBytes, Payload, PayloadMut, SessionMemory};
use parking_lot::Mutex;

use super::quota::{DeviceQuota, Sharer};
use super::{BytesByPath, BytesWithin, DeviceError, DeviceNumbers, DeviceSettings};

/// The device of a server, opened when an engine wants it. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Devices {
    settings: DeviceSettings,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    opened: Mutex<Opened>,
    quota: DeviceQuota,
    resets: AtomicU64,
    failed_resets: AtomicU64,
}

#[derive(Debug, Default)]
enum Opened {
    #[default]
    NotYet,
    Transfers(Transfers),
    Failed(String),
}

/// The regions of a session, as a device knows them.
#[derive(Debug)]
pub struct Registered {
    registry: Arc<Registry>,
    pub(super) keys: [RegionKey; 2],
}

impl Devices {
    /// As configured; who configures a device wants it opened now.
    ///
    /// # Errors
    /// If a device is configured, and cannot be used.
    pub fn new(settings: Option<DeviceSettings>) -> Result<Self, DeviceError> {
        let devices = Self {
            settings: settings.unwrap_or_default(),
            ..Self::default()
        };
        if settings.is_some() {
            devices.open()?;
        }
        Ok(devices)
    }

    /// As configured.
    #[must_use]
    pub fn settings(&self) -> DeviceSettings {
        self.settings
    }

    /// The device, for an engine that runs on it: as it is now, so an engine asks each time it loads a model.
    ///
    /// # Errors
    /// If there is none, or it cannot be used; the same each time.
    pub fn open(&self) -> Result<Transfers, DeviceError> {
        let mut opened = self.shared.opened.lock();
        match &*opened {
            Opened::Transfers(transfers) => return Ok(transfers.clone()),
            Opened::Failed(reason) => return Err(DeviceError::Before(reason.clone())),
            Opened::NotYet => {}
        }
        let transfers = Driver::find()
            .and_then(|driver| driver.device(self.settings.device))
            .and_then(|device| {
                let settings = TransferSettings {
                    registered_bytes: self.settings.registered_bytes,
                    staging_bytes: self.settings.staging_bytes,
                    thresholds: None,
                    spin: self.settings.spin,
                };
                Transfers::start(&device, settings)
            });
        match transfers {
            Ok(transfers) => {
                tracing::info!(device = ?transfers.device().facts(), "opened a device");
                *opened = Opened::Transfers(transfers.clone());
                Ok(transfers)
            }
            Err(error) => {
                *opened = Opened::Failed(error.to_string());
                Err(error.into())
            }
        }
    }

    fn transfers(&self) -> Option<Transfers> {
        match &*self.shared.opened.lock() {
            Opened::Transfers(transfers) => Some(transfers.clone()),
            Opened::NotYet | Opened::Failed(_) => None,
        }
    }

    /// Opens memory of the device that another process has made, by the handle that it was given for it. Only where a
    /// device is in use: a caller does not make the server use one.
    ///
    /// # Errors
    /// If no device is in use, or it is another one, or the handle or the size is wrong.
    pub fn open_shared(
        &self,
        device: i64,
        handle: &[u8],
        byte_size: u64,
    ) -> Result<SharedMemory, DeviceError> {
        let transfers = self.transfers().ok_or(DeviceError::NotInUse)?;
        let used = transfers.device().facts().index;
        if device != i64::from(used) {
            return Err(DeviceError::Other { device, used });
        }
        let handle_bytes = handle.len();
        let handle = handle.try_into();
        let handle = handle.map_err(|_| DeviceError::Handle { handle_bytes })?;
        // More than an address is more than any device has.
        let byte_size = usize::try_from(byte_size).unwrap_or(usize::MAX);
        let buffer = SharedBuffer::open(transfers.device(), handle, byte_size)?;
        Ok(SharedMemory(buffer))
    }

    /// Maps memory of the device that a client shares: `descriptor` is what the driver has given it for `byte_size` bytes.
    /// Only where a device is in use. May take milliseconds.
    ///
    /// # Errors
    /// If no device is in use, or it is another one; if the client shares as much as it may; or if the descriptor or the
    /// size is wrong.
    pub fn import(
        &self,
        sharer: Sharer,
        device: &DeviceUuid,
        descriptor: &OwnedFd,
        byte_size: u64,
    ) -> Result<DeviceRegion, DeviceError> {
        let transfers = self.transfers().ok_or(DeviceError::NotInUse)?;
        if transfers.device().facts().uuid != *device {
            return Err(DeviceError::OtherUuid);
        }
        let take = || (self.shared.quota).take(&self.settings, sharer, byte_size);
        // What was detached just now may be on its way to be unmapped.
        let share = take().or_else(|_| {
            transfers.registry().settle();
            take()
        })?;
        let byte_size = usize::try_from(byte_size).unwrap_or(usize::MAX);
        let memory = adjoin_cuda::DeviceRegion::import(&transfers, descriptor, byte_size, share);
        let memory = memory.map_err(|error| match error {
            CudaError::OtherDevice => DeviceError::OtherUuid,
            error => error.into(),
        })?;
        Ok(DeviceRegion { memory })
    }

    /// Has the device, if it is open, register a session's memory.
    #[must_use]
    pub fn register(&self, memory: &SessionMemory) -> Option<Registered> {
        let registry = Arc::clone(self.transfers()?.registry());
        let keys = [memory.request(), memory.response()].map(|region| registry.register(region));
        Some(Registered { registry, keys })
    }

    /// Whether an error has spoiled the context of the device, so that nothing runs on it before
    /// [`Devices::rebuild`].
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.transfers()
            .is_some_and(|transfers| transfers.device().is_lost())
    }

    /// Ends the context of the device, and makes a new one: regions of sessions are registered again, and
    /// [`Devices::open`] gives what is in the new one. Takes long, and not in two threads at once.
    ///
    /// Models on the device have to be dropped before: the driver does not check handles of a context that is gone.
    ///
    /// # Errors
    /// If the device does not work afterwards either, or was never open. It may be tried again.
    pub fn rebuild(&self) -> Result<(), DeviceError> {
        let Some(transfers) = self.transfers() else {
            return self.open().map(drop);
        };
        let rebuilt = transfers.rebuild();
        let count = match &rebuilt {
            Ok(_) => &self.shared.resets,
            Err(_) => &self.shared.failed_resets,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let transfers = rebuilt?;
        // Batches that came before would be staged.
        transfers.registry().settle();
        *self.shared.opened.lock() = Opened::Transfers(transfers);
        Ok(())
    }

    /// Numbers of the device, if it is open.
    #[must_use]
    pub fn numbers(&self) -> Option<DeviceNumbers> {
        let transfers = self.transfers()?;
        let counters = transfers.device().counters();
        let stats = transfers.registry().stats();
        let (shared_regions, shared_bytes) = transfers.regions().held();
        Some(DeviceNumbers {
            name: transfers.device().facts().name.clone(),
            to_device: by_path(&counters.to_device),
            to_host: by_path(&counters.to_host),
            within: BytesWithin {
                gathered: counters.within.gathered(),
                scattered: counters.within.scattered(),
            },
            shared_regions,
            shared_bytes,
            budget_bytes: stats.budget_bytes,
            registered_bytes: stats.registered_bytes,
            registered: stats.registered,
            pending: stats.pending,
            refused: stats.refused,
            retired: stats.retired,
            is_working: !transfers.device().is_lost(),
            resets: self.shared.resets.load(Ordering::Relaxed),
            failed_resets: self.shared.failed_resets.load(Ordering::Relaxed),
        })
    }
}

/// Memory of the device that a client shares, as a region of its session.
#[derive(Debug)]
pub struct DeviceRegion {
    // Its share of the quota goes with the memory.
    memory: adjoin_cuda::DeviceRegion,
}

impl DeviceRegion {
    /// Bytes of the region.
    #[must_use]
    pub fn byte_size(&self) -> u64 {
        self.memory.byte_size()
    }

    /// Whether it went with a context of the device that was lost.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.memory.is_lost()
    }

    /// What stands for a range of it in a batch, for engines on the device alone; `None` if it is not all within.
    #[must_use]
    pub fn payload(&self, offset: u64, byte_size: u64) -> Option<Payload<'_>> {
        self.memory.payload(offset, byte_size)
    }

    /// The same for an output.
    #[must_use]
    pub fn payload_mut(&self, offset: u64, byte_size: u64) -> Option<PayloadMut<'_>> {
        self.memory.payload_mut(offset, byte_size)
    }
}

/// Memory of the device that another process has made.
#[derive(Debug)]
pub struct SharedMemory(SharedBuffer);

impl SharedMemory {
    /// A copy of `byte_size` bytes from `at`, both within the memory.
    ///
    /// # Errors
    /// If the device fails.
    pub fn read(&self, at: u64, byte_size: u64) -> Result<AlignedBytes, DeviceError> {
        let [at, byte_size] = [at, byte_size].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let mut copy = AlignedBytes::zeroed(byte_size);
        self.0.read(at, &mut copy.payload_mut())?;
        Ok(copy)
    }

    /// Copies `bytes` to the memory, from `at` on.
    ///
    /// # Errors
    /// If the device fails.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        Ok(self.0.write(at, &Payload::from_slice(bytes))?)
    }
}

impl Registered {
    /// Has the device let go of the regions; `owner` is kept until it has.
    pub fn retire(&self, owner: impl Clone + Send + 'static) {
        for key in self.keys {
            self.registry.retire(key, owner.clone());
        }
    }
}

fn by_path(bytes: &CopiedBytes) -> BytesByPath {
    BytesByPath {
        direct: bytes.get(Path::Direct),
        staged: bytes.get(Path::Staged),
        pageable: bytes.get(Path::Pageable),
    }
}

#[cfg(test)]
mod tests;
