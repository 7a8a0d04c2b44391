//! The control plane: one thread with an async runtime for attach handshakes, gRPC and metrics. The only
//! module that names tonic.

pub mod access;
mod admin;
mod attach;
mod deadline;
mod device_regions;
mod http;
mod http_server;
mod inference;
pub mod listen;
mod message_budget;
mod model_health;
mod otlp;
mod service;
mod socket_dir;
mod status;
mod takeover;
mod tokens;

pub use socket_dir::{ADMIN_SOCKET, ATTACH_SOCKET, CONTROL_SOCKET, SocketDir, SocketDirError};
pub(crate) use takeover::{Predecessor, approach};

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::time::Duration;

use adjoin_control_api::control::admin_server::AdminServer;
use adjoin_control_api::control::control_server::ControlServer;
use adjoin_control_api::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use adjoin_control_api::{FILE_DESCRIPTOR_SET, MESSAGE_BYTES_MAX};
use adjoin_shm::socket::AttachListener;
use tokio::sync::{mpsc, watch};
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tower::layer::util::{Identity, Stack};

use crate::config::CheckedFile;
use crate::engine::Engine;
use crate::metrics::endpoint;
use crate::oip::cache::ResponseCache;
use crate::oip::regions::Regions;
use crate::oip::{LogSettings, Oip};
use crate::repository::Manager;
use access::{Access, GrpcGuard, guarded};
use deadline::Deadlines;
use listen::{ListenerKind, Socket, Tls};
use message_budget::{MessageBudget, Metering};
use tokens::Tokens;

/// Bytes that a peer may send before it is read, per stream and per connection. What a connection may have lie unread
/// is in no budget.
const WINDOW_BYTES: u32 = 16 << 20;
/// Bytes of one HTTP/2 frame.
const FRAME_BYTES: u32 = 1 << 20;

/// Calls of one connection that are worked on at once; further ones wait.
const CALLS_PER_CONNECTION_MAX: usize = 128;
/// Calls of one connection that are open at once, with those that wait and streams. Each may hold a header of 16 KiB.
const STREAMS_PER_CONNECTION_MAX: u32 = 1024;
/// Streams of one connection that the server may have to reset for the client's faults until it ends the connection.
const FAULTY_STREAMS_MAX: usize = 1024;

/// Names of the health service for the server as a whole: whether new clients are meant for it, under two names, and
/// whether it works, which also one does that drains. No model can have these names.
const OVERALL: &str = "";
const READY: &str = "adjoin/ready";
const LIVE: &str = "adjoin/live";

/// How long the end of the server waits for a collector to take the last traces.
const LAST_TRACES_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether this build can send traces to an address.
pub(crate) fn can_trace_to(address: &str) -> bool {
    otlp::is_collector(address)
}

/// How far the end of the server has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Takes requests.
    Serving,
    /// Another server has its place; takes what its clients still send.
    HandedOver,
    /// Refuses new ones.
    Draining,
    /// Closes everything.
    Ending,
}

/// Sockets that are bound before the server says that it runs.
#[derive(Debug)]
pub struct Listeners {
    /// Handshakes.
    pub attach: AttachListener,
    /// Control API and Open Inference Protocol.
    pub control: StdUnixListener,
    /// Operators' API.
    pub admin: StdUnixListener,
    /// Open Inference Protocol over gRPC and TCP.
    pub grpc: Option<std::net::TcpListener>,
    /// The same over HTTP.
    pub http: Option<std::net::TcpListener>,
    /// `/metrics`.
    pub metrics: Option<std::net::TcpListener>,
    /// What TCP listeners speak; `None`: plain.
    pub tls: Option<Tls>,
    /// Who may do what.
    pub access: Access,
}

/// What all services share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The data plane.
    pub engine: Arc<Engine>,
    /// Loads and unloads models.
    pub manager: Arc<Manager>,
    /// How far the end has come; anyone may move it on.
    pub phase: watch::Sender<Phase>,
    /// The checked configuration.
    pub config: Arc<CheckedFile>,
    /// Engines of this machine, for people.
    pub engines: Arc<Vec<String>>,
    /// When the server started, in ns.
    pub started_ns: u64,
    /// Whether the server lives on after another one has taken over.
    pub lingers: bool,
    /// The Open Inference Protocol.
    pub oip: Oip,
    /// What all messages together may hold.
    messages: MessageBudget,
    tokens: Arc<Tokens>,
}

