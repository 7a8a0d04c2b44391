//! A session as the protocol describes it, with the portable doorbell for both directions.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use adjoin_cli_kit::session_size::{region_bytes, ring_entries};
use adjoin_control_api::control::DoorbellSignal;
use adjoin_control_api::control::control_client::ControlClient;
use adjoin_schema::PROTOCOL_VERSION;
use adjoin_schema::attach::{AttachMessage, Hello, Welcome};
use adjoin_schema::descriptor::Rejection;
use adjoin_schema::layout::RegionKind::{Request, Response};
use adjoin_schema::layout::{
    CompletionEntry, ENTRY_WORDS, SessionLayout, SubmissionEntry, SubmissionKind, completion_flags,
    wait,
};
use adjoin_schema::limits::ATTACH_MESSAGE_BYTES_MAX;
use adjoin_schema::status::Status;
use adjoin_server::control::ATTACH_SOCKET;
use adjoin_shm::ring::{Consumer, Producer};
use adjoin_shm::socket::{AttachSocket, Packet};
use adjoin_shm::{Arena, ClientMemory, doorbell};
use tokio::sync::mpsc::Sender;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::bench::job::Job;
use crate::{Failure, control};

/// How long the server may take for the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A session whose wake-ups go over a stream.
pub(super) struct Session {
    memory: ClientMemory,
    submissions: Producer,
    completions: Consumer,
    signals: Sender<DoorbellSignal>,
    wake_ups: Streaming<DoorbellSignal>,
    /// Its end would be the session's.
    _socket: AttachSocket,
}

impl Session {
    /// Opens a session of the right size, and its stream.
    pub(super) async fn open(job: &Job) -> Result<Self, Failure> {
        let layout = SessionLayout::new(
            region_bytes(&job.inputs, job.pipeline),
            region_bytes(&job.outputs, job.pipeline),
            ring_entries(job.pipeline),
        )?;
        let (socket, welcome, packet) = attach(&job.socket_dir, layout)?;
        let memory = match packet.fds.as_slice() {
            [request, response, ..] => ClientMemory::map(layout, request, response)?,
            _ => return Err("the server sent no memory".into()),
        };
        let (signals, wake_ups) = doorbell_stream(&job.socket_dir, &welcome).await?;
        Ok(Self {
            memory,
            submissions: Producer::new(),
            completions: Consumer::new(),
            signals,
            wake_ups,
            _socket: socket,
        })
    }

    /// The space for inputs and descriptors.
    pub(super) fn arena(&self) -> Arena {
        self.memory.request_arena()
    }

    /// Publishes an entry, and says so to a server that sleeps.
    pub(super) async fn submit(&mut self, entry: SubmissionEntry) -> Result<(), Failure> {
        self.push(entry)?;
        if doorbell::wanted(self.memory.server_wait()) != 0 {
            let ring = self.memory.submission_ring();
            let signal = DoorbellSignal {
                tail: ring.tail.load(Ordering::Relaxed),
                ..DoorbellSignal::default()
            };
            self.signals.send(signal).await.map_err(|_| ended())?;
        }
        Ok(())
    }

    fn push(&mut self, entry: SubmissionEntry) -> Result<(), Failure> {
        Ok(self
            .submissions
            .push(&self.memory.submission_ring(), entry.to_words())?)
    }

    /// Waits for completions and takes them.
    pub(super) async fn completions(&mut self) -> Result<Vec<CompletionEntry>, Failure> {
        loop {
            let taken = self.take()?;
            if !taken.is_empty() {
                return Ok(taken);
            }
            doorbell::announce(self.memory.client_wait(), wait::STREAM);
            let taken = self.take()?;
            if taken.is_empty() && self.wake_ups.message().await?.is_none() {
                return Err(ended());
            }
            doorbell::withdraw(self.memory.client_wait());
            if !taken.is_empty() {
                return Ok(taken);
            }
        }
    }

    fn take(&mut self) -> Result<Vec<CompletionEntry>, Failure> {
        let ring = self.memory.completion_ring();
        let count = self.completions.available(&ring)?;
        let entries = (0..count)
            .map(|index| CompletionEntry::from_words(self.completions.peek(&ring, index)));
        let entries = entries.collect();
        self.completions.advance(&ring, count);
        Ok(entries)
    }

    /// Takes note of an answer, which must be a good one; whether the request is prepared now. The
    /// response of a prepared request stays with it, any other is given back.
    pub(super) fn settle(&mut self, completion: &CompletionEntry) -> Result<bool, Failure> {
        let status = Status::from_wire(completion.status).unwrap_or(Status::Internal);
        if status != Status::Ok {
            return Err(Rejection::new(status, completion.detail).into());
        }
        let is_prepared = completion.flags & completion_flags::PREPARED != 0;
        if !is_prepared {
            let mut entry = SubmissionEntry::from_words([0; ENTRY_WORDS]);
            entry.kind = SubmissionKind::Release as u8;
            entry.offset = completion.response_offset;
            entry.generation = completion.generation;
            self.push(entry)?;
        }
        Ok(is_prepared)
    }
}

fn ended() -> Failure {
    "the server ended the stream".into()
}

fn attach(
    socket_dir: &Path,
    layout: SessionLayout,
) -> Result<(AttachSocket, Welcome, Packet), Failure> {
    let socket = AttachSocket::connect(&socket_dir.join(ATTACH_SOCKET))?;
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        request_bytes: layout.region_bytes(Request),
        response_bytes: layout.region_bytes(Response),
        ring_entries: layout.ring_entries(Response),
        token: None,
        client_name: "adjoin bench".into(),
    };
    socket.send(&AttachMessage::Hello(hello).encode(), &[])?;
    if !socket.wait_readable(HANDSHAKE_TIMEOUT)? {
        return Err("the server did not answer the handshake".into());
    }
    let packet = socket.receive(ATTACH_MESSAGE_BYTES_MAX)?;
    match AttachMessage::parse(&packet.bytes)? {
        AttachMessage::Welcome(welcome) => Ok((socket, welcome, packet)),
        AttachMessage::Refusal(refusal) => {
            let status = Status::from_wire(refusal.status).unwrap_or(Status::Internal);
            Err(Rejection::new(status, refusal.detail).into())
        }
        _ => Err("the server answered the handshake with something else".into()),
    }
}

async fn doorbell_stream(
    socket_dir: &Path,
    welcome: &Welcome,
) -> Result<(Sender<DoorbellSignal>, Streaming<DoorbellSignal>), Failure> {
    let mut client = ControlClient::new(control::control_channel(socket_dir).await?);
    let (signals, outgoing) = tokio::sync::mpsc::channel(16);
    let first = DoorbellSignal {
        session_id: welcome.session_id,
        secret: welcome.secret.to_vec(),
        tail: 0,
    };
    signals.send(first).await.map_err(|_| ended())?;
    let wake_ups = control::answered(client.doorbell(ReceiverStream::new(outgoing))).await?;
    Ok((signals, wake_ups))
}
