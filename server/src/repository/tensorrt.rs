//! TensorRT as an engine of this server: its library, on the server's device.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use adjoin_backend::{Backend, BackendError};
use adjoin_backend_tensorrt::TensorRtBackend;

use crate::devices::Devices;

/// TensorRT, if it is on this machine with a device.
///
/// # Errors
/// If its library was named, and it or a device cannot be used.
pub(super) fn open(
    named: Option<&Path>,
    devices: &Devices,
) -> Result<Option<Arc<dyn Backend>>, BackendError> {
    match open_tensorrt(named, devices) {
        Ok(backend) => Ok(Some(backend)),
        Err(error) if named.is_some() => Err(error),
        Err(BackendError::LibraryMissing { .. }) => Ok(None),
        Err(error) => {
            tracing::warn!(%error, "serving without TensorRT");
            Ok(None)
        }
    }
}

/// Where TensorRT's library is.
///
/// # Errors
/// The places that were looked at.
pub fn find_tensorrt(named: Option<&Path>) -> Result<PathBuf, BackendError> {
    TensorRtBackend::find(named)
}

/// TensorRT on the device of `devices`.
///
/// # Errors
/// If its library is not there, or it or the device cannot be used.
pub fn open_tensorrt(
    named: Option<&Path>,
    devices: &Devices,
) -> Result<Arc<dyn Backend>, BackendError> {
    let path = find_tensorrt(named)?;
    let devices = devices.clone();
    let backend = TensorRtBackend::open(&path, move || {
        devices.open().map_err(|error| error.to_string())
    })?;
    Ok(Arc::new(backend))
}
