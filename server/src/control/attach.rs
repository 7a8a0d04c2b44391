//! The attach socket: handshakes, questions about models, regions on the device, and the end of sessions.
//!
//! Each connection is a task. Its end of file, or the exit of the process that connected (a forked child may
//! hold a copy of the socket), ends the session.

use std::sync::Arc;
use std::time::Duration;

use adjoin_schema::PROTOCOL_VERSION;
use adjoin_schema::attach::{AttachMessage, Hello, ModelQuery, Refusal, Welcome, features};
use adjoin_schema::descriptor::Rejection;
use adjoin_schema::layout::SessionLayout;
use adjoin_schema::limits::ATTACH_MESSAGE_BYTES_MAX;
use adjoin_schema::status::Status;
use adjoin_shm::clock::now_ns;
use adjoin_shm::doorbell::EventNotifier;
use adjoin_shm::socket::{AttachListener, AttachSocket, Packet};
use adjoin_shm::{Readiness, SessionMemory};
use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::tokens::random_token;
use super::{Phase, Shared, device_regions};
use crate::session::{Session, SessionParts};

/// How long a connection may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections at once that have not said hello yet.
const HANDSHAKES_MAX: usize = 64;
/// Questions of one client that are answered before others have their turn again.
const MESSAGES_PER_TURN: u32 = 16;

/// A connection and its readiness.
struct Connection {
    socket: Arc<AttachSocket>,
    readiness: Readiness,
}

