//! The control API over the server's unix sockets, and errors that say what to do.

use std::future::Future;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adjoin_control_api::control::control_client::ControlClient;
use adjoin_control_api::control::{
    ListModelsRequest, ListSessionsRequest, ModelVersion, ServerStatusRequest,
    ServerStatusResponse, Session,
};
use adjoin_control_api::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use adjoin_control_api::{ADMIN_SOCKET, CONTROL_SOCKET};
use clap::Args;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// How long a server may take to answer a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest message of the Open Inference Protocol; as the server takes.
const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// What the server may send before it is told to go on: with HTTP/2's own 64 KiB, a tensor of some
/// hundred KiB would stop and wait several times.
const WINDOW_BYTES: u32 = 64 << 20;
const FRAME_BYTES_MAX: u32 = 1 << 20;

/// Where the server is.
#[derive(Clone, Debug, Args)]
pub struct SocketDirArguments {
    /// Directory of the server's sockets
    #[arg(
        long,
        value_name = "DIR",
        env = "ADJOIN_SOCKET_DIR",
        default_value = "/run/adjoin"
    )]
    pub socket_dir: PathBuf,
}

/// Why the server was not reached, or did not do what it was asked to.
#[derive(Debug, Error)]
pub enum ControlError {
    #[error("no server in {}: {reason}; start one with `adjoin serve --socket-dir {}`, or name another --socket-dir", dir.display(), dir.display())]
    NoServer { dir: PathBuf, reason: &'static str },
    #[error("not permitted to use {}{owner}: {advice}", path.display())]
    NotPermitted {
        path: PathBuf,
        /// User, group and mode, where they can be seen.
        owner: String,
        advice: &'static str,
    },
    #[error("cannot connect to {}: {source}", path.display())]
    Connect {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("what listens at {} does not speak gRPC: {reason}", path.display())]
    NotAServer { path: PathBuf, reason: String },
    #[error("the server did not answer within {} s", .within.as_secs_f64())]
    NoAnswer { within: Duration },
    #[error("{0}")]
    Refused(String),
}

impl From<tonic::Status> for ControlError {
    fn from(status: tonic::Status) -> Self {
        match status.message() {
            "" => Self::Refused(status.code().description().to_owned()),
            message => Self::Refused(message.to_owned()),
        }
    }
}

/// A connection to one of the server's sockets.
async fn channel(
    socket_dir: &Path,
    socket: &str,
    endpoint: Endpoint,
) -> Result<Channel, ControlError> {
    let path = socket_dir.join(socket);
    let stream = UnixStream::connect(&path).await;
    let stream = stream.map_err(|error| connect_error(socket_dir, &path, error))?;
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| std::io::Error::other("the server has ended")) }
    });
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|error| ControlError::NotAServer {
        path,
        reason: error.to_string(),
    })
}

/// A connection to the socket that every client may reach.
pub async fn control_channel(socket_dir: &Path) -> Result<Channel, ControlError> {
    channel(socket_dir, CONTROL_SOCKET, endpoint()).await
}

/// A connection to the socket of the server's own user.
pub async fn admin_channel(socket_dir: &Path) -> Result<Channel, ControlError> {
    channel(socket_dir, ADMIN_SOCKET, endpoint()).await
}

/// What connections to a unix socket begin with; the name goes nowhere.
fn endpoint() -> Endpoint {
    Endpoint::from_static("http://adjoin")
}

/// A client of the Open Inference Protocol, for tensors in messages.
pub async fn inference_client(
    socket_dir: &Path,
) -> Result<GrpcInferenceServiceClient<Channel>, ControlError> {
    let channel = channel(socket_dir, CONTROL_SOCKET, for_tensors(endpoint())).await?;
    Ok(inference_client_on(channel))
}

/// An endpoint whose connections take whole tensors without stopping.
pub fn for_tensors(endpoint: Endpoint) -> Endpoint {
    endpoint
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
}

