//! TensorRT as an engine of this server: its library, on the server's device.

use std::path::Path;
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
    let path = match TensorRtBackend::find(named) {
        Ok(path) => path,
        Err(error) if named.is_some() => return Err(error),
        Err(_) => return Ok(None),
    };
    let devices = devices.clone();
    let opened = TensorRtBackend::open(&path, move || {
        devices.open().map_err(|error| error.to_string())
    });
    match opened {
        Ok(backend) => Ok(Some(Arc::new(backend))),
        Err(error) if named.is_some() => Err(error),
        Err(error) => {
            tracing::warn!(%error, "serving without TensorRT");
            Ok(None)
        }
    }
}
