//! One server takes over from another that lives: no request fails, and no client has to know.
//!
//! The successor loads its models while its predecessor serves. When it is ready it puts its sockets in the place of
//! the other's ([`SocketDir::take_over`]) and asks it to hand over. The predecessor then tells its clients, by the
//! state word of their sessions, to look for another server at their next request. Until they do, and for what is on
//! its way, it goes on as before: it refuses nothing. It ends when its clients have moved.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use adjoin_control_api::control::HandOverRequest;
use adjoin_control_api::control::admin_client::AdminClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use super::socket_dir::Owner;
use super::{ADMIN_SOCKET, Phase, Shared, SocketDir, SocketDirError};

/// How long a server that holds the lock may take to answer: it may be loading its models, or ending.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at it.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for its answer to a hand-over. By then the sockets have changed, and it does not matter to clients.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that has handed over ends when nothing has come for so long. A client that has read the state word just
/// before it changed is done with its submission by then.
const QUIET: Duration = Duration::from_secs(1);
/// How often a server that has handed over looks whether it can end.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The server whose place this one is about to take.
#[derive(Debug)]
pub(crate) struct Predecessor {
    admin: AdminClient<Channel>,
}

/// Waits until a directory is free, or its server can be taken over from.
///
/// # Errors
/// If the server there does not answer in time, or not this user.
pub(crate) async fn approach(
    path: &Path,
) -> Result<(SocketDir, Option<Predecessor>), SocketDirError> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let reason = match SocketDir::lock_or_beside(path)? {
            Owner::This(dir) => return Ok((dir, None)),
            Owner::Other(dir) => match connect(path).await {
                Ok(admin) => return Ok((dir, Some(Predecessor { admin }))),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    return Err(no_hand_over(path, error.to_string()));
                }
                Err(error) => error.to_string(),
            },
            Owner::Changing => "another server is taking over, or it is ending".to_owned(),
        };
        if Instant::now() >= give_up {
            return Err(no_hand_over(
                path,
                format!("for {} s: {reason}", PATIENCE.as_secs()),
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn no_hand_over(path: &Path, reason: String) -> SocketDirError {
    SocketDirError::NoHandOver {
        path: path.to_owned(),
        reason,
    }
}

/// A connection that is there before the socket's name is given to another one.
async fn connect(path: &Path) -> std::io::Result<AdminClient<Channel>> {
    let stream = UnixStream::connect(path.join(ADMIN_SOCKET)).await?;
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| std::io::Error::other("the server has ended")) }
    });
    // The name goes nowhere.
    let endpoint = Endpoint::from_static("http://adjoin");
    let channel = endpoint.connect_with_connector(connector).await;
    channel.map(AdminClient::new).map_err(std::io::Error::other)
}

impl Predecessor {
    /// Takes its place. Everything that the sockets of `dir` lead to must be served already.
    ///
    /// # Errors
    /// If the sockets cannot be put in place. That the other server does not answer is no error: it is served in its
    /// place all the same.
    pub(super) async fn replace(mut self, dir: &mut SocketDir) -> Result<(), SocketDirError> {
        dir.take_over()?;
        let request = self.admin.hand_over(HandOverRequest {});
        match tokio::time::timeout(ANSWER_TIMEOUT, request).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                tracing::info!(
                    sessions = answer.sessions,
                    requests_in_flight = answer.requests_in_flight,
                    "took over from a running server"
                );
            }
            Ok(Err(status)) => {
                tracing::warn!(
                    reason = status.message(),
                    "the former server did not hand over; its clients stay with it until it ends"
                );
            }
            Err(_) => {
                tracing::warn!(
                    "the former server did not answer; its clients stay with it until it ends"
                );
            }
        }
        dir.settle();
        Ok(())
    }
}

/// Resolves when a server that has handed over has no reason to live any longer.
pub(super) async fn handed_over(shared: &Shared, dir: &SocketDir) {
    shared.reached(Phase::HandedOver).await;
    if shared.lingers {
        tracing::info!("handed over; lingering until told to end");
        until_vacant(dir).await;
        tracing::warn!("no server owns the socket directory any more");
    } else {
        tracing::info!(
            requests_in_flight = shared.engine.in_flight(),
            "handed over"
        );
        until_quiet(shared).await;
    }
}

async fn until_vacant(dir: &SocketDir) {
    loop {
        tokio::time::sleep(QUIET).await;
        if dir.is_vacant() {
            return;
        }
    }
}

/// Until the sessions are gone, or nothing has come from them for a while, or the time for draining has passed.
async fn until_quiet(shared: &Shared) {
    let engine = &shared.engine;
    let give_up = Instant::now() + shared.config.drain_timeout;
    let requests = || -> u64 { engine.sessions().all().iter().map(|s| s.requests()).sum() };
    let (mut last, mut quiet_since) = (requests(), Instant::now());
    while Instant::now() < give_up {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let now = requests();
        if !engine.is_idle() || now != last {
            (last, quiet_since) = (now, Instant::now());
        } else if quiet_since.elapsed() >= QUIET {
            return;
        }
    }
    tracing::warn!("clients have not moved to the next server before the drain timeout");
}
