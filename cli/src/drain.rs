//! `adjoin drain`.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use adjoin_control_api::control::DrainRequest;
use adjoin_control_api::control::admin_client::AdminClient;
use adjoin_server::control::{ADMIN_SOCKET, ATTACH_SOCKET};
use adjoin_shm::Readiness;
use adjoin_shm::socket::AttachSocket;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;
use crate::control::{ControlError, SocketDirArguments, admin_channel, answered};
use crate::{interrupt, output};

/// How often the sockets are looked at where the kernel cannot tell that the server has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Has a server refuse new requests, finish those it has, and end.
///
/// Only the server's own user may do this. A server ends when its last request is done, or after
/// server.drain_timeout_ms of its configuration.
#[derive(Debug, Args)]
pub(crate) struct DrainArguments {
    #[command(flatten)]
    server: SocketDirArguments,

    /// Returns when the server has ended [default: when it has begun to drain]
    #[arg(long)]
    wait: bool,
}

pub(crate) fn run(arguments: &DrainArguments) -> Result<ExitCode, Failure> {
    let socket_dir = &arguments.server.socket_dir;
    interrupt::block_on(async {
        // Before the server knows, so that its end cannot be missed.
        let process = server_process(socket_dir);
        let in_flight = drain(socket_dir).await?;
        let requests = if in_flight == 1 {
            "request"
        } else {
            "requests"
        };
        if !arguments.wait {
            return output::print(&format!("draining, {in_flight} {requests} in flight\n"));
        }
        let spinner = spinner(&format!(
            "draining, {in_flight} {requests} in flight when it began"
        ));
        wait_for_end(process, socket_dir).await?;
        spinner.finish_and_clear();
        output::print("ended\n")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Asks for the drain; the requests that were in flight.
pub(crate) async fn drain(socket_dir: &Path) -> Result<u32, ControlError> {
    let channel = admin_channel(socket_dir).await?;
    let answer = answered(AdminClient::new(channel).drain(DrainRequest {})).await?;
    Ok(answer.requests_in_flight)
}

/// A descriptor of the server's process; `None` before Linux 6.5.
fn server_process(socket_dir: &Path) -> Option<OwnedFd> {
    AttachSocket::connect(&socket_dir.join(ATTACH_SOCKET))
        .ok()?
        .peer_process()
}

async fn wait_for_end(process: Option<OwnedFd>, socket_dir: &Path) -> Result<(), Failure> {
    if let Some(process) = process {
        return Ok(Readiness::new(process)?.readable().await?);
    }
    let path = socket_dir.join(ADMIN_SOCKET);
    while tokio::net::UnixStream::connect(&path).await.is_ok() {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

fn spinner(message: &str) -> ProgressBar {
    if !output::is_progress_wanted() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message(message.to_owned());
    let style = ProgressStyle::with_template("{spinner} {msg}, waiting {elapsed}");
    spinner.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}
