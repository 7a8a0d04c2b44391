//! Devices that read and write the memory of sessions by themselves.
//!
//! A device is opened when an engine wants it. From then on the regions of each session are registered with its driver
//! when the session opens, off the path of requests, and until that is done, or where it cannot be, batches of the session
//! are staged and counted as such. When the session ends its memory stays until the device has let go of it.
//!
//! A client may also share memory of the device with the server ([`Devices::import`]): what it sends and gets then stays on
//! the device.
//!
//! An error that spoils the device's context takes everything with it that was made there. [`Devices::rebuild`] makes a new
//! context, in which the regions of all sessions are registered again; models are loaded anew by who calls it.
//!
//! Without the feature `cuda` there are no devices.

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(not(feature = "cuda"))]
mod none;
#[cfg(feature = "cuda")]
mod probe;
#[cfg_attr(
    not(feature = "cuda"),
    allow(dead_code, reason = "nothing is shared without a device")
)]
mod quota;

use std::time::Duration;

use thiserror::Error;

#[cfg(feature = "cuda")]
pub use cuda::{DeviceRegion, Devices, Registered, SharedMemory};
#[cfg(not(feature = "cuda"))]
pub use none::{DeviceRegion, Devices, Registered, SharedMemory};
pub use quota::Sharer;

/// `[cuda]` of the configuration, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSettings {
    /// Number of the device, from 0, in the order of the driver (`CUDA_VISIBLE_DEVICES`).
    pub device: u32,
    /// Bytes of sessions' regions that may be pinned.
    pub registered_bytes: u64,
    /// Bytes of pinned memory for what is not registered.
    pub staging_bytes: usize,
    /// How often a device that was lost is brought back, until it has worked for a while; 0: never.
    pub recovery_attempts: u32,
    /// For how long, at most, a thread looks at the end of a batch before it sleeps until the driver wakes it.
    pub spin: Duration,
    /// Regions on the device that a session may share.
    pub shared_regions: u32,
    /// Bytes of them all.
    pub shared_session_bytes: u64,
    /// Bytes that all sessions of a user may share.
    pub shared_user_bytes: u64,
}

impl Default for DeviceSettings {
    fn default() -> Self {
        Self {
            device: 0,
            registered_bytes: 4 << 30,
            staging_bytes: 256 << 20,
            recovery_attempts: 5,
            spin: Duration::from_micros(200),
            shared_regions: 64,
            shared_session_bytes: 8 << 30,
            shared_user_bytes: 16 << 30,
        }
    }
}

/// Bytes that went one way between host and device, by path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BytesByPath {
    /// Between a registered region and the device: no processor touched them.
    pub direct: u64,
    /// Through pinned staging memory.
    pub staged: u64,
    /// Through the driver's own staging memory.
    pub pageable: u64,
}

/// Bytes that were copied from one place of the device to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BytesWithin {
    /// From regions that clients share, to batches.
    pub gathered: u64,
    /// From batches to such regions.
    pub scattered: u64,
}

/// Numbers of a device, as of now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceNumbers {
    /// The device, as the driver calls it.
    pub name: String,
    /// From host to device.
    pub to_device: BytesByPath,
    /// From device to host.
    pub to_host: BytesByPath,
    /// Within the device.
    pub within: BytesWithin,
    /// Regions on the device that clients share.
    pub shared_regions: usize,
    /// Bytes of them.
    pub shared_bytes: u64,
    /// Bytes of regions that may be registered.
    pub budget_bytes: u64,
    /// Bytes that are.
    pub registered_bytes: u64,
    /// Regions that the device reads and writes by itself.
    pub registered: usize,
    /// Regions that wait to be registered.
    pub pending: usize,
    /// Regions that cannot be registered, and are staged.
    pub refused: usize,
    /// Regions of sessions that are over, which the device has not let go of.
    pub retired: usize,
    /// Whether the device works: false from an error that spoiled its context until it is brought back.
    pub is_working: bool,
    /// Times that it was brought back.
    pub resets: u64,
    /// Times that this was tried, and failed.
    pub failed_resets: u64,
}

/// What a device is, and whether it can do what a server wants of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceProbe {
    /// Number of the device, from 0.
    pub index: u32,
    /// As the driver calls it.
    pub name: String,
    /// The newest CUDA release that the driver supports, major and minor.
    pub driver: (u32, u32),
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// Bytes of it that are free.
    pub free_bytes: u64,
    /// Bytes of sessions' regions that may be registered.
    pub budget_bytes: u64,
    /// Bytes of a session that was made to try it and could be registered, or why not.
    pub registration: Result<u64, String>,
}

/// Why there is no device.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The driver, or what it says.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] adjoin_cuda::CudaError),
    /// Another engine has tried it before.
    #[error("the device could not be opened: {0}")]
    Before(String),
    /// No engine and no configuration has asked for one.
    #[error("this server uses no GPU; [cuda] of the configuration has it use one")]
    NotInUse,
    /// Memory of another device than the one that is in use.
    #[error("the memory is of device {device}, and this server uses device {used}")]
    Other {
        /// What was named.
        device: i64,
        /// What there is.
        used: u32,
    },
    /// The same, where the client names the device by its UUID, or the driver says what the memory is.
    #[error("the memory is on another device than this server uses")]
    OtherUuid,
    /// A session that shares as many regions as it may.
    #[error(
        "the session shares {limit} regions on the device, which is all that cuda.shared_regions allows"
    )]
    TooManyRegions {
        /// How many.
        limit: u32,
    },
    /// More memory of the device than a session or a user may share.
    #[error(
        "{wanted} bytes of device memory are to be shared and {left} are left of cuda.shared_session_bytes or \
         cuda.shared_user_bytes"
    )]
    Quota {
        /// Bytes that were to be shared.
        wanted: u64,
        /// Bytes that may be.
        left: u64,
    },
    /// What should name memory of another process does not.
    #[error("a handle of CUDA's has 64 bytes, and this one has {handle_bytes}")]
    Handle {
        /// Bytes of it.
        handle_bytes: usize,
    },
    /// This program cannot use any.
    #[error("this build uses no GPU; build it with the feature \"cuda\"")]
    NotBuilt,
}