impl Shared {
    /// What services share from now on.
    pub fn new(
        engine: Arc<Engine>,
        manager: Arc<Manager>,
        config: CheckedFile,
        engines: Vec<String>,
        phase: watch::Sender<Phase>,
        regions: Regions,
        log: LogSettings,
    ) -> Self {
        let counted = engine.metrics().messages.clone();
        let messages = MessageBudget::new(config.message_bytes_max, counted);
        Self {
            oip: Oip::new(
                Arc::clone(&engine),
                Arc::clone(&manager),
                regions,
                ResponseCache::new(config.response_cache_bytes),
                log,
            ),
            engine,
            manager,
            phase,
            messages,
            config: Arc::new(config),
            engines: Arc::new(engines),
            started_ns: adjoin_shm::clock::now_ns(),
            lingers: false,
            tokens: Arc::default(),
        }
    }

    /// Has the server live on after another one has taken over, or not.
    #[must_use]
    pub fn lingering(mut self, lingers: bool) -> Self {
        self.lingers = lingers;
        self
    }

    /// Whether new clients are meant for this server: it serves, and has not given up the device of its models.
    pub fn is_ready(&self) -> bool {
        *self.phase.borrow() == Phase::Serving && !self.engine.is_device_given_up()
    }

    /// Moves on towards the end; never back.
    pub fn advance(&self, phase: Phase) {
        advance(&self.phase, phase);
    }

    /// Resolves when the end has come that far.
    pub async fn reached(&self, phase: Phase) {
        // The sender lives in `self`, so the channel cannot close meanwhile.
        let _ = self
            .phase
            .subscribe()
            .wait_for(|current| *current >= phase)
            .await;
    }
}

/// Moves on towards the end; never back.
pub fn advance(phase: &watch::Sender<Phase>, to: Phase) {
    phase.send_if_modified(|current| {
        let moves = to > *current;
        *current = to.max(*current);
        moves
    });
}

/// Serves everything until the server ends; then drains and returns. Where there is a predecessor, this server takes
/// its place as soon as it serves.
///
/// # Errors
/// If a listener cannot be used, or the predecessor's sockets cannot be replaced.
pub(crate) async fn serve(
    shared: Shared,
    listeners: Listeners,
    dir: &mut SocketDir,
    predecessor: Option<Predecessor>,
) -> std::io::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    tokio::spawn(model_health::tell(health.clone(), shared.clone()));
    for service in [OVERALL, READY, LIVE] {
        health
            .set_service_status(service, ServingStatus::Serving)
            .await;
    }

    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let reflection = || described().build_v1().map_err(std::io::Error::other);
    // Python's library and older tools know this form alone.
    let older_reflection = || described().build_v1alpha().map_err(std::io::Error::other);
    let inference = || {
        GrpcInferenceServiceServer::new(inference::Inference::new(shared.clone()))
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    };
    let control_service = ControlServer::new(service::Control::new(shared.clone()));
    let admin_service = AdminServer::new(admin::Admin::new(shared.clone()));

    let (ended, mut gone) = mpsc::unbounded_channel();
    let engine = Arc::clone(&shared.engine);
    tokio::spawn(async move {
        while let Some(connection_id) = gone.recv().await {
            engine.forget(connection_id);
        }
    });
    let limits = listen::Limits {
        connections: shared.config.connection_count_max,
        handshake: listen::HANDSHAKE_TIMEOUT,
        unread: listen::UNREAD_TIMEOUT,
        ended,
    };
    let access = Arc::new(listeners.access);
    let unix = |listener, kind| {
        Socket::unix(listener).map(|socket| listen::incoming(socket, kind, None, limits.clone()))
    };
    let tcp = |listener, kind| {
        let tls = listeners.tls.as_ref();
        Socket::tcp(listener).map(|socket| listen::incoming(socket, kind, tls, limits.clone()))
    };

    let control = grpc_server(&access, &shared.messages)
        .add_service(control_service)
        .add_service(inference())
        .add_service(health_service.clone())
        .add_service(reflection()?)
        .add_service(older_reflection()?)
        .serve_with_incoming_shutdown(
            unix(listeners.control, ListenerKind::Control)?,
            leaving(&shared),
        );
    let admin = grpc_server(&access, &shared.messages)
        .add_service(admin_service)
        .serve_with_incoming_shutdown(unix(listeners.admin, ListenerKind::Admin)?, ending(&shared));
    tokio::spawn(logged(ListenerKind::Control, control));
    tokio::spawn(logged(ListenerKind::Admin, admin));
    if let Some(listener) = listeners.grpc {
        let server = grpc_server(&access, &shared.messages)
            .add_service(inference())
            .add_service(health_service)
            .add_service(reflection()?)
            .add_service(older_reflection()?)
            .serve_with_incoming_shutdown(tcp(listener, ListenerKind::Grpc)?, ending(&shared));
        tokio::spawn(logged(ListenerKind::Grpc, server));
    }
    let routers = [
        (
            ListenerKind::Http,
            listeners.http,
            http::router(shared.clone()),
        ),
        (
            ListenerKind::Metrics,
            listeners.metrics,
            endpoint::router(Arc::clone(&shared.engine)),
        ),
    ];
    for (kind, listener, router) in routers {
        if let Some(listener) = listener {
            let router = guarded(router, Arc::clone(&access));
            let incoming = tcp(listener, kind)?;
            let server =
                http_server::serve(incoming, router, http_server::PATIENCE, ending(&shared));
            tokio::spawn(logged(kind, server));
        }
    }
    tokio::spawn(attach::accept(shared.clone(), listeners.attach));
    let traces = otlp::spawn(&shared);

    if let Some(predecessor) = predecessor {
        let replaced = predecessor.replace(dir).await;
        replaced.map_err(std::io::Error::other)?;
    }

    shared.reached(Phase::HandedOver).await;
    for service in [OVERALL, READY] {
        health
            .set_service_status(service, ServingStatus::NotServing)
            .await;
    }
    tokio::select! {
        () = shared.reached(Phase::Draining) => {}
        () = takeover::handed_over(&shared, dir) => shared.advance(Phase::Draining),
    }
    for version in shared.engine.models().all() {
        health
            .set_service_status(version.name().as_ref(), ServingStatus::NotServing)
            .await;
    }
    drain(&shared).await;
    shared.advance(Phase::Ending);
    if let Some(traces) = traces {
        let _ = tokio::time::timeout(LAST_TRACES_TIMEOUT, traces).await;
    }
    Ok(())
}

