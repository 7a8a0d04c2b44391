//! `adjoin serve`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use adjoin_server::config::{
    CheckedFile, ConfigError, ControlMode, ModelControl, POLL_INTERVAL_DEFAULT, ServerConfig,
};
use adjoin_server::oip::LogSettings;
use adjoin_server::repository::{EngineLibraries, Repository};
use clap::{Args, ValueEnum};
use rustix::process::Signal;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, reload};

use crate::Failure;
use crate::parent::ParentArguments;

/// Serves the models of a repository to the processes of this node.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// Directory of models: NAME/VERSION/model.onnx
    #[arg(long, value_name = "DIR", env = "ADJOIN_MODEL_REPOSITORY")]
    model_repository: PathBuf,

    /// Name of the model where the directory is one model and no repository of them: it has model.onnx, or VERSION/model.onnx,
    /// at its top, as with KServe. A repository is taken as such all the same [default: none]
    #[arg(long, value_name = "NAME", env = "ADJOIN_MODEL_NAME", value_parser = parse_model_name)]
    model_name: Option<String>,

    /// Who decides which models are loaded
    #[arg(
        long,
        value_name = "MODE",
        env = "ADJOIN_MODEL_CONTROL_MODE",
        default_value = "none"
    )]
    model_control_mode: ModelControlMode,

    /// Model to load at the start with --model-control-mode explicit; may be repeated, * stands for all
    #[arg(
        long,
        value_name = "NAME",
        env = "ADJOIN_LOAD_MODEL",
        value_delimiter = ','
    )]
    load_model: Vec<String>,

    /// Seconds between two looks at the repository with --model-control-mode poll
    #[arg(
        long,
        value_name = "SECONDS",
        env = "ADJOIN_REPOSITORY_POLL_SECS",
        default_value_t = POLL_INTERVAL_DEFAULT.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    repository_poll_secs: u64,

    /// Directory for the sockets; who may enter it may use the server
    #[arg(
        long,
        value_name = "DIR",
        env = "ADJOIN_SOCKET_DIR",
        default_value = "/run/adjoin"
    )]
    socket_dir: PathBuf,

    /// Takes over from a server that runs in the socket directory, when the models are loaded: its clients come here with
    /// their next request, it finishes what it has, and ends. Where none runs this server just starts
    #[arg(long, env = "ADJOIN_TAKEOVER")]
    takeover: bool,

    /// Lives on when another server has taken over, until a signal ends it or nobody owns the socket directory any more.
    /// For supervisors that start again whatever ends
    #[arg(long, env = "ADJOIN_LINGER")]
    linger: bool,

    /// TCP address for the Open Inference Protocol over gRPC, such as 127.0.0.1:8001 [default: none]
    #[arg(long, value_name = "ADDR", env = "ADJOIN_GRPC_ADDR")]
    grpc_addr: Option<SocketAddr>,

    /// TCP address for the Open Inference Protocol over HTTP, such as 127.0.0.1:8000 [default: none]
    #[arg(long, value_name = "ADDR", env = "ADJOIN_HTTP_ADDR")]
    http_addr: Option<SocketAddr>,

    /// TCP address for Prometheus metrics at /metrics, such as 127.0.0.1:8002 [default: none]
    #[arg(long, value_name = "ADDR", env = "ADJOIN_METRICS_ADDR")]
    metrics_addr: Option<SocketAddr>,

    /// Form of the log on standard error
    #[arg(
        long,
        value_name = "FORMAT",
        env = "ADJOIN_LOG_FORMAT",
        default_value = "text"
    )]
    log_format: LogFormat,

    /// What is logged: error, warn, info, debug or trace, also per module
    #[arg(
        long,
        value_name = "FILTER",
        env = "ADJOIN_LOG",
        default_value = "info"
    )]
    log: String,

    /// Configuration file (TOML): limits, and how each model is served
    #[arg(long, value_name = "FILE", env = "ADJOIN_CONFIG")]
    config: Option<PathBuf>,

    /// Lets callers of the Open Inference Protocol register files of this directory, such as /dev/shm, as shared-memory
    /// regions. Their bytes are copied, not mapped [default: off]
    #[arg(long, value_name = "DIR", env = "ADJOIN_ALLOW_NAMED_SHM")]
    allow_named_shm: Option<PathBuf>,

    /// ONNX Runtime's library [default: next to the command, then the system's library directories]
    #[arg(long, value_name = "FILE", env = "ADJOIN_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,

    /// TensorRT's library, for plans [default: next to the command, then the system's library directories; none without a
    /// device]
    #[cfg(feature = "tensorrt")]
    #[arg(long, value_name = "FILE", env = "ADJOIN_TENSORRT")]
    tensorrt: Option<PathBuf>,

    #[command(flatten)]
    parent: ParentArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModelControlMode {
    /// All are loaded at the start, and nothing changes afterwards
    None,
    /// Those of --load-model at the start, then whatever `adjoin models load` and `unload`, or clients, say
    Explicit,
    /// Whatever the repository holds, which is looked at again and again
    Poll,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

pub(crate) fn run(arguments: ServeArguments) -> Result<ExitCode, Failure> {
    arguments.parent.end_with_parent(Signal::TERM)?;
    let log = start_log(&arguments)?;
    let file = read_config(arguments.config.as_deref())?;
    let model_control = model_control(&arguments)?;
    adjoin_server::run(ServerConfig {
        repository: Repository {
            path: arguments.model_repository,
            model_name: arguments.model_name,
        },
        model_control,
        socket_dir: arguments.socket_dir,
        takes_over: arguments.takeover,
        lingers: arguments.linger,
        grpc_addr: arguments.grpc_addr,
        http_addr: arguments.http_addr,
        metrics_addr: arguments.metrics_addr,
        libraries: EngineLibraries {
            onnxruntime: arguments.onnxruntime,
            #[cfg(feature = "tensorrt")]
            tensorrt: arguments.tensorrt,
            #[cfg(not(feature = "tensorrt"))]
            tensorrt: None,
            engine_cache: file.engine_cache.clone(),
        },
        named_shm: arguments.allow_named_shm,
        log,
        file,
    })?;
    Ok(ExitCode::SUCCESS)
}

fn parse_model_name(text: &str) -> Result<String, String> {
    if adjoin_schema::text::is_model_name(text) {
        return Ok(text.to_owned());
    }
    Err("a model's name is letters, digits, '.', '_' and '-', and does not start with a dot".into())
}

fn model_control(arguments: &ServeArguments) -> Result<ModelControl, Failure> {
    let mode = match arguments.model_control_mode {
        ModelControlMode::None => ControlMode::None,
        ModelControlMode::Explicit => ControlMode::Explicit,
        ModelControlMode::Poll => ControlMode::Poll,
    };
    if let (Some(name), true) = (arguments.load_model.first(), mode != ControlMode::Explicit) {
        return Err(format!("--load-model {name}: only with --model-control-mode explicit").into());
    }
    Ok(ModelControl {
        mode,
        load: arguments.load_model.clone(),
        poll_interval: Duration::from_secs(arguments.repository_poll_secs),
    })
}

/// Reads a configuration file; where it is not TOML, the error fits into one line.
pub(crate) fn read_config(path: Option<&Path>) -> Result<CheckedFile, Failure> {
    CheckedFile::read(path).map_err(|error| match error {
        ConfigError::Malformed { path, source } => {
            let text = source.to_string();
            // The first line has the place; then comes a drawing of it.
            let place = text.lines().next().unwrap_or_default();
            format!(
                "configuration {}: {place}: {}",
                path.display(),
                source.message()
            )
            .into()
        }
        other => other.into(),
    })
}

/// A word without `=` is a level; the filter would take a mistyped one as a module's name and log nothing.
fn check_filter(filter: &str) -> Result<(), Failure> {
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let bare = filter
        .split(',')
        .map(str::trim)
        .filter(|part| !part.contains(['=', '[']));
    match bare.into_iter().find(|part| !part.is_empty() && !is_level(part)) {
        Some(part) => Err(format!("--log {filter:?}: {part:?} is no level; levels are off, error, warn, info, debug, trace").into()),
        None => Ok(()),
    }
}

/// The filter, without the lines of the HTTP/2 library unless it names them: that one warns of what a client does as
/// often as the client does it.
fn quiet(filter: &str) -> String {
    format!("h2=error,{filter}")
}

/// Starts the log; what comes back changes its level.
fn start_log(arguments: &ServeArguments) -> Result<LogSettings, Failure> {
    check_filter(&arguments.log)?;
    let filter = EnvFilter::try_new(quiet(&arguments.log))
        .map_err(|error| format!("--log {:?}: {error}", arguments.log))?;
    let (filter, levels) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        // A log that cannot be written must not end the server: reporting that would panic.
        .log_internal_errors(false);
    let lines = match arguments.log_format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    // A level that is set stands for all modules.
    Ok(LogSettings::new(Arc::new(move |level| {
        let filter = EnvFilter::new(quiet(level));
        levels.reload(filter).map_err(|error| error.to_string())
    })))
}
