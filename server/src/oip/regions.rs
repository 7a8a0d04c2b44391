//! The shared-memory regions that callers have registered: which caller may use which, and how their bytes come and go.
//!
//! A region is a part of an object that lies beneath the operator's directory, or memory of a device that another process
//! has made; open for as long as it is registered and somebody uses it. Its bytes are copied and never mapped
//! ([`Region`]), so whatever its owner does to them is an error of a call and nothing else.
//!
//! Names belong to the [`Owner`] who registered them. Others cannot see, use or forget them.

mod error;
mod region;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use adjoin_oip::RegionSlice;
use adjoin_shm::NamedDirectory;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::devices::Devices;
pub use error::{AccessError, RegionError};
use region::Backing;
pub use region::Region;

/// Most bytes of a region's name.
const NAME_BYTES_MAX: usize = 256;

/// Writes of one owner at once; further ones wait. Each may wait without limit for whoever else writes the file, so they
/// have threads of their own, and so many at most.
const WRITES_PER_OWNER_MAX: usize = 4;

/// Who registered a region.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A user of this machine, who came by a unix socket. Only its own files become regions.
    Uid(u32),
    /// Who came over TCP, by the name of its token or certificate; all without one are the same. Any file that the server
    /// may open becomes a region.
    Tcp(Arc<str>),
}

/// Where a region's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// In a named object of the system.
    System,
    /// In memory of a device.
    Cuda,
}

impl fmt::Display for RegionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::Cuda => "cuda",
        })
    }
}

/// How much callers may register and move.
#[derive(Clone, Copy, Debug)]
pub struct RegionLimits {
    /// Regions of all owners. Each takes a file descriptor.
    pub count_max: usize,
    /// Regions of one owner.
    pub owner_count_max: usize,
    /// Bytes that one call may have copied from regions.
    pub call_bytes_max: u64,
}

/// The regions of all callers.
#[derive(Debug)]
pub struct Regions {
    /// `None`: switched off.
    directory: Option<NamedDirectory>,
    devices: Devices,
    limits: RegionLimits,
    table: Mutex<HashMap<Owner, Registered>>,
    counts: Arc<Mutex<Counts>>,
}

/// The regions of one owner, by name; not kept when there are none.
#[derive(Debug)]
struct Registered {
    regions: BTreeMap<String, Arc<Region>>,
    writes: Arc<Semaphore>,
}

impl Default for Registered {
    fn default() -> Self {
        Self {
            regions: BTreeMap::new(),
            writes: Arc::new(Semaphore::new(WRITES_PER_OWNER_MAX)),
        }
    }
}

/// How many regions are open, also of those that are registered no longer.
#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_owner: HashMap<Owner, usize>,
}

/// A region's share of the counts, given back on drop.
#[derive(Debug)]
struct Place {
    counts: Arc<Mutex<Counts>>,
    owner: Owner,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        counts.all -= 1;
        if let Some(count) = counts.by_owner.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                counts.by_owner.remove(&self.owner);
            }
        }
    }
}

impl Regions {
    /// No regions, and none to come: registering says that it is off.
    #[must_use]
    pub fn off(limits: RegionLimits) -> Self {
        Self {
            directory: None,
            devices: Devices::default(),
            limits,
            table: Mutex::default(),
            counts: Arc::default(),
        }
    }

    /// No regions; those to come lie directly in `directory`.
    ///
    /// # Errors
    /// If the directory cannot be opened, or the system has no `openat2`.
    pub fn beneath(directory: &Path, limits: RegionLimits) -> std::io::Result<Self> {
        let directory = Some(NamedDirectory::open(directory)?);
        Ok(Self {
            directory,
            ..Self::off(limits)
        })
    }

    /// The same, with memory of a device as well.
    #[must_use]
    pub fn with_devices(self, devices: Devices) -> Self {
        Self { devices, ..self }
    }

    /// Registers `byte_size` bytes from `offset` of the object that `key` names. Never waits.
    ///
    /// # Errors
    /// See [`RegionError`].
    pub fn register(
        &self,
        owner: &Owner,
        name: &str,
        key: &str,
        offset: u64,
        byte_size: u64,
    ) -> Result<(), RegionError> {
        let directory = self.directory.as_ref().ok_or(RegionError::Off)?;
        let place = self.place(owner, name)?;
        let uid = match owner {
            Owner::Uid(uid) => Some(*uid),
            Owner::Tcp(_) => None,
        };
        let cannot_open = |source| RegionError::Open {
            key: shown(key),
            source,
        };
        let object = directory.object(key, uid).map_err(cannot_open)?;
        let file_size = object.byte_size().map_err(cannot_open)?;
        let is_inside = offset
            .checked_add(byte_size)
            .is_some_and(|end| byte_size > 0 && end <= file_size);
        if !is_inside {
            return Err(RegionError::Extent {
                name: name.to_owned(),
                byte_size,
                offset,
                file_size,
            });
        }
        let key = key.to_owned();
        let backing = Backing::Object {
            key,
            offset,
            object,
        };
        self.insert(owner, name, byte_size, backing, place)
    }

