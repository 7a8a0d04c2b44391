//! Listens on both sockets until a signal comes.

use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::api::csi::identity_server::IdentityServer;
use crate::api::csi::node_server::NodeServer;
use crate::api::registration::registration_server::RegistrationServer;
use crate::driver::Driver;
use crate::publish::{PublishError, Publisher};
use crate::registration::Registrar;

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Socket of the driver.
    pub endpoint: PathBuf,
    /// The same as the kubelet sees it.
    pub kubelet_endpoint: String,
    /// Socket of the registration, in the kubelet's folder for these.
    pub registration: PathBuf,
    /// Socket directory of the node's server.
    pub socket_dir: PathBuf,
    /// Directory of the kubelet's pods.
    pub pods_dir: PathBuf,
    /// Name of the node.
    pub node_name: String,
}

/// Why the driver did not start, or ended.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The directory of pods cannot be used.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A socket cannot be listened on.
    #[error("cannot listen on {}: {source}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Signals cannot be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
    /// The services ended.
    #[error("cannot serve: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves until SIGTERM or SIGINT. What is published stays: pods outlive a driver.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(options: Options) -> Result<(), ServeError> {
    let driver = Driver {
        publisher: Publisher::new(&options.socket_dir, &options.pods_dir)?,
        node_name: options.node_name,
    };
    let registrar = Registrar {
        endpoint: options.kubelet_endpoint,
    };
    let driver_listener = listen(&options.endpoint)?;
    // The kubelet calls the driver as soon as it sees this socket.
    let registration_listener = listen(&options.registration)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    tracing::info!(
        socket_dir = %options.socket_dir.display(),
        pods_dir = %options.pods_dir.display(),
        "serving"
    );
    let driving = Server::builder()
        .add_service(IdentityServer::new(driver.clone()))
        .add_service(NodeServer::new(driver))
        .serve_with_incoming(UnixListenerStream::new(driver_listener));
    let registering = Server::builder()
        .add_service(RegistrationServer::new(registrar))
        .serve_with_incoming(UnixListenerStream::new(registration_listener));
    // A mount is one step without an await in it, so none is left half done.
    tokio::select! {
        ended = driving => ended?,
        ended = registering => ended?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // Without the registration's socket the kubelet knows that the driver is gone.
    for path in [&options.registration, &options.endpoint] {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Listens on a socket, in the place of one that a former driver left.
fn listen(path: &Path) -> Result<UnixListener, ServeError> {
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path).map_err(|source| ServeError::Listen {
        path: path.to_owned(),
        source,
    })
}
