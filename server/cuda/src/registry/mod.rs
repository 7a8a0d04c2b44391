//! Regions of sessions that the device may read and write by itself.
//!
//! Registering pins a region's pages and maps them for the device. It takes time by the megabyte, so a thread of the
//! registry's own does it, and until it has, batches go through staging memory. Pinned pages cannot be swapped or
//! moved, so there is a budget; what does not fit in it is refused, says so, and is tried again when room is there.
//!
//! A batch takes a [`Lease`] for each piece, by its address, without a lock. While there is one, the region stays
//! registered and mapped, whatever happens to its session: [`Registry::retire`] takes it out of the table at once, and
//! the last lease's end unregisters it, on the registry's thread.

mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use adjoin_shm::Region;
use arc_swap::ArcSwap;
use parking_lot::Mutex;

use self::worker::{Command, Worker};
use crate::device::Device;
use crate::driver::{Hold, HostRange, Owner, Registration};
use crate::error::CudaError;

/// Names a region in a registry. Never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionKey(u64);

/// Why a region is not registered. Its batches are staged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It would exceed the budget; tried again when others leave.
    Budget {
        /// Bytes of the region.
        wanted: u64,
        /// Bytes of the budget that are free.
        left: u64,
        /// Bytes of the budget.
        limit: u64,
    },
    /// The driver refused.
    Driver(CudaError),
    /// The device cannot register memory of the host, or not that of a read-only mapping.
    Unsupported,
}

/// Where a region stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegionState {
    /// In the queue of the registry's thread.
    Pending,
    /// The device reads and writes it by itself.
    Registered,
    /// Staged, for this reason.
    Refused(Refusal),
}

/// Numbers of a registry, for metrics and `adjoin doctor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistryStats {
    /// Bytes that may be registered.
    pub budget_bytes: u64,
    /// Bytes that are, those of retired regions with leases among them.
    pub registered_bytes: u64,
    /// Regions that are registered and not retired.
    pub registered: usize,
    /// Regions in the queue.
    pub pending: usize,
    /// Regions that are staged.
    pub refused: usize,
    /// Retired regions whose last lease has not ended.
    pub retired: usize,
}

/// Registers regions for one device. Registrations are good for all devices of the process, and end with the context of
/// this one.
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    device: Device,
    budget_bytes: u64,
    /// Registered regions by address; replaced as a whole, read without a lock.
    table: ArcSwap<Vec<Arc<Registered>>>,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    next_key: u64,
    entries: HashMap<RegionKey, Entry>,
    registered_bytes: u64,
    retired: usize,
}

#[derive(Debug)]
struct Entry {
    region: Region,
    state: RegionState,
}

/// A registration that goes back to the registry's thread with its last lease.
#[derive(Debug)]
pub(crate) struct Registered {
    key: RegionKey,
    registration: Option<Registration>,
    commands: Sender<Command>,
}

/// Keeps a region registered and mapped.
#[derive(Clone, Debug)]
pub struct Lease {
    registered: Arc<Registered>,
    range: HostRange,
}