    /// Registers `byte_size` bytes of memory of a device, which another process has made and given a handle for.
    ///
    /// # Errors
    /// See [`RegionError`].
    pub fn register_device(
        &self,
        owner: &Owner,
        name: &str,
        device: i64,
        handle: &[u8],
        byte_size: u64,
    ) -> Result<(), RegionError> {
        let place = self.place(owner, name)?;
        let cannot_open = |source| RegionError::OpenDevice {
            name: name.to_owned(),
            source,
        };
        let memory = self.devices.open_shared(device, handle, byte_size);
        let memory = memory.map_err(cannot_open)?;
        if byte_size == 0 {
            return Err(RegionError::Extent {
                name: name.to_owned(),
                byte_size,
                offset: 0,
                file_size: 0,
            });
        }
        let backing = Backing::Device { device, memory };
        self.insert(owner, name, byte_size, backing, place)
    }

    /// A place for a region of that name, which the owner does not have yet.
    fn place(&self, owner: &Owner, name: &str) -> Result<Place, RegionError> {
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) {
            return Err(RegionError::Name(name.len()));
        }
        if self.find(owner, name).is_some() {
            return Err(RegionError::AlreadyThere(name.to_owned()));
        }
        self.claim(owner, name)
    }

    fn insert(
        &self,
        owner: &Owner,
        name: &str,
        byte_size: u64,
        backing: Backing,
        place: Place,
    ) -> Result<(), RegionError> {
        let mut table = self.table.lock();
        let registered = table.entry(owner.clone()).or_default();
        if registered.regions.contains_key(name) {
            return Err(RegionError::AlreadyThere(name.to_owned()));
        }
        let writes = Arc::clone(&registered.writes);
        let region = Region::new(name.to_owned(), byte_size, backing, writes, place);
        registered.regions.insert(name.to_owned(), Arc::new(region));
        Ok(())
    }

    /// Forgets a region of the owner, if there is one of that name and kind. Calls that use it go on to their end.
    pub fn unregister(&self, owner: &Owner, kind: RegionKind, name: &str) {
        self.forget(owner, |region| {
            region.kind() == kind && region.name() == name
        });
    }

    /// Forgets all regions of the owner of that kind.
    pub fn unregister_all(&self, owner: &Owner, kind: RegionKind) {
        self.forget(owner, |region| region.kind() == kind);
    }

    fn forget(&self, owner: &Owner, is_meant: impl Fn(&Region) -> bool) {
        let mut table = self.table.lock();
        if let Some(registered) = table.get_mut(owner) {
            registered.regions.retain(|_, region| !is_meant(region));
            if registered.regions.is_empty() {
                table.remove(owner);
            }
        }
    }

    /// The owner's region of that name, or with no name all of that kind, by name.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn status(
        &self,
        owner: &Owner,
        kind: RegionKind,
        name: &str,
    ) -> Result<Vec<Arc<Region>>, RegionError> {
        if name.is_empty() {
            let table = self.table.lock();
            let regions = table.get(owner).map(|it| it.regions.values());
            let regions = regions.into_iter().flatten();
            return Ok(regions.filter(|it| it.kind() == kind).cloned().collect());
        }
        let found = self.find(owner, name).filter(|it| it.kind() == kind);
        let name = shown(name);
        let found = found.ok_or(RegionError::NoStatus { kind, name })?;
        Ok(vec![found])
    }

    /// The owner's region of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, owner: &Owner, name: &str) -> Result<Arc<Region>, RegionError> {
        let found = self.find(owner, name);
        found.ok_or_else(|| RegionError::NotFound(shown(name)))
    }

    /// Reads for one call of the owner, which may have so many bytes copied and no more.
    #[must_use]
    pub fn reader<'a>(&'a self, owner: &'a Owner) -> Reader<'a> {
        let left = self.limits.call_bytes_max;
        Reader {
            regions: self,
            owner,
            left,
        }
    }

    fn find(&self, owner: &Owner, name: &str) -> Option<Arc<Region>> {
        let table = self.table.lock();
        table.get(owner)?.regions.get(name).cloned()
    }

    fn claim(&self, owner: &Owner, name: &str) -> Result<Place, RegionError> {
        let too_many = |count_max, whose| RegionError::TooMany {
            name: name.to_owned(),
            count_max,
            whose,
        };
        let mut counts = self.counts.lock();
        if counts.all >= self.limits.count_max {
            return Err(too_many(self.limits.count_max, ""));
        }
        let own = counts.by_owner.get(owner).copied().unwrap_or_default();
        if own >= self.limits.owner_count_max {
            return Err(too_many(self.limits.owner_count_max, " of one owner"));
        }
        counts.all += 1;
        counts.by_owner.insert(owner.clone(), own + 1);
        Ok(Place {
            counts: Arc::clone(&self.counts),
            owner: owner.clone(),
        })
    }
}

/// Reads for one call. See [`Regions::reader`].
#[derive(Debug)]
pub struct Reader<'a> {
    regions: &'a Regions,
    owner: &'a Owner,
    left: u64,
}

impl Reader<'_> {
    /// A copy of what the slice stands for.
    ///
    /// # Errors
    /// See [`RegionError`].
    pub fn read(&mut self, slice: &RegionSlice) -> Result<Bytes, RegionError> {
        let region = self.regions.get(self.owner, &slice.region)?;
        let left = self.left.checked_sub(slice.byte_size);
        self.left = left.ok_or_else(|| RegionError::CallBytes {
            name: shown(&slice.region),
            byte_size: slice.byte_size,
            left: self.left,
            call_bytes_max: self.regions.limits.call_bytes_max,
        })?;
        region.read(slice.offset, slice.byte_size)
    }
}

/// A name or a key for a message: what is longer than a name can be is cut.
fn shown(text: &str) -> String {
    text.chars().take(NAME_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests;
