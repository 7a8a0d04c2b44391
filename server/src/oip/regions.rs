//! The shared-memory regions that callers have registered: which caller may use which, and how their bytes come and go.
//!
//! A region is a part of an object that lies beneath the operator's directory, open for as long as it is registered and
//! somebody uses it. Its bytes are copied and never mapped ([`NamedObject`]), so whatever its owner does to the file is an
//! error of a call and nothing else.
//!
//! Names belong to the [`Owner`] who registered them. Others cannot see, use or forget them.

mod error;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use adjoin_oip::RegionSlice;
use adjoin_shm::{NamedDirectory, NamedError, NamedObject};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub use error::RegionError;

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

/// A registered region. Whoever holds it can finish with it, registered or not.
#[derive(Debug)]
pub struct Region {
    name: String,
    key: String,
    offset: u64,
    byte_size: u64,
    object: NamedObject,
    writes: Arc<Semaphore>,
    _place: Place,
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
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) {
            return Err(RegionError::Name(name.len()));
        }
        let already_there = || RegionError::AlreadyThere(name.to_owned());
        if self.find(owner, name).is_some() {
            return Err(already_there());
        }
        let place = self.claim(owner, name)?;
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
        let mut table = self.table.lock();
        let registered = table.entry(owner.clone()).or_default();
        if registered.regions.contains_key(name) {
            return Err(already_there());
        }
        let region = Region {
            name: name.to_owned(),
            key: key.to_owned(),
            offset,
            byte_size,
            object,
            writes: Arc::clone(&registered.writes),
            _place: place,
        };
        registered.regions.insert(name.to_owned(), Arc::new(region));
        Ok(())
    }

    /// Forgets a region of the owner, if there is one of that name. Calls that use it go on to their end.
    pub fn unregister(&self, owner: &Owner, name: &str) {
        let mut table = self.table.lock();
        if let Some(registered) = table.get_mut(owner) {
            registered.regions.remove(name);
            if registered.regions.is_empty() {
                table.remove(owner);
            }
        }
    }

    /// Forgets all regions of the owner.
    pub fn unregister_all(&self, owner: &Owner) {
        self.table.lock().remove(owner);
    }

    /// The owner's region of that name, or with no name all of them, by name.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn status(&self, owner: &Owner, name: &str) -> Result<Vec<Arc<Region>>, RegionError> {
        if name.is_empty() {
            let table = self.table.lock();
            let all = table.get(owner).map(|it| it.regions.values().cloned());
            return Ok(all.into_iter().flatten().collect());
        }
        let found = self.find(owner, name);
        let found = found.ok_or_else(|| RegionError::NoStatus(shown(name)))?;
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

impl Region {
    /// Name that it was registered under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Key of the object.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Start in the object.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the region.
    #[must_use]
    pub fn byte_size(&self) -> u64 {
        self.byte_size
    }

    /// Whether `byte_size` bytes from `offset` are in the region: at least 1, and all within what was registered.
    ///
    /// # Errors
    /// [`RegionError::Offset`] or [`RegionError::End`].
    pub fn check(&self, offset: u64, byte_size: u64) -> Result<(), RegionError> {
        let (name, region_size) = (|| self.name.clone(), self.byte_size);
        if offset >= region_size {
            return Err(RegionError::Offset {
                name: name(),
                offset,
                region_size,
            });
        }
        match offset.checked_add(byte_size) {
            Some(end) if byte_size > 0 && end <= region_size => Ok(()),
            _ => Err(RegionError::End {
                name: name(),
                byte_size,
                offset,
                region_size,
            }),
        }
    }

    /// A copy of `byte_size` bytes from `offset` of the region.
    ///
    /// # Errors
    /// If they are not in the region, or no longer in its file.
    pub fn read(&self, offset: u64, byte_size: u64) -> Result<Bytes, RegionError> {
        self.check(offset, byte_size)?;
        let failed = |source| self.failed(source);
        let wanted = usize::try_from(byte_size).map_err(|_| failed(NamedError::Memory(usize::MAX)));
        // Within the region, which was within the file: the sum exists.
        let copy = self.object.read(self.offset + offset, wanted?);
        copy.map(Bytes::from_owner).map_err(failed)
    }

    /// Writes `bytes` at `offset` of the region. May wait as long as whoever can write the file likes, so it runs on a
    /// thread for that, one of a few for each owner. Where that is the server's own user alone it runs here: the two
    /// wake-ups of another thread take longer than to copy some hundred kilobytes.
    ///
    /// # Errors
    /// If they are not in the region, or no longer in its file.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn write(self: Arc<Self>, offset: u64, bytes: Bytes) -> Result<(), RegionError> {
        self.check(offset, bytes.len() as u64)?;
        if self.object.is_own() {
            let written = self.object.write(self.offset + offset, &bytes);
            return written.map_err(|source| self.failed(source));
        }
        let name = self.name.clone();
        let unwritten = || RegionError::Unwritten(name);
        let Ok(permit) = Arc::clone(&self.writes).acquire_owned().await else {
            return Err(unwritten());
        };
        let written = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let written = self.object.write(self.offset + offset, &bytes);
            written.map_err(|source| self.failed(source))
        });
        written.await.unwrap_or_else(|_| Err(unwritten()))
    }

    fn failed(&self, source: NamedError) -> RegionError {
        let name = self.name.clone();
        RegionError::Access { name, source }
    }
}

/// A name or a key for a message: what is longer than a name can be is cut.
fn shown(text: &str) -> String {
    text.chars().take(NAME_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests;