/// Takes connections until the server ends.
pub(super) async fn accept(shared: Shared, listener: AttachListener) {
    let readiness = match Readiness::new(&listener) {
        Ok(readiness) => readiness,
        Err(error) => {
            tracing::error!(%error, "cannot listen on the attach socket");
            shared.advance(Phase::Draining);
            return;
        }
    };
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        tokio::select! {
            () = shared.reached(Phase::Ending) => return,
            accepted = readiness.read_with(|| listener.accept()) => match accepted {
                Ok(socket) => {
                    // Full: the connection is dropped, and its client sees the end of it.
                    if let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() {
                        tokio::spawn(connection(shared.clone(), socket, permit));
                    }
                }
                Err(error) => {
                    // Mostly "no descriptors left": without a pause this would spin until some are.
                    tracing::warn!(%error, "cannot take a connection on the attach socket");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
}

async fn connection(shared: Shared, socket: AttachSocket, permit: OwnedSemaphorePermit) {
    let socket = Arc::new(socket);
    let Ok(readiness) = Readiness::new(&*socket) else {
        return;
    };
    let connection = Connection {
        socket: Arc::clone(&socket),
        readiness,
    };
    let Ok(Ok(packet)) = tokio::time::timeout(HELLO_TIMEOUT, receive(&connection)).await else {
        return;
    };
    let process = socket.peer_process();
    let opened = open(&shared, &socket, &packet);
    // Whatever descriptors came with it are closed here.
    drop(packet);
    let session = match opened {
        Ok(session) => session,
        Err(rejection) => {
            shared.engine.metrics().session_refused(rejection.status);
            tracing::debug!(reason = %rejection.status, "refused a session");
            let refusal = Refusal {
                query_id: 0,
                status: rejection.status as u16,
                detail: rejection.detail,
            };
            let _ = socket.send(&AttachMessage::Refusal(refusal).encode(), &[]);
            return;
        }
    };
    drop(permit);
    let id = session.id();
    tracing::debug!(session = id, uid = session.peer().uid, "session opened");
    drop(session);
    let process = process.and_then(|fd| Readiness::new(fd).ok());
    let exited = async {
        match &process {
            Some(process) => drop(process.readable().await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = exited => {}
        () = answer(&shared, id, &connection) => {}
        () = shared.reached(Phase::Ending) => {
            if let Some(session) = shared.engine.sessions().get(id) {
                session.memory().leave_pages();
            }
        }
    }
    socket.shut_down();
    shared.engine.detach(id);
    tracing::debug!(session = id, "session closed");
}

/// Answers questions until the connection ends.
async fn answer(shared: &Shared, session_id: u64, connection: &Connection) {
    let socket = &connection.socket;
    let mut messages = 0;
    loop {
        let packet = match receive(connection).await {
            Ok(packet) if !packet.bytes.is_empty() => packet,
            _ => return,
        };
        let Some(session) = shared.engine.sessions().get(session_id) else {
            return;
        };
        let answer = match AttachMessage::parse(&packet.bytes) {
            Ok(AttachMessage::ModelQuery(query)) => describe(shared, &query),
            Ok(AttachMessage::DeviceAttach(attach)) => {
                device_regions::attach(shared, &session, attach, packet.fds).await
            }
            Ok(AttachMessage::DeviceDetach(detach)) => device_regions::detach(&session, detach),
            _ => {
                let fault = Status::HandshakeInvalid.into();
                shared.engine.fault(&session, fault);
                return;
            }
        };
        // A client that does not read its answers does not get them.
        let _ = socket.send(&answer.encode(), &[]);
        messages += 1;
        if messages % MESSAGES_PER_TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
}

fn describe(shared: &Shared, query: &ModelQuery) -> AttachMessage {
    let models = shared.engine.models();
    match models.find(&query.model, query.version, &query.label) {
        Ok(version) => {
            let ready = models
                .snapshot()
                .get(&query.model)
                .map(crate::model::ModelEntry::ready_versions);
            AttachMessage::ModelInfo(version.info(query.query_id, ready.unwrap_or_default()))
        }
        Err(Rejection { status, detail }) => AttachMessage::Refusal(Refusal {
            query_id: query.query_id,
            status: status as u16,
            detail,
        }),
    }
}

async fn receive(connection: &Connection) -> Result<Packet, Errno> {
    connection
        .readiness
        .read_with(|| connection.socket.receive(ATTACH_MESSAGE_BYTES_MAX))
        .await
}

/// The handshake: checks everything, makes the memory, hands it over.
fn open(
    shared: &Shared,
    socket: &Arc<AttachSocket>,
    packet: &Packet,
) -> Result<Arc<Session>, Rejection> {
    let Ok(AttachMessage::Hello(hello)) = AttachMessage::parse(&packet.bytes) else {
        return Err(Status::HandshakeInvalid.into());
    };
    if !packet.fds.is_empty() {
        return Err(Status::HandshakeInvalid.into());
    }
    let peer = socket
        .peer_credentials()
        .map_err(|_| Rejection::from(Status::SessionUnavailable))?;
    let (layout, client_name) = settle(shared, peer.uid, hello)?;
    let unavailable = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "cannot make a session");
        Rejection::from(Status::SessionUnavailable)
    };
    let byte_size = layout.region_bytes(adjoin_schema::layout::RegionKind::Request)
        + layout.region_bytes(adjoin_schema::layout::RegionKind::Response);
    let sessions = shared.engine.sessions();
    let grant = sessions.grant(peer.uid, byte_size)?;
    let id = sessions.next_id();
    let memory = SessionMemory::create(layout, id).map_err(|error| unavailable(&error))?;
    let event = EventNotifier::new().map_err(|error| unavailable(&error))?;
    let secret = random_token().ok_or_else(|| Rejection::from(Status::SessionUnavailable))?;
    let parts = SessionParts {
        id,
        secret,
        client_name,
        peer,
        memory,
        event,
        socket: Arc::clone(socket),
        grant,
    };
    let session = Arc::new(Session::new(parts));
    let welcome = AttachMessage::Welcome(Welcome {
        protocol: PROTOCOL_VERSION,
        session_id: id,
        request_bytes: layout.region_bytes(adjoin_schema::layout::RegionKind::Request),
        response_bytes: layout.region_bytes(adjoin_schema::layout::RegionKind::Response),
        ring_entries: layout.ring_entries(adjoin_schema::layout::RegionKind::Response),
        secret,
        server_version: env!("CARGO_PKG_VERSION").into(),
        features: features::ALL,
    });
    // Before the client knows of it, so that it is listed as soon as the client runs.
    shared.engine.attach(Arc::clone(&session));
    let [request, response] = session.memory().client_fds();
    let sent = socket.send(&welcome.encode(), &[request, response, session.event_fd()]);
    if let Err(error) = sent {
        tracing::debug!(%error, "client went before it was welcomed");
        shared.engine.detach(id);
        return Err(Status::SessionUnavailable.into());
    }
    Ok(session)
}

/// Sizes and name of a session: from the token, or from the hello itself.
fn settle(shared: &Shared, uid: u32, hello: Hello) -> Result<(SessionLayout, String), Rejection> {
    if hello.protocol != PROTOCOL_VERSION {
        let detail = [u64::from(hello.protocol), u64::from(PROTOCOL_VERSION)];
        return Err(Rejection::new(Status::ProtocolMismatch, detail));
    }
    check_peer(shared, uid)?;
    match hello.token {
        Some(token) => {
            let promise = shared
                .tokens
                .redeem(&token, uid, now_ns())
                .ok_or_else(|| Rejection::from(Status::TokenInvalid))?;
            Ok((promise.layout, promise.client_name))
        }
        None => {
            let layout = SessionLayout::new(
                hello.request_bytes,
                hello.response_bytes,
                hello.ring_entries,
            )?;
            // It is shown on terminals and in logs.
            let client_name = hello.client_name.replace(char::is_control, "?");
            Ok((layout, client_name))
        }
    }
}

/// Whether a user may open sessions, and the server takes any.
pub(super) fn check_peer(shared: &Shared, uid: u32) -> Result<(), Rejection> {
    if shared.engine.is_draining() {
        return Err(Status::NotExecuted.into());
    }
    let allowed = &shared.config.allow_uids;
    if allowed.is_empty() || allowed.contains(&uid) {
        return Ok(());
    }
    Err(Rejection::new(Status::PeerNotAllowed, [u64::from(uid), 0]))
}
