//! From a configuration to a server that serves, and to its end.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use adjoin_backend::BackendError;
use adjoin_schema::limits::REGION_BYTES_MIN;
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch::Sender;

use crate::cgroup::Cgroup;
use crate::config::{ConfigError, ControlMode, ServerConfig};
use crate::control::access::{Access, TokenFileError};
use crate::control::listen::{Tls, TlsError};
use crate::control::{
    self, ADMIN_SOCKET, CONTROL_SOCKET, Listeners, Phase, Predecessor, Shared, SocketDir,
    SocketDirError,
};
use crate::devices::{DeviceError, Devices};
use crate::engine::{Engine, EngineOptions};
use crate::log_limit::LogLimit;
use crate::metrics::Metrics;
use crate::oip::regions::Regions;
use crate::repository::{Loader, Manager, ManagerParts, RepositoryError, Started, engines};
use crate::session::budget::MemoryBudget;

/// How long the end waits for writes to shared memory that callers named.
const WRITES_END: Duration = Duration::from_secs(1);

/// Why the server did not start, or ended.
#[derive(Debug, Error)]
pub enum RunError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The socket directory cannot be used.
    #[error(transparent)]
    SocketDir(#[from] SocketDirError),
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The token file cannot be used.
    #[error(transparent)]
    TokenFile(#[from] TokenFileError),
    /// TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The device that is configured cannot be used.
    #[error("[cuda]: {0}")]
    Device(#[from] DeviceError),
    /// The engine that was named cannot be used.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Models were found and none could be loaded.
    #[error("none of the models in {} could be loaded; the log says why", path.display())]
    NoModel {
        /// The repository.
        path: PathBuf,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({what}): {source}")]
    Address {
        /// The flag.
        what: &'static str,
        /// The address.
        address: std::net::SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// The directory of named regions cannot be used.
    #[error("cannot use --allow-named-shm {}: {source}", path.display())]
    NamedShm {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The system refused something that every server needs.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> RunError {
    move |source| RunError::System { what, source }
}

/// Loads the models, serves until a signal or an operator ends it, drains, and returns.
///
/// # Errors
/// See [`RunError`].
pub fn run(config: ServerConfig) -> Result<(), RunError> {
    log_panics();
    raise_descriptor_limit();
    // The lock first: a second server must not load gigabytes of models to find out that it is one.
    let dir = match SocketDir::lock(&config.socket_dir) {
        Err(SocketDirError::InUse { .. }) if config.takes_over => {
            tracing::info!(
                "another server is alive here; taking over from it when the models are loaded"
            );
            None
        }
        locked => Some(locked?),
    };
    // And what callers have to show, before loading takes its time.
    let access = Access::load(&config.file.access, &config.file.allow_uids)?;
    let tls = config.file.access.tls.as_ref().map(Tls::load).transpose()?;
    warn_of_plain_tokens(&config);
    let regions = regions(&config)?;
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
    let devices = Devices::new(config.file.cuda)?;
    let (backends, missing) = engines(&config.libraries, &devices)?;
    let names: Vec<String> = backends
        .iter()
        .map(|backend| format!("{} {}", backend.name(), backend.version()))
        .collect();
    tracing::info!(engines = names.join(", "), "engines found");
    if let Some(error) = missing {
        tracing::info!(%error, "serving without ONNX Runtime");
    }
    // Before the models: loading takes long, and a signal that nobody listens for kills, or as the first
    // process of a container does nothing.
    let helped = Arc::new(OnceLock::<Arc<Engine>>::new());
    let engine_to_help = Arc::clone(&helped);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(move || {
            if let Some(engine) = engine_to_help.get() {
                engine.help();
            }
        })
        .build();
    let runtime = runtime.map_err(system("start the control plane"))?;
    let phase = Sender::new(Phase::Serving);
    runtime.block_on(async { spawn_signals(&phase).map_err(system("listen for signals")) })?;

    let spin_ns = u64::try_from(config.file.spin.as_nanos()).unwrap_or(u64::MAX);
    let options = EngineOptions {
        spin_ns,
        limits: config.file.limits,
        memory: MemoryBudget::new(Cgroup::of_this_process(), config.file.memory_percent),
    };
    let engine = Engine::new(Arc::default(), Arc::clone(&metrics), options)
        .map_err(|errno| system("make an event descriptor")(errno.into()))?;
    engine.use_devices(devices.clone());
    let regions = regions.with_devices(devices);
    let parts = ManagerParts {
        repository: config.repository.clone(),
        control: config.model_control.clone(),
        loader: Loader::new(backends, config.file.clone(), metrics),
        engine: Arc::clone(&engine),
    };
    let (manager, started) = Manager::start(parts).map_err(system("start the loader"))?;
    // Outlives the workers: until they have ended, another server would be a second one.
    let mut held = None;
    let served = runtime
        .block_on(until_loaded(started, &phase))
        .and_then(|is_loaded| {
            if !is_loaded {
                tracing::info!("ended before all models were loaded");
                return Ok(());
            }
            if config.model_control.mode == ControlMode::None && engine.models().all().is_empty() {
                let path = config.repository.path.clone();
                return Err(RunError::NoModel { path });
            }
            engine.ensure_workers(0).map_err(system("start a worker"))?;
            engine.helps_from_here();
            let _ = helped.set(Arc::clone(&engine));
            let (engine, manager) = (Arc::clone(&engine), Arc::clone(&manager));
            let log = config.log.clone();
            let shared = Shared::new(
                engine,
                manager,
                config.file.clone(),
                names,
                phase,
                regions,
                log,
            )
            .lingering(config.lingers);
            let place = match dir {
                Some(dir) => Some((dir, None)),
                None => runtime.block_on(approach(&config.socket_dir, &shared))?,
            };
            let Some((dir, predecessor)) = place else {
                tracing::info!("ended before it could take over");
                return Ok(());
            };
            let dir = held.insert(dir);
            let listeners = listen(&config, dir, tls, access)?;
            log_budget(&shared.engine);
            tracing::info!(socket_dir = %config.socket_dir.display(), "serving");
            serve(&runtime, shared, listeners, dir, predecessor)
        });
    // Not for ever: a thread that writes to a caller's shared memory may wait for as long as that caller likes.
    runtime.shutdown_timeout(WRITES_END);
    manager.stop();
    engine.stop();
    drop(held);
    if served.is_ok() {
        tracing::info!("ended");
    }
    served
}

/// Serves until the server drains, and has ended its sessions.
fn serve(
    runtime: &Runtime,
    shared: Shared,
    listeners: Listeners,
    dir: &mut SocketDir,
    predecessor: Option<Predecessor>,
) -> Result<(), RunError> {
    let served = runtime.block_on(async {
        control::serve(shared, listeners, dir, predecessor)
            .await
            .map_err(system("serve"))
    });
    // Sessions end with their sockets before the workers do, so that clients see the end at once.
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(20)).await });
    served
}

/// A place in a directory that another server owns, or has left meanwhile; `None` if this server is to end before.
async fn approach(
    path: &Path,
    shared: &Shared,
) -> Result<Option<(SocketDir, Option<Predecessor>)>, RunError> {
    tokio::select! {
        place = control::approach(path) => Ok(Some(place?)),
        () = shared.reached(Phase::HandedOver) => Ok(None),
    }
}

/// Waits until the models of the start are loaded; false if the server is to end before.
async fn until_loaded(started: Started, phase: &Sender<Phase>) -> Result<bool, RunError> {
    let mut phase = phase.subscribe();
    tokio::select! {
        started = started => match started {
            Ok(started) => Ok(started.map(|()| true)?),
            // Its thread has panicked; the log says where.
            Err(_) => Ok(false),
        },
        // The sender outlives this call.
        _ = phase.wait_for(|phase| *phase != Phase::Serving) => Ok(false),
    }
}

/// Says at the start what sessions may have: a server whose models leave nothing refuses every one of them.
fn log_budget(engine: &Engine) {
    let Some((account, left)) = engine.sessions().budget() else {
        return;
    };
    let (used, limit) = (account.limit.used, account.limit.bytes);
    if left < 2 * REGION_BYTES_MIN {
        tracing::warn!(
            left,
            used,
            budget = account.budget,
            limit,
            "the memory limit of the control group leaves no room for sessions: raise it, or limits.memory_percent"
        );
    } else {
        tracing::info!(
            left,
            used,
            budget = account.budget,
            limit,
            "sessions may have what is left of the share of the memory limit"
        );
    }
}

/// Where callers may register regions.
fn regions(config: &ServerConfig) -> Result<Regions, RunError> {
    let limits = config.file.region_limits;
    let Some(path) = &config.named_shm else {
        return Ok(Regions::off(limits));
    };
    Regions::beneath(path, limits).map_err(|source| RunError::NamedShm {
        path: path.clone(),
        source,
    })
}

/// Whoever sees a token on its way can use it.
fn warn_of_plain_tokens(config: &ServerConfig) {
    let access = &config.file.access;
    if access.token_file.is_none() || access.tls.is_some() {
        return;
    }
    let addresses = [config.grpc_addr, config.http_addr, config.metrics_addr];
    for address in addresses.into_iter().flatten() {
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "tokens come over the network unencrypted; set access.tls_certificate");
        }
    }
}

fn listen(
    config: &ServerConfig,
    dir: &SocketDir,
    tls: Option<Tls>,
    access: Access,
) -> Result<Listeners, RunError> {
    let tcp = |what, address: Option<std::net::SocketAddr>| {
        let bind = |address| {
            control::bind_tcp(address).map_err(|source| RunError::Address {
                what,
                address,
                source,
            })
        };
        address.map(bind).transpose()
    };
    Ok(Listeners {
        grpc: tcp("--grpc-addr", config.grpc_addr)?,
        http: tcp("--http-addr", config.http_addr)?,
        metrics: tcp("--metrics-addr", config.metrics_addr)?,
        admin: dir.bind_stream(ADMIN_SOCKET, 0o600)?,
        control: dir.bind_stream(CONTROL_SOCKET, config.file.socket_mode)?,
        attach: dir.bind_attach(config.file.socket_mode)?,
        tls,
        access,
    })
}

/// The first SIGTERM or SIGINT drains; the second ends without waiting.
fn spawn_signals(phase: &Sender<Phase>) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let phase = phase.clone();
    tokio::spawn(async move {
        for next in [Phase::Draining, Phase::Ending] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!(phase = ?next, "a signal came");
            control::advance(&phase, next);
        }
    });
    Ok(())
}

/// Each session takes seven descriptors; the soft limit of 1024 is there for programs that use `select`.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "cannot raise the limit of open descriptors");
    }
}

/// Logs panics, at most one a second: an engine may panic on values that a client sends, and a client must not be
/// able to fill the log. A panic in a run fails that run (see `batch::execute`).
fn log_panics() {
    static LIMIT: LogLimit = LogLimit::per_second(1);
    std::panic::set_hook(Box::new(|panic| {
        if LIMIT.admits() {
            let thread = std::thread::current();
            tracing::error!(thread = thread.name().unwrap_or("?"), panic = %panic, "panicked");
        }
    }));
}
