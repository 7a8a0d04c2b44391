//! `adjoin.Client` and `adjoin.connect`.

use std::path::PathBuf;
use std::sync::Arc;

use adjoin_client::ClientOptions;
use pyo3::prelude::*;

use crate::connection::Connection;
use crate::device::{self, DeviceRegion};
use crate::fault::{self, Fault};
use crate::model::Model;
use crate::options::seconds;

/// Where servers put their sockets unless told otherwise.
const DEFAULT_DIR: &str = "/run/adjoin";

/// A session with a server. Made by `adjoin.connect`.
///
/// Threads may share it. A forked child may not use its parent's: every operation there raises
/// `Forked`. When the server is gone, the next operation that needs one connects to its successor.
#[pyclass(frozen, module = "adjoin")]
#[derive(Debug)]
pub(crate) struct Client {
    inner: adjoin_client::Client,
    connection: Arc<Connection>,
}

/// Connects to the server of this node.
///
/// Parameters
/// ----------
/// dir : path, optional
///     Directory with the server's sockets. Default: the environment's ADJOIN_SOCKET_DIR, or /run/adjoin.
/// request_bytes : int
///     Bytes of the region in which inputs lie: all requests that exist at one time must fit.
/// response_bytes : int
///     Bytes of the region in which outputs lie until they are released.
/// ring_entries : int
///     Most requests in flight at once: a power of two from 8 to 4096.
/// name : str
///     What the client calls itself in `adjoin sessions`; cut after 64 bytes.
/// spin : float
///     Seconds for which a wait looks for its answer before it sleeps, at most 0.02. 0 sleeps at once.
/// answer_timeout : float
///     Seconds that the server may take to open a session or to describe a model.
/// reconnect_timeout : float
///     Seconds for which an operation that finds its session dead tries to open another one; 0 tries once.
///
/// Raises
/// ------
/// ServerUnavailable, PermissionDenied, SessionRefused, ProtocolMismatch, ProtocolError
#[pyfunction]
#[pyo3(signature = (dir=None, *, request_bytes=16777216, response_bytes=16777216, ring_entries=256, name="", spin=100e-6, answer_timeout=5.0, reconnect_timeout=0.0))]
#[expect(
    clippy::too_many_arguments,
    reason = "they have names where this is called"
)]
pub(crate) fn connect(
    py: Python<'_>,
    dir: Option<PathBuf>,
    request_bytes: u64,
    response_bytes: u64,
    ring_entries: u32,
    name: &str,
    spin: f64,
    answer_timeout: f64,
    reconnect_timeout: f64,
) -> PyResult<Client> {
    let dir = dir.or_else(|| std::env::var_os("ADJOIN_SOCKET_DIR").map(PathBuf::from));
    let dir = dir.unwrap_or_else(|| DEFAULT_DIR.into());
    let options = ClientOptions::new()
        .request_bytes(request_bytes)
        .response_bytes(response_bytes)
        .ring_entries(ring_entries)
        .name(name)
        .spin(seconds("spin", spin)?)
        .answer_timeout(seconds("answer_timeout", answer_timeout)?)
        .reconnect_timeout(seconds("reconnect_timeout", reconnect_timeout)?)
        .interrupt(fault::is_interrupted);
    let inner = py
        .detach(|| options.connect(dir))
        .map_err(|error| fault::of_connect(&error))?;
    let connection = Arc::default();
    Ok(Client { inner, connection })
}

#[pymethods]
impl Client {
    /// Asks the server about a model.
    ///
    /// Parameters
    /// ----------
    /// name : str
    ///     Name of the model.
    /// version : int, optional
    ///     Version that all requests are for. Default: the newest that is ready, at each request.
    /// label : str, optional
    ///     Label of a version, such as "stable", that the server looks up at each request.
    ///
    /// Raises
    /// ------
    /// ModelNotFound, VersionNotFound, ModelNotReady, ServerUnavailable
    /// InvalidRequest
    ///     Both a version and a label.
    #[pyo3(signature = (name, *, version=None, label=None))]
    fn model(
        &self,
        py: Python<'_>,
        name: &str,
        version: Option<u64>,
        label: Option<&str>,
    ) -> PyResult<Model> {
        self.connection.check()?;
        if let (Some(version), Some(label)) = (version, label) {
            let message = format!(
                "model {name:?} is asked for by version {version} and by label {label:?}; give one of them"
            );
            return Err(fault::raise("InvalidRequest", message));
        }
        let asked = py.detach(|| {
            let model = self.inner.model(name)?;
            match (version, label) {
                (Some(version), _) => model.version(version),
                (None, Some(label)) => model.label(label),
                (None, None) => Ok(model),
            }
        });
        Model::new(py, asked.map_err(Fault::from)?, &self.connection)
    }

    /// Makes memory on a GPU and attaches it to the session, for tensors of requests that stay on the device.
    ///
    /// Parameters
    /// ----------
    /// byte_size : int
    ///     Bytes that are wanted; some megabytes at least are taken.
    /// device : int
    ///     Number of the GPU in the driver's order, in its primary context, which PyTorch and CuPy use too.
    ///
    /// Raises
    /// ------
    /// DeviceUnavailable
    ///     There is no driver or no such GPU here, the server uses none or another one, or the session or its user
    ///     has as much attached as it may.
    #[pyo3(signature = (byte_size, *, device=0))]
    fn device_region(
        &self,
        py: Python<'_>,
        byte_size: usize,
        device: u32,
    ) -> PyResult<DeviceRegion> {
        self.connection.check()?;
        device::make(py, &self.inner, byte_size, device)
    }

    /// Ends the session.
    ///
    /// Its models and requests raise `Closed` from then on. Arrays over inputs and outputs stay readable,
    /// and the session's memory goes back with the last of them.
    fn close(&self) {
        self.connection.close();
    }

    /// Whether `close` was called.
    #[getter]
    fn closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Directory that the client was connected by.
    #[getter]
    fn socket_dir(&self) -> String {
        self.inner.socket_dir().display().to_string()
    }

    /// Number of the session, unique in the life of the server; 0 in a forked child.
    #[getter]
    fn session_id(&self) -> u64 {
        self.inner.session_id()
    }

    /// Release of the server; empty in a forked child.
    #[getter]
    fn server_version(&self) -> String {
        self.inner.server_version()
    }

    /// Most requests in flight at once.
    #[getter]
    fn in_flight_max(&self) -> usize {
        self.inner.in_flight_max()
    }

    /// How often a new session took the place of one that was over.
    #[getter]
    fn reconnects(&self) -> u64 {
        self.inner.reconnects()
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, pyo3::types::PyTuple>) {
        self.close();
    }

    fn __repr__(&self) -> String {
        let state = if self.connection.is_closed() {
            ", closed"
        } else {
            ""
        };
        format!("<adjoin.Client {:?}{state}>", self.socket_dir())
    }
}
