//! The control API, called from tests.

use std::path::Path;

use adjoin_control_api::control as api;
use adjoin_control_api::control::admin_client::AdminClient;
use adjoin_control_api::control::control_client::ControlClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// A channel to a unix socket, and the runtime that it lives in.
#[derive(Debug)]
pub struct ControlPlane {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

impl ControlPlane {
    /// Connects to a socket of a server.
    #[must_use]
    pub fn connect(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let path = socket.to_owned();
        let connect = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://adjoin");
        let channel = runtime
            .block_on(endpoint.connect_with_connector(connect))
            .unwrap();
        Self { runtime, channel }
    }

    /// The channel, for clients of any service.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The runtime, for callers that keep the channel.
    #[must_use]
    pub fn into_runtime(self) -> tokio::runtime::Runtime {
        self.runtime
    }

    /// Runs a call to its end.
    pub fn wait<T>(&self, call: impl Future<Output = T>) -> T {
        self.runtime.block_on(call)
    }

    /// All model versions.
    #[must_use]
    pub fn models(&self) -> Vec<api::ModelVersion> {
        let mut client = ControlClient::new(self.channel());
        self.wait(client.list_models(api::ListModelsRequest {}))
            .unwrap()
            .into_inner()
            .models
    }

    /// Statistics of version 1 of a model.
    #[must_use]
    pub fn statistics(&self, model: &str) -> api::ModelStatistics {
        let found = self
            .models()
            .into_iter()
            .find(|version| version.name == model && version.version == 1);
        found.and_then(|version| version.statistics).unwrap()
    }

    /// All sessions.
    #[must_use]
    pub fn sessions(&self) -> Vec<api::Session> {
        let mut client = ControlClient::new(self.channel());
        self.wait(client.list_sessions(api::ListSessionsRequest {}))
            .unwrap()
            .into_inner()
            .sessions
    }

    /// The server's state.
    #[must_use]
    pub fn status(&self) -> api::ServerStatusResponse {
        let mut client = ControlClient::new(self.channel());
        self.wait(client.server_status(api::ServerStatusRequest {}))
            .unwrap()
            .into_inner()
    }

    /// Loads a model; only on the admin socket.
    ///
    /// # Errors
    /// The call's.
    pub fn load(&self, name: &str) -> Result<(), Box<tonic::Status>> {
        self.load_as(name, "")
    }

    /// Loads a model with a configuration in JSON in place of its file; only on the admin socket.
    ///
    /// # Errors
    /// The call's.
    pub fn load_as(&self, name: &str, config: &str) -> Result<(), Box<tonic::Status>> {
        let mut client = AdminClient::new(self.channel());
        let request = api::LoadModelRequest {
            name: name.into(),
            config: config.into(),
        };
        let loaded = self.wait(client.load_model(request));
        loaded.map(drop).map_err(Box::new)
    }

    /// Unloads a model; only on the admin socket.
    ///
    /// # Errors
    /// The call's.
    pub fn unload(&self, name: &str) -> Result<(), Box<tonic::Status>> {
        let mut client = AdminClient::new(self.channel());
        let request = api::UnloadModelRequest { name: name.into() };
        let unloaded = self.wait(client.unload_model(request));
        unloaded.map(drop).map_err(Box::new)
    }

    /// Has a label name a version; only on the admin socket.
    ///
    /// # Errors
    /// The call's.
    pub fn label(&self, name: &str, label: &str, version: u64) -> Result<(), Box<tonic::Status>> {
        let mut client = AdminClient::new(self.channel());
        let request = api::SetLabelRequest {
            name: name.into(),
            label: label.into(),
            version,
        };
        let set = self.wait(client.set_label(request));
        set.map(drop).map_err(Box::new)
    }

    /// Divides requests between versions; only on the admin socket.
    ///
    /// # Errors
    /// The call's.
    pub fn split(&self, name: &str, weights: &[(u64, u32)]) -> Result<(), Box<tonic::Status>> {
        let mut client = AdminClient::new(self.channel());
        let request = api::SetSplitRequest {
            name: name.into(),
            weights: weights.iter().copied().collect(),
        };
        let set = self.wait(client.set_split(request));
        set.map(drop).map_err(Box::new)
    }

    /// Drains the server; only on the admin socket.
    ///
    /// # Errors
    /// The call's.
    pub fn drain(&self) -> Result<u32, Box<tonic::Status>> {
        let mut client = AdminClient::new(self.channel());
        let drained = self.wait(client.drain(api::DrainRequest {}));
        drained
            .map(|response| response.into_inner().requests_in_flight)
            .map_err(Box::new)
    }
}

impl crate::server::TestServer {
    /// The control API of this server.
    #[must_use]
    pub fn control(&self) -> ControlPlane {
        ControlPlane::connect(&self.socket_dir().join("control.sock"))
    }

    /// The operators' API of this server.
    #[must_use]
    pub fn admin(&self) -> ControlPlane {
        ControlPlane::connect(&self.socket_dir().join("admin.sock"))
    }
}