/// What a call passes before it is charged: who may call, and until when.
type Guarded = Stack<Deadlines, Stack<GrpcGuard, Identity>>;

/// A server whose windows let a tensor through in one go: with the defaults of HTTP/2, 64 KiB, a message of
/// 600 KiB waits ten times for its reader.
fn grpc_server(access: &Arc<Access>, messages: &MessageBudget) -> Server<Stack<Metering, Guarded>> {
    Server::builder()
        .layer(GrpcGuard::new(Arc::clone(access)))
        .layer(Deadlines)
        .layer(Metering(messages.clone()))
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION_MAX)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_max_local_error_reset_streams(Some(FAULTY_STREAMS_MAX))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
}

/// Refuses what comes, and waits for what runs.
async fn drain(shared: &Shared) {
    shared.engine.drain();
    let give_up = tokio::time::Instant::now() + shared.config.drain_timeout;
    tracing::info!(in_flight = shared.engine.in_flight(), "draining");
    // Twice in a row: in between, what the last look at the rings found is on its way into the queues.
    let mut idle = 0;
    loop {
        idle = if shared.engine.is_idle() { idle + 1 } else { 0 };
        if idle == 2 {
            break;
        }
        let ending = shared.reached(Phase::Ending);
        let tick = tokio::time::sleep(Duration::from_millis(2));
        tokio::select! {
            () = ending => break,
            () = tick => {}
        }
        if tokio::time::Instant::now() >= give_up {
            tracing::warn!(
                in_flight = shared.engine.in_flight(),
                "requests were still in flight when the drain timeout passed"
            );
            break;
        }
    }
}

fn ending(shared: &Shared) -> impl Future<Output = ()> + use<> {
    let shared = shared.clone();
    async move { shared.reached(Phase::Ending).await }
}

/// When callers of the control socket are sent to the server that is behind its name now.
fn leaving(shared: &Shared) -> impl Future<Output = ()> + use<> {
    let shared = shared.clone();
    async move {
        let leaves = |phase: &Phase| matches!(phase, Phase::HandedOver | Phase::Ending);
        // The sender lives in `shared`, so the channel cannot close meanwhile.
        let _ = shared.phase.subscribe().wait_for(leaves).await;
    }
}

async fn logged<E: std::fmt::Display>(
    kind: ListenerKind,
    server: impl Future<Output = Result<(), E>>,
) {
    if let Err(error) = server.await {
        tracing::error!(%kind, %error, "stopped serving");
    }
}

/// Binds a TCP listener before the runtime starts, so that a wrong address is an error at start.
///
/// # Errors
/// The system's.
pub fn bind_tcp(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    std::net::TcpListener::bind(address)
}
