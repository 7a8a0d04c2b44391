//! `adjoin health`: the exec probe.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::Failure;
use crate::control::{ControlError, SocketDirArguments, control_channel};
use crate::{interrupt, output};

/// Asks whether the server, or one of its models, serves: exit code 0 if it does, 1 if not.
///
/// Speaks grpc.health.v1 over the server's control socket. As an exec probe of Kubernetes:
/// `command: ["adjoin", "health", "--socket-dir", "/run/adjoin"]`.
#[derive(Debug, Args)]
pub(crate) struct HealthArguments {
    #[command(flatten)]
    server: SocketDirArguments,

    /// Asks about one model [default: the server as a whole]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Longest wait for the answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: u64,
}

pub(crate) fn run(arguments: &HealthArguments) -> Result<ExitCode, Failure> {
    let limit = Duration::from_millis(arguments.timeout_ms);
    let state = interrupt::block_on(async {
        match tokio::time::timeout(limit, ask(arguments)).await {
            Ok(state) => Ok(state?),
            Err(_) => Err(ControlError::NoAnswer { within: limit }.into()),
        }
    })?;
    output::print(&format!("{}\n", state.text()))?;
    Ok(match state {
        State::Serving => ExitCode::SUCCESS,
        State::NotServing | State::ModelUnknown => ExitCode::FAILURE,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Serving,
    NotServing,
    ModelUnknown,
}

impl State {
    fn text(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::NotServing => "not serving",
            Self::ModelUnknown => "no such model",
        }
    }
}

async fn ask(arguments: &HealthArguments) -> Result<State, ControlError> {
    let channel = control_channel(&arguments.server.socket_dir).await?;
    let service = arguments.model.clone().unwrap_or_default();
    match HealthClient::new(channel)
        .check(HealthCheckRequest { service })
        .await
    {
        Ok(answer) if answer.get_ref().status() == ServingStatus::Serving => Ok(State::Serving),
        Ok(_) => Ok(State::NotServing),
        Err(status) if status.code() == Code::NotFound => Ok(State::ModelUnknown),
        Err(status) => Err(status.into()),
    }
}
