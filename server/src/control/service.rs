//! The control API: sessions, models, the server's state, the portable doorbell.

use std::pin::Pin;

use adjoin_control_api::control as api;
use adjoin_control_api::control::control_server::Control as ControlApi;
use adjoin_schema::PROTOCOL_VERSION;
use adjoin_schema::attach::TensorSpec;
use adjoin_schema::descriptor::Rejection;
use adjoin_schema::layout::SessionLayout;
use adjoin_schema::limits::{CLIENT_NAME_BYTES_MAX, TOKEN_LIFE_MS};
use adjoin_schema::status::Status as Outcome;
use adjoin_shm::clock::now_ns;
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::listen::{Caller, Peer};
use super::{Phase, Shared, attach, status};
use crate::devices::{DeviceNumbers, Devices};
use crate::metrics::CopyPath;
use crate::model::{ModelVersion, State};
use crate::repository::public_reason;
use crate::session::Session;

/// Answers clients.
#[derive(Debug)]
pub(super) struct Control {
    shared: Shared,
}

impl Control {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared }
    }

    fn session(&self, id: u64) -> Result<Arc<Session>, Status> {
        let session = self.shared.engine.sessions().get(id);
        session.ok_or_else(|| {
            Status::not_found(format!("no session {id}; `adjoin sessions` lists them"))
        })
    }
}

fn refused(rejection: Rejection) -> Status {
    status::error(rejection, None, None)
}

/// The user at the other end of the unix socket.
fn peer_uid<T>(request: &Request<T>) -> Result<u32, Status> {
    match request
        .extensions()
        .get::<Caller>()
        .map(|caller| &caller.peer)
    {
        Some(Peer::Unix { uid, .. }) => Ok(*uid),
        _ => Err(Status::permission_denied("the caller's user is not known")),
    }
}

#[tonic::async_trait]
impl ControlApi for Control {
    type DoorbellStream = Pin<Box<dyn Stream<Item = Result<api::DoorbellSignal, Status>> + Send>>;

    async fn open_session(
        &self,
        request: Request<api::OpenSessionRequest>,
    ) -> Result<Response<api::OpenSessionResponse>, Status> {
        let uid = peer_uid(&request)?;
        attach::check_peer(&self.shared, uid).map_err(refused)?;
        let wanted = request.into_inner();
        if wanted.protocol != PROTOCOL_VERSION {
            let detail = [u64::from(wanted.protocol), u64::from(PROTOCOL_VERSION)];
            return Err(refused(Rejection::new(Outcome::ProtocolMismatch, detail)));
        }
        if wanted.client_name.len() > CLIENT_NAME_BYTES_MAX {
            let byte_size = wanted.client_name.len();
            let text =
                format!("client_name has {byte_size} bytes; the most is {CLIENT_NAME_BYTES_MAX}");
            return Err(Status::invalid_argument(text));
        }
        let layout = SessionLayout::new(
            wanted.request_bytes,
            wanted.response_bytes,
            wanted.ring_entries,
        );
        let layout = layout.map_err(refused)?;
        let token = self.shared.tokens.give(
            uid,
            layout,
            wanted.client_name.replace(char::is_control, "?"),
            now_ns(),
        );
        let token =
            token.ok_or_else(|| Status::unavailable("the system has no random numbers yet"))?;
        Ok(Response::new(api::OpenSessionResponse {
            token: token.to_vec(),
            token_life_ms: TOKEN_LIFE_MS,
        }))
    }

    async fn close_session(
        &self,
        request: Request<api::CloseSessionRequest>,
    ) -> Result<Response<api::CloseSessionResponse>, Status> {
        let uid = peer_uid(&request);
        let asked = request.into_inner();
        let session = self.session(asked.session_id)?;
        let is_own_user = uid.is_ok_and(|uid| uid == session.peer().uid);
        if !is_own_user && asked.secret != session.secret() {
            return Err(Status::permission_denied("the session is another user's"));
        }
        session.socket().shut_down();
        self.shared.engine.detach(asked.session_id);
        Ok(Response::new(api::CloseSessionResponse {}))
    }