/// A client of the Open Inference Protocol on a connection that there is.
pub fn inference_client_on(channel: Channel) -> GrpcInferenceServiceClient<Channel> {
    GrpcInferenceServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

fn connect_error(socket_dir: &Path, path: &Path, error: std::io::Error) -> ControlError {
    let no_server = |reason| ControlError::NoServer {
        dir: socket_dir.to_owned(),
        reason,
    };
    match error.kind() {
        ErrorKind::NotFound if socket_dir.is_dir() => no_server("its sockets are not there"),
        ErrorKind::NotFound => no_server("there is no such directory"),
        ErrorKind::ConnectionRefused => no_server("the one that made the sockets has ended"),
        ErrorKind::PermissionDenied => {
            let is_admin = path.ends_with(ADMIN_SOCKET);
            ControlError::NotPermitted {
                path: path.to_owned(),
                owner: owner(path),
                advice: if is_admin {
                    "run this as the server's own user"
                } else {
                    "run this as its user or in its group, or have the operator set server.socket_mode"
                },
            }
        }
        _ => ControlError::Connect {
            path: path.to_owned(),
            source: error,
        },
    }
}

fn owner(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(file) => format!(
            " (user {}, group {}, mode {:o})",
            file.uid(),
            file.gid(),
            file.mode() & 0o777
        ),
        Err(_) => String::new(),
    }
}

/// Waits for an answer, but not for ever.
pub async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, ControlError> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(ControlError::NoAnswer { within: limit }),
    }
}

/// As [`within`], with the usual limit.
pub async fn answered<T>(
    answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, ControlError> {
    within(ANSWER_TIMEOUT, answer).await
}

/// Asks a server about itself.
#[derive(Clone, Debug)]
pub struct Control {
    client: ControlClient<Channel>,
}

impl Control {
    pub async fn connect(socket_dir: &Path) -> Result<Self, ControlError> {
        let channel = control_channel(socket_dir).await?;
        // A repository with some thousands of versions makes more than the usual 4 MiB.
        let client = ControlClient::new(channel).max_decoding_message_size(64 << 20);
        Ok(Self { client })
    }

    /// All versions of all models, by name and number.
    pub async fn models(&mut self) -> Result<Vec<ModelVersion>, ControlError> {
        let answer = answered(self.client.list_models(ListModelsRequest {})).await?;
        Ok(answer.models)
    }

    pub async fn sessions(&mut self) -> Result<Vec<Session>, ControlError> {
        let answer = answered(self.client.list_sessions(ListSessionsRequest {})).await?;
        Ok(answer.sessions)
    }

    pub async fn status(&mut self) -> Result<ServerStatusResponse, ControlError> {
        answered(self.client.server_status(ServerStatusRequest {})).await
    }

    /// The newest ready version of a model, as it would serve a request that names none.
    pub async fn ready_model(&mut self, name: &str) -> Result<ModelVersion, ControlError> {
        let models = self.models().await?;
        let mut ready = models.iter().filter(|model| model.state == "ready");
        let of_name = |model: &&ModelVersion| model.name == name;
        if let Some(found) = ready
            .by_ref()
            .filter(of_name)
            .max_by_key(|model| model.version)
        {
            return Ok(found.clone());
        }
        let failed = models
            .iter()
            .find(|model| model.name == name && !model.reason.is_empty());
        Err(ControlError::Refused(match failed {
            Some(failed) => format!("model {name:?} failed to load: {}", failed.reason),
            None => {
                let names: Vec<_> = models.iter().map(|model| model.name.as_str()).collect();
                format!(
                    "the server has no model {name:?}; it has {}",
                    names.join(", ")
                )
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(dir: &Path) -> ControlError {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(Control::connect(dir)).unwrap_err()
    }

    #[test]
    fn each_way_of_not_being_there_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let text = connect(&dir.path().join("none")).to_string();
        assert!(
            text.contains("there is no such directory") && text.contains("adjoin serve"),
            "{text}"
        );
        let text = connect(dir.path()).to_string();
        assert!(text.contains("its sockets are not there"), "{text}");
        drop(std::os::unix::net::UnixListener::bind(dir.path().join(CONTROL_SOCKET)).unwrap());
        let text = connect(dir.path()).to_string();
        assert!(text.contains("has ended"), "{text}");
    }
}
