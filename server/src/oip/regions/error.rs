//! What can be wrong with a region, in words that clients know.

use adjoin_oip::{Fault, Kind};
use adjoin_shm::NamedError;
use thiserror::Error;

use super::{NAME_BYTES_MAX, RegionKind};
use crate::devices::DeviceError;

/// Why a region cannot be registered or used. Where Triton has words for it, clients look for them.
#[derive(Debug, Error)]
pub enum RegionError {
    /// The operator has not switched it on.
    #[error("named shared memory is off; start the server with --allow-named-shm /dev/shm")]
    Off,
    /// No name for a region.
    #[error("a shared memory region's name has {0} bytes; it has 1 to {NAME_BYTES_MAX}")]
    Name(usize),
    /// The owner has one of this name.
    #[error("shared memory region '{0}' already in manager")]
    AlreadyThere(String),
    /// The owner has none of this name.
    #[error("Unable to find shared memory region: '{0}'")]
    NotFound(String),
    /// As before, where the protocol asks about the region itself.
    #[error("Unable to find {kind} shared memory region: '{name}'")]
    NoStatus {
        /// What was asked for.
        kind: RegionKind,
        /// Its name, or the beginning of it.
        name: String,
    },
    /// The key names nothing that can be a region.
    #[error("Unable to open shared memory region: '{key}': {source}")]
    Open {
        /// The caller's key, or its beginning.
        key: String,
        /// Why.
        source: NamedError,
    },
    /// The handle names no memory of the device that can be a region.
    #[error("failed to register shared memory region '{name}': {source}")]
    OpenDevice {
        /// The region.
        name: String,
        /// Why.
        source: DeviceError,
    },
    /// It would reach past its file, or be empty.
    #[error(
        "failed to register shared memory region '{name}': invalid args: {byte_size} bytes at offset {offset} of {file_size}; expected at least 1 byte, all within them"
    )]
    Extent {
        /// The region.
        name: String,
        /// Bytes of the region.
        byte_size: u64,
        /// Its start in the file.
        offset: u64,
        /// Bytes of the file.
        file_size: u64,
    },
    /// There are as many as may be.
    #[error(
        "shared memory region '{name}' is one too many: {count_max} regions are the most{whose}"
    )]
    TooMany {
        /// The region.
        name: String,
        /// How many there may be.
        count_max: usize,
        /// Whose they are.
        whose: &'static str,
    },
    /// It begins past the region.
    #[error("Invalid offset for shared memory region: '{name}': {offset}, in {region_size} bytes")]
    Offset {
        /// The region.
        name: String,
        /// Where it begins.
        offset: u64,
        /// Bytes of the region.
        region_size: u64,
    },
    /// It ends past the region, or is empty.
    #[error(
        "Invalid offset + byte size for shared memory region: '{name}': {byte_size} bytes at {offset}, in {region_size} bytes"
    )]
    End {
        /// The region.
        name: String,
        /// How long it is.
        byte_size: u64,
        /// Where it begins.
        offset: u64,
        /// Bytes of the region.
        region_size: u64,
    },
    /// One call wants more copied than it may.
    #[error(
        "shared memory region '{name}': {byte_size} bytes; one call may read {left} more, and {call_bytes_max} in all"
    )]
    CallBytes {
        /// The region.
        name: String,
        /// What is wanted.
        byte_size: u64,
        /// What is left of what a call may.
        left: u64,
        /// What a call may.
        call_bytes_max: u64,
    },
    /// Its file is no longer what it was, or the system failed.
    #[error("shared memory region '{name}': {source}")]
    Access {
        /// The region.
        name: String,
        /// Why.
        source: AccessError,
    },
    /// The thread that wrote it has ended.
    #[error("shared memory region '{0}' could not be written")]
    Unwritten(String),
}

/// Why bytes did not come or go.
#[derive(Debug, Error)]
pub enum AccessError {
    /// The object.
    #[error(transparent)]
    Object(#[from] NamedError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

fn of_object(error: &NamedError) -> Kind {
    match error {
        NamedError::System { .. } => Kind::Internal,
        NamedError::Memory(_) | NamedError::FileSize { .. } => Kind::ResourceExhausted,
        _ => Kind::InvalidArgument,
    }
}

impl From<RegionError> for Fault {
    fn from(error: RegionError) -> Self {
        use RegionError as E;
        let kind = match &error {
            E::Off => Kind::Unsupported,
            E::Name(_) | E::Extent { .. } | E::Offset { .. } | E::End { .. } => {
                Kind::InvalidArgument
            }
            E::AlreadyThere(_) => Kind::AlreadyExists,
            E::NotFound(_) | E::NoStatus { .. } => Kind::NotFound,
            E::TooMany { .. } | E::CallBytes { .. } => Kind::ResourceExhausted,
            E::Open { source, .. } => of_object(source),
            E::OpenDevice { source, .. } => match source {
                DeviceError::NotBuilt | DeviceError::NotInUse => Kind::Unsupported,
                _ => Kind::InvalidArgument,
            },
            E::Access { source, .. } => match source {
                AccessError::Object(source) => of_object(source),
                AccessError::Device(_) => Kind::Unavailable,
            },
            E::Unwritten(_) => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}