    async fn list_models(
        &self,
        _: Request<api::ListModelsRequest>,
    ) -> Result<Response<api::ListModelsResponse>, Status> {
        let mut models = Vec::new();
        for (name, entry) in self.shared.engine.models().snapshot().iter() {
            let labels = entry.current_labels();
            models.extend(entry.versions.values().map(|version| {
                api::ModelVersion {
                    labels: (labels.iter())
                        .filter(|&(_, named)| *named == version.version())
                        .map(|(label, _)| (*label).to_owned())
                        .collect(),
                    weight: (entry.split.as_ref())
                        .and_then(|split| split.weights().get(&version.version()).copied())
                        .unwrap_or(0),
                    ..model(version)
                }
            }));
            models.extend(entry.draining.iter().map(|version| model(version)));
            models.extend(
                entry
                    .failed
                    .iter()
                    .map(|(version, reason)| api::ModelVersion {
                        name: name.clone(),
                        version: *version,
                        state: "failed".into(),
                        reason: public_reason(reason),
                        ..api::ModelVersion::default()
                    }),
            );
        }
        models.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
        Ok(Response::new(api::ListModelsResponse { models }))
    }

    async fn list_sessions(
        &self,
        _: Request<api::ListSessionsRequest>,
    ) -> Result<Response<api::ListSessionsResponse>, Status> {
        let now_ns = now_ns();
        let describe = |session: Arc<Session>| api::Session {
            session_id: session.id(),
            client_name: session.client_name().to_owned(),
            uid: session.peer().uid,
            region_bytes: session.memory().byte_size(),
            in_flight: session.in_flight(),
            request_count: session.requests(),
            age_ms: now_ns.saturating_sub(session.opened_ns()) / 1_000_000,
        };
        let sessions = self
            .shared
            .engine
            .sessions()
            .all()
            .into_iter()
            .map(describe)
            .collect();
        Ok(Response::new(api::ListSessionsResponse { sessions }))
    }

