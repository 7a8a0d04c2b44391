//! Bytes that went to and from a device, by path, and within it. Plain atomics: the server's metrics read them.

use std::sync::atomic::{AtomicU64, Ordering};

/// How bytes came to the device or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// By the copy engine, or a kernel, between a registered region and the device: no processor touched them.
    Direct,
    /// Through pinned staging memory: one copy by a processor.
    Staged,
    /// From or to memory that the driver itself had to stage: one copy by a processor, and the device waited for.
    Pageable,
}

impl Path {
    /// All paths, in the order of [`CopiedBytes`].
    pub const ALL: [Self; 3] = [Self::Direct, Self::Staged, Self::Pageable];

    /// The label in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Staged => "staged",
            Self::Pageable => "pageable",
        }
    }
}

/// Bytes by path, counted when the copy is asked for.
#[derive(Debug, Default)]
pub struct CopiedBytes([AtomicU64; 3]);

impl CopiedBytes {
    pub(crate) fn add(&self, path: Path, byte_size: usize) {
        self.0[path as usize].fetch_add(byte_size as u64, Ordering::Relaxed);
    }

    /// Bytes that took `path` so far.
    #[must_use]
    pub fn get(&self, path: Path) -> u64 {
        self.0[path as usize].load(Ordering::Relaxed)
    }

    /// Bytes that a processor copied.
    #[must_use]
    pub fn by_processor(&self) -> u64 {
        self.get(Path::Staged) + self.get(Path::Pageable)
    }
}

/// Bytes that never left the device.
#[derive(Debug, Default)]
pub struct CopiedWithin {
    gathered: AtomicU64,
    scattered: AtomicU64,
}

impl CopiedWithin {
    pub(crate) fn add_gathered(&self, byte_size: usize) {
        let byte_size = byte_size as u64;
        self.gathered.fetch_add(byte_size, Ordering::Relaxed);
    }

    pub(crate) fn add_scattered(&self, byte_size: usize) {
        let byte_size = byte_size as u64;
        self.scattered.fetch_add(byte_size, Ordering::Relaxed);
    }

    /// Of inputs.
    #[must_use]
    pub fn gathered(&self) -> u64 {
        self.gathered.load(Ordering::Relaxed)
    }

    /// Of outputs.
    #[must_use]
    pub fn scattered(&self) -> u64 {
        self.scattered.load(Ordering::Relaxed)
    }
}

/// What one device has moved.
#[derive(Debug, Default)]
pub struct Counters {
    /// From host to device.
    pub to_device: CopiedBytes,
    /// From device to host.
    pub to_host: CopiedBytes,
    /// From the memory that clients share on the device to batches, and back.
    pub within: CopiedWithin,
    gathers: [AtomicU64; 4],
}

/// How the pieces of a batch are brought together on the device, or taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyForm {
    /// They lie side by side: one copy.
    Contiguous,
    /// One asynchronous copy for each piece.
    Copies,
    /// One call of the driver for all pieces (driver 570 and later).
    Batched,
    /// One kernel that reads or writes the host's memory itself; best for small pieces.
    Kernel,
}

impl CopyForm {
    /// All forms.
    pub const ALL: [Self; 4] = [Self::Contiguous, Self::Copies, Self::Batched, Self::Kernel];

    /// The label in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Contiguous => "contiguous",
            Self::Copies => "copies",
            Self::Batched => "batched",
            Self::Kernel => "kernel",
        }
    }
}

impl Counters {
    pub(crate) fn used(&self, form: CopyForm) {
        self.gathers[form as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes that an engine brought to memory of the host by itself, which is not pinned.
    pub fn engine_brought_to_host(&self, byte_size: usize) {
        self.to_host.add(Path::Pageable, byte_size);
    }

    /// Gathers and scatters that took `form` so far.
    #[must_use]
    pub fn uses(&self, form: CopyForm) -> u64 {
        self.gathers[form as usize].load(Ordering::Relaxed)
    }
}
