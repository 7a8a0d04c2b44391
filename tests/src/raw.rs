//! A client without the client library: it attaches by the protocol and then writes whatever bytes a test
//! wants where a client may write.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use adjoin_schema::PROTOCOL_VERSION;
use adjoin_schema::attach::{AttachMessage, Hello, Refusal, Welcome};
use adjoin_schema::descriptor::{DescriptorWriter, RequestDescriptor, TensorDescriptor};
use adjoin_schema::layout::{CompletionEntry, SessionLayout, SubmissionEntry, SubmissionKind};
use adjoin_schema::limits::ATTACH_MESSAGE_BYTES_MAX;
use adjoin_schema::status::Status;
use adjoin_schema::{DataType, Shape};
use adjoin_shm::doorbell::{self, EventNotifier};
use adjoin_shm::ring::{Consumer, Producer};
use adjoin_shm::socket::{AttachSocket, Packet};
use adjoin_shm::{Arena, ClientMemory, OwnedRange};
use bytemuck::Zeroable;

use crate::wait_for;

/// Sizes that raw sessions ask for.
pub const REGION_BYTES: u64 = 1 << 20;

/// An attached session without any manners.
#[derive(Debug)]
pub struct RawClient {
    /// The attach connection.
    pub socket: AttachSocket,
    /// The mapped regions.
    pub memory: ClientMemory,
    /// Descriptors as they came: request region, response region.
    pub regions: [OwnedFd; 2],
    /// The event descriptor.
    pub event: EventNotifier,
    /// What the server said.
    pub welcome: Welcome,
    /// Payload space of the request region.
    pub arena: Arena,
    /// Deadline of what is submitted; 0 for none.
    pub deadline_ns: u64,
    producer: Producer,
    consumer: Consumer,
    next_id: u64,
}

/// A hello with the usual sizes.
#[must_use]
pub fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        request_bytes: REGION_BYTES,
        response_bytes: REGION_BYTES,
        ring_entries: 16,
        token: None,
        client_name: "raw".into(),
    }
}

/// Sends one packet on a fresh connection and gives back what comes.
#[must_use]
pub fn exchange(socket_dir: &Path, packet: &[u8]) -> (AttachSocket, Option<Packet>) {
    let socket = AttachSocket::connect(&socket_dir.join("attach.sock")).unwrap();
    socket.send(packet, &[]).unwrap();
    let answer = receive(&socket);
    (socket, answer)
}

/// The next packet; `None` at the end of the connection.
#[must_use]
pub fn receive(socket: &AttachSocket) -> Option<Packet> {
    wait_for("an answer on the attach socket", || {
        socket.receive(ATTACH_MESSAGE_BYTES_MAX).ok()
    })
    .into()
}

/// The refusal that a packet holds.
#[must_use]
pub fn refusal(packet: Option<Packet>) -> (Status, [u64; 2]) {
    match AttachMessage::parse(&packet.unwrap().bytes) {
        Ok(AttachMessage::Refusal(Refusal { status, detail, .. })) => {
            (Status::from_wire(status).unwrap(), detail)
        }
        other => panic!("a refusal was expected, and this came: {other:?}"),
    }
}

impl RawClient {
    /// Attaches.
    #[must_use]
    pub fn attach(socket_dir: &Path) -> Self {
        Self::attach_with(socket_dir, hello())
    }

    /// Attaches with a hello of the test's own.
    #[must_use]
    pub fn attach_with(socket_dir: &Path, hello: Hello) -> Self {
        let (socket, packet) = exchange(socket_dir, &AttachMessage::Hello(hello).encode());
        let Packet { bytes, fds } = packet.unwrap();
        let Ok(AttachMessage::Welcome(welcome)) = AttachMessage::parse(&bytes) else {
            panic!(
                "a welcome was expected, and this came: {:?}",
                AttachMessage::parse(&bytes)
            );
        };
        let [request, response, event] = <[OwnedFd; 3]>::try_from(fds).unwrap();
        let layout = SessionLayout::new(
            welcome.request_bytes,
            welcome.response_bytes,
            welcome.ring_entries,
        )
        .unwrap();
        let memory = ClientMemory::map(layout, &request, &response).unwrap();
        Self {
            arena: memory.request_arena(),
            socket,
            memory,
            regions: [request, response],
            event: EventNotifier::from_fd(event),
            welcome,
            deadline_ns: 0,
            producer: Producer::new(),
            consumer: Consumer::new(),
            next_id: 1,
        }
    }