    async fn server_status(
        &self,
        _: Request<api::ServerStatusRequest>,
    ) -> Result<Response<api::ServerStatusResponse>, Status> {
        let engine = &self.shared.engine;
        let (_, region_bytes) = engine.sessions().held();
        let (memory_limit_bytes, memory_used_bytes, memory_left_bytes) = engine
            .sessions()
            .budget()
            .map_or((0, 0, 0), |(account, left)| {
                (account.limit.bytes, account.limit.used, left)
            });
        let state = match *self.shared.phase.borrow() {
            Phase::Serving => "serving",
            Phase::HandedOver => "handed over",
            Phase::Draining | Phase::Ending => "draining",
        };
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu_time_us = cpu.tv_sec.unsigned_abs() * 1_000_000 + cpu.tv_nsec.unsigned_abs() / 1000;
        Ok(Response::new(api::ServerStatusResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            protocol: PROTOCOL_VERSION,
            state: state.into(),
            uptime_ms: now_ns().saturating_sub(self.shared.started_ns) / 1_000_000,
            cpu_time_us,
            resident_bytes: resident_bytes(),
            sessions: u32::try_from(engine.sessions().all().len()).unwrap_or(u32::MAX),
            region_bytes,
            engines: self.shared.engines.to_vec(),
            wakeups: engine.metrics().wakeups.get(),
            client_wakeups: engine.metrics().client_wakeups.get(),
            memory_limit_bytes,
            memory_used_bytes,
            memory_left_bytes,
            device: engine.devices().and_then(Devices::numbers).map(device),
        }))
    }

    async fn doorbell(
        &self,
        request: Request<Streaming<api::DoorbellSignal>>,
    ) -> Result<Response<Self::DoorbellStream>, Status> {
        let mut incoming = request.into_inner();
        let first = incoming
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("the stream ended before its first message"))?;
        let session = self.session(first.session_id)?;
        if first.secret != session.secret() {
            return Err(Status::permission_denied("the secret is not the session's"));
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let engine = Arc::clone(&self.shared.engine);
        engine.look_at(session.id());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    signal = incoming.next() => match signal {
                        Some(Ok(_)) => engine.look_at(session.id()),
                        _ => break,
                    },
                    () = session.stream_signal() => {
                        if session.is_closed() {
                            break;
                        }
                        let signal = api::DoorbellSignal { tail: session.completion_tail(), ..api::DoorbellSignal::default() };
                        // A full channel holds a signal that the client has not read: one is enough.
                        if let Err(TrySendError::Closed(_)) = sender.try_send(Ok(signal)) {
                            break;
                        }
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn device(numbers: DeviceNumbers) -> api::DeviceStatus {
    let (to, from) = (numbers.to_device, numbers.to_host);
    api::DeviceStatus {
        name: numbers.name,
        is_working: numbers.is_working,
        resets: numbers.resets,
        failed_resets: numbers.failed_resets,
        registered_bytes: numbers.registered_bytes,
        registered_limit_bytes: numbers.budget_bytes,
        registered_regions: numbers.registered as u64,
        pending_regions: numbers.pending as u64,
        refused_regions: numbers.refused as u64,
        retired_regions: numbers.retired as u64,
        direct_bytes: to.direct + from.direct,
        staged_bytes: to.staged + from.staged,
        pageable_bytes: to.pageable + from.pageable,
        within_bytes: numbers.within.gathered + numbers.within.scattered,
        shared_regions: numbers.shared_regions as u64,
        shared_bytes: numbers.shared_bytes,
    }
}

fn model(version: &ModelVersion) -> api::ModelVersion {
    let metadata = version.signature().metadata();
    let spec = |tensor: &adjoin_backend::TensorMetadata| {
        let TensorSpec {
            name,
            dtype,
            shape,
            dimension_names,
        } = tensor.spec();
        api::TensorSpec {
            name,
            data_type: dtype.name().into(),
            shape: shape.to_vec(),
            dimension_names,
            in_place: tensor.access != adjoin_backend::InputAccess::CopyFirst,
        }
    };
    api::ModelVersion {
        name: version.name().to_string(),
        version: version.version(),
        state: version.state().to_string(),
        reason: version
            .loss()
            .map_or_else(String::new, |reason| public_reason(&reason)),
        engine: version.engine().into(),
        instances: version.settings().instances,
        max_batch_size: version.settings().max_batch_size,
        inputs: metadata.inputs.iter().map(spec).collect(),
        outputs: metadata.outputs.iter().map(spec).collect(),
        statistics: (version.state() != State::Loading).then(|| statistics(version)),
        ..api::ModelVersion::default()
    }
}

fn statistics(version: &ModelVersion) -> api::ModelStatistics {
    let counted = version.metrics().statistics();
    let copied = |path: CopyPath| counted.copied[path as usize];
    api::ModelStatistics {
        inference_count: counted.inference_count,
        execution_count: counted.execution_count,
        request_count: counted.request_count,
        failed_request_count: counted.failed_request_count,
        in_place_count: counted.in_place_count,
        gathered_bytes: copied(CopyPath::Gather),
        scattered_bytes: copied(CopyPath::Scatter),
        engine_copied_bytes: copied(CopyPath::EngineInput) + copied(CopyPath::EngineOutput),
        copied_first_bytes: copied(CopyPath::CopyFirst),
        dynamic_output_bytes: copied(CopyPath::DynamicOutput),
        message_body_bytes: copied(CopyPath::MessageBody),
        transformed_bytes: copied(CopyPath::Transform),
        max_batch_rows: counted.max_batch_rows,
        queue_ns: counted.queue_ns,
        execute_ns: counted.execute_ns,
        executions_by_rows: counted
            .executions_by_rows
            .into_iter()
            .map(|(rows, batches)| (rows, batches.count))
            .collect(),
    }
}

/// Pages that are in memory, from the kernel's account of this process.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text
        .split(' ')
        .nth(1)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
