//! One region, and how its bytes come and go.

use std::sync::Arc;

use adjoin_shm::{AlignedBytes, NamedError, NamedObject};
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::{AccessError, RegionError};
use super::{Place, RegionKind};
use crate::devices::SharedMemory;

/// A registered region. Whoever holds it can finish with it, registered or not.
#[derive(Debug)]
pub struct Region {
    name: String,
    byte_size: u64,
    backing: Backing,
    writes: Arc<Semaphore>,
    _place: Place,
}

/// Where a region's bytes are.
#[derive(Debug)]
pub(super) enum Backing {
    /// In an object beneath the operator's directory.
    Object {
        key: String,
        offset: u64,
        object: NamedObject,
    },
    /// In memory of a device.
    Device { device: i64, memory: SharedMemory },
}

impl Backing {
    /// A copy of bytes that are in the region.
    fn read(&self, at: u64, byte_size: u64) -> Result<AlignedBytes, AccessError> {
        match self {
            Self::Object { offset, object, .. } => {
                let wanted = usize::try_from(byte_size);
                let wanted = wanted.map_err(|_| NamedError::Memory(usize::MAX))?;
                // Within the region, which was within the file: the sum exists.
                Ok(object.read(offset + at, wanted)?)
            }
            Self::Device { memory, .. } => Ok(memory.read(at, byte_size)?),
        }
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), AccessError> {
        match self {
            Self::Object { offset, object, .. } => Ok(object.write(offset + at, bytes)?),
            Self::Device { memory, .. } => Ok(memory.write(at, bytes)?),
        }
    }

    /// Whether nobody else can keep a write waiting.
    fn is_own(&self) -> bool {
        match self {
            Self::Object { object, .. } => object.is_own(),
            // Who uses the device may.
            Self::Device { .. } => false,
        }
    }
}

impl Region {
    /// A region that has its place.
    pub(super) fn new(
        name: String,
        byte_size: u64,
        backing: Backing,
        writes: Arc<Semaphore>,
        place: Place,
    ) -> Self {
        Self {
            name,
            byte_size,
            backing,
            writes,
            _place: place,
        }
    }

    /// Where its bytes are.
    #[must_use]
    pub fn kind(&self) -> RegionKind {
        match self.backing {
            Backing::Object { .. } => RegionKind::System,
            Backing::Device { .. } => RegionKind::Cuda,
        }
    }

    /// Name that it was registered under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Key of the object and start in it; nothing for memory of a device.
    #[must_use]
    pub fn object(&self) -> (&str, u64) {
        match &self.backing {
            Backing::Object { key, offset, .. } => (key, *offset),
            Backing::Device { .. } => ("", 0),
        }
    }

    /// Number of the device; 0 for an object.
    #[must_use]
    pub fn device(&self) -> u64 {
        match self.backing {
            Backing::Object { .. } => 0,
            Backing::Device { device, .. } => u64::try_from(device).unwrap_or_default(),
        }
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
        let copy = self.backing.read(offset, byte_size);
        copy.map(Bytes::from_owner)
            .map_err(|source| self.failed(source))
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
        if self.backing.is_own() {
            let written = self.backing.write(offset, &bytes);
            return written.map_err(|source| self.failed(source));
        }
        let name = self.name.clone();
        let unwritten = || RegionError::Unwritten(name);
        let Ok(permit) = Arc::clone(&self.writes).acquire_owned().await else {
            return Err(unwritten());
        };
        let written = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let written = self.backing.write(offset, &bytes);
            written.map_err(|source| self.failed(source))
        });
        written.await.unwrap_or_else(|_| Err(unwritten()))
    }

    fn failed(&self, source: AccessError) -> RegionError {
        let name = self.name.clone();
        RegionError::Access { name, source }
    }
}