    /// Sends a message with descriptors; what comes back.
    #[must_use]
    pub fn ask(&self, message: &AttachMessage, descriptors: &[BorrowedFd<'_>]) -> AttachMessage {
        self.socket.send(&message.encode(), descriptors).unwrap();
        AttachMessage::parse(&receive(&self.socket).unwrap().bytes).unwrap()
    }

    /// Pushes an entry and rings.
    pub fn push(&mut self, entry: SubmissionEntry) {
        self.producer
            .push(&self.memory.submission_ring(), entry.to_words())
            .unwrap();
        self.ring();
    }

    /// Pushes an entry and does not ring.
    pub fn push_silently(&mut self, entry: SubmissionEntry) {
        self.producer
            .push(&self.memory.submission_ring(), entry.to_words())
            .unwrap();
    }

    /// Wakes the server if it sleeps.
    pub fn ring(&self) {
        if doorbell::wanted(self.memory.server_wait()) != 0 {
            self.event.notify();
        }
    }

    /// An entry that submits a descriptor at a place.
    #[must_use]
    pub fn submission(&mut self, offset: u64, size: u32) -> SubmissionEntry {
        self.next_id += 1;
        SubmissionEntry {
            kind: SubmissionKind::Submit as u8,
            request_id: self.next_id,
            offset,
            size,
            deadline_ns: self.deadline_ns,
            ..SubmissionEntry::zeroed()
        }
    }

    /// Writes a descriptor into the region.
    #[must_use]
    pub fn write(&self, bytes: &[u8]) -> OwnedRange {
        let mut range = self.arena.allocate(bytes.len() as u64).unwrap();
        range.write(bytes);
        range
    }

    /// Submits bytes as a descriptor; the outcome.
    pub fn submit_bytes(&mut self, bytes: &[u8]) -> CompletionEntry {
        let range = self.write(bytes);
        let entry = self.submission(range.offset(), u32::try_from(bytes.len()).unwrap());
        self.push(entry);
        self.completion()
    }

    /// Submits a request; the outcome.
    pub fn submit(&mut self, request: &RequestDescriptor<'_>) -> CompletionEntry {
        let mut writer = DescriptorWriter::new();
        let bytes = writer.request(request).unwrap().to_vec();
        self.submit_bytes(&bytes)
    }

    /// Submits a good request of the model `add`; the outcome.
    pub fn submit_add(&mut self) -> CompletionEntry {
        let (a, b) = (
            self.arena.allocate(16).unwrap(),
            self.arena.allocate(16).unwrap(),
        );
        let tensor = |name, range: &OwnedRange| TensorDescriptor {
            name,
            dtype: DataType::Fp32,
            shape: Shape::from_slice(&[1, 4]),
            region: 0,
            offset: range.offset(),
            byte_size: 16,
        };
        let inputs = [tensor("a", &a), tensor("b", &b)].into_iter().collect();
        self.submit(&RequestDescriptor {
            model: "add",
            version: 0,
            label: "",
            inputs,
            outputs: Default::default(),
            rooms: Default::default(),
        })
    }

    /// The next completion.
    pub fn completion(&mut self) -> CompletionEntry {
        let ring = self.memory.completion_ring();
        wait_for("a completion", || {
            (self.consumer.available(&ring).unwrap() > 0).then_some(())
        });
        let entry = CompletionEntry::from_words(self.consumer.peek(&ring, 0));
        self.consumer.advance(&ring, 1);
        entry
    }

    /// Why the server ended this session.
    #[must_use]
    pub fn ended(&self) -> Status {
        let (status, _) = refusal(receive(&self.socket));
        wait_for("the end of the session", || {
            self.socket.is_hung_up().then_some(())
        });
        status
    }

    /// Whether the session still lives: a question gets an answer.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.socket.is_hung_up()
    }

    /// The request region's descriptor.
    #[must_use]
    pub fn request_fd(&self) -> impl AsFd + '_ {
        &self.regions[0]
    }
}