impl Registry {
    /// Starts the registry of `device`, which will pin no more than `budget_bytes`.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(device: &Device, budget_bytes: u64) -> Result<Self, CudaError> {
        let (commands, queue) = mpsc::channel();
        let shared = Arc::new(Shared {
            device: device.clone(),
            budget_bytes,
            table: ArcSwap::default(),
            book: Mutex::default(),
        });
        let worker = Worker::new(shared.clone(), queue, commands.clone());
        let thread = std::thread::Builder::new()
            .name("cuda-registry".to_owned())
            .spawn(move || worker.run())
            .map_err(|error| CudaError::System {
                what: "a thread for registering regions",
                reason: error.to_string(),
            })?;
        Ok(Self {
            shared,
            commands,
            thread: Some(thread),
        })
    }

    /// Queues a region for registration. The registry shares its mapping until it is retired.
    pub fn register(&self, region: &Region) -> RegionKey {
        let key = {
            let mut book = self.shared.book.lock();
            let key = RegionKey(book.next_key);
            book.next_key += 1;
            let entry = Entry {
                region: region.clone(),
                state: RegionState::Pending,
            };
            book.entries.insert(key, entry);
            key
        };
        self.tell(Command::Register(key));
        key
    }

    /// Where a region stands; `None` if it was retired.
    #[must_use]
    pub fn state(&self, key: RegionKey) -> Option<RegionState> {
        let book = self.shared.book.lock();
        book.entries.get(&key).map(|entry| entry.state.clone())
    }

    /// A lease of the `byte_size` bytes at `address`, if they lie in one registered region. Takes no lock.
    #[must_use]
    pub fn lease(&self, address: *const u8, byte_size: usize) -> Option<Lease> {
        let address = address.addr();
        let table = self.shared.table.load();
        let behind = table.partition_point(|registered| registered.start() <= address);
        let registered = table.get(behind.checked_sub(1)?)?;
        let registration = registered.registration.as_ref()?;
        if registration.context().is_lost() {
            return None;
        }
        Some(Lease {
            registered: registered.clone(),
            range: registration.range(address, byte_size)?,
        })
    }

    /// Takes a region out: no lease of it is given from here on. When the last one has ended it is unregistered, and
    /// then `owner` is dropped: whatever must outlive the device's transfers, as the session's memory. If the region
    /// is not registered, that is at once.
    ///
    /// If the context is lost, nobody knows what the device still does; mapping and owner are kept until
    /// [`Device::reset`] has ended it.
    pub fn retire(&self, key: RegionKey, owner: impl Send + 'static) {
        let owner = Owner(Box::new(owner));
        let removed = {
            let mut book = self.shared.book.lock();
            book.entries.remove(&key);
            self.shared.remove(&mut book, key)
        };
        if let Some(registered) = removed
            && let Some(registration) = &registered.registration
        {
            registration.own(owner);
        }
        // Dropped here, without the lock, if nothing was registered.
    }

    /// Registers all regions again, in the context that the device has now. To be called after [`Device::reset`].
    pub fn rebuild(&self) {
        let old = {
            let mut book = self.shared.book.lock();
            for entry in book.entries.values_mut() {
                entry.state = RegionState::Pending;
            }
            let old = self.shared.table.swap(Arc::default());
            book.retired += old.len();
            old
        };
        drop(old);
        let keys: Vec<RegionKey> = {
            let book = self.shared.book.lock();
            book.entries.keys().copied().collect()
        };
        for key in keys {
            self.tell(Command::Register(key));
        }
    }

    /// Drops something on the registry's thread, such as memory whose unmapping takes long.
    pub(crate) fn drop_there(&self, owner: impl Send + 'static) {
        self.tell(Command::Drop(Owner(Box::new(owner))));
    }

    /// Waits until everything that was queued before is done.
    pub fn settle(&self) {
        let (done, waiting) = mpsc::sync_channel(1);
        self.tell(Command::Settle(done));
        // An error means that the thread has ended, and then there is nothing to wait for.
        let _ = waiting.recv();
    }

    /// Numbers as of now.
    #[must_use]
    pub fn stats(&self) -> RegistryStats {
        let book = self.shared.book.lock();
        let count = |wanted: fn(&RegionState) -> bool| {
            let states = book.entries.values().map(|entry| &entry.state);
            states.filter(|state| wanted(state)).count()
        };
        RegistryStats {
            budget_bytes: self.shared.budget_bytes,
            registered_bytes: book.registered_bytes,
            registered: count(|state| *state == RegionState::Registered),
            pending: count(|state| *state == RegionState::Pending),
            refused: count(|state| matches!(state, RegionState::Refused(_))),
            retired: book.retired,
        }
    }

    fn tell(&self, command: Command) {
        // The thread lives as long as this; without it regions stay as they are, and are staged.
        let _ = self.commands.send(command);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.tell(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Takes a region out of the table.
    fn remove(&self, book: &mut Book, key: RegionKey) -> Option<Arc<Registered>> {
        let table = self.table.load();
        let at = table.iter().position(|registered| registered.key == key)?;
        let mut next = Vec::clone(&table);
        let registered = next.remove(at);
        self.table.store(Arc::new(next));
        book.retired += 1;
        Some(registered)
    }
}

impl Registered {
    fn start(&self) -> usize {
        self.registration.as_ref().map_or(0, Registration::start)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(registration) = self.registration.take() {
            // Unregistering takes long. If the thread has ended, the registration comes back in the error and is
            // dropped here.
            let _ = self.commands.send(Command::Release(registration));
        }
    }
}

impl Lease {
    pub(crate) fn range(&self) -> HostRange {
        self.range
    }

    pub(crate) fn is_writable(&self) -> bool {
        let registration = self.registered.registration.as_ref();
        registration.is_some_and(Registration::is_writable)
    }

    pub(crate) fn into_hold(self) -> Hold {
        Hold::Registered(self.registered)
    }
}
