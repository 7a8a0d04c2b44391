//! A scripted server: speaks the protocol as the real one does, or as a test wants it to.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use adjoin_schema::DataType;
use adjoin_schema::attach::{
    AttachMessage, DeviceDetached, Hello, ModelInfo, ModelQuery, Refusal, TensorSpec, Welcome,
};
use adjoin_schema::descriptor::{
    DescriptorWriter, ResponseDescriptor, TensorDescriptor, parse_request,
};
use adjoin_schema::layout::{
    CompletionEntry, RegionKind, SessionLayout, SubmissionEntry, SubmissionKind, completion_flags,
    submit_flags, wait,
};
use adjoin_schema::limits::ATTACH_MESSAGE_BYTES_MAX;
use adjoin_schema::status::Status;
use adjoin_shm::doorbell::{self, EventNotifier};
use adjoin_shm::ring::{Consumer, Producer};
use adjoin_shm::socket::{AttachListener, AttachSocket};
use adjoin_shm::{Arena, OwnedRange, SessionMemory};
use rustix::event::{PollFd, PollFlags};

pub(crate) const COLUMNS: usize = 4;

/// Ends the process if a test hangs.
pub(crate) struct Watchdog(
    #[expect(dead_code, reason = "its drop is the signal")] mpsc::Sender<()>,
);

impl Watchdog {
    pub(crate) fn new() -> Self {
        let (alive, done) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if done.recv_timeout(Duration::from_secs(60)) == Err(mpsc::RecvTimeoutError::Timeout) {
                // The only way to end the threads that hang; the name of the test stands in the output.
                std::process::abort();
            }
        });
        Self(alive)
    }
}

/// A socket directory with a listener.
pub(crate) struct Fake {
    listener: AttachListener,
}

impl Fake {
    pub(crate) fn bind(dir: &Path) -> Self {
        let path = dir.join("attach.sock");
        let _ = std::fs::remove_file(&path);
        let listener = AttachListener::bind(&path).unwrap();
        Self { listener }
    }

    /// The next connection and its hello.
    pub(crate) fn greet(&self) -> (AttachSocket, Hello) {
        poll(&[self.listener.as_fd()]);
        let socket = self.listener.accept().unwrap();
        poll(&[socket.as_fd()]);
        let packet = socket.receive(ATTACH_MESSAGE_BYTES_MAX).unwrap();
        let Ok(AttachMessage::Hello(hello)) = AttachMessage::parse(&packet.bytes) else {
            panic!("no hello");
        };
        (socket, hello)
    }

    /// The next connection, as a session.
    pub(crate) fn accept(&self) -> Peer {
        let (socket, hello) = self.greet();
        Peer::welcome(socket, &hello)
    }

    /// Serves the next connection as the real server would, until the client leaves; gives back what
    /// it saw.
    pub(crate) fn serve(self) -> JoinHandle<Peer> {
        self.serve_by(Peer::handle)
    }

    /// Serves the next connection by a script that gets every submission entry.
    pub(crate) fn serve_by(
        self,
        mut script: impl FnMut(&mut Peer, SubmissionEntry) + Send + 'static,
    ) -> JoinHandle<Peer> {
        std::thread::spawn(move || {
            let mut peer = self.accept();
            peer.run(&mut script);
            peer
        })
    }
}

fn poll(fds: &[BorrowedFd<'_>]) {
    let mut fds: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    let timeout = rustix::time::Timespec {
        tv_sec: 30,
        tv_nsec: 0,
    };
    let _ = rustix::event::poll(&mut fds, Some(&timeout));
}

pub(crate) fn model_info() -> ModelInfo {
    let spec = |name: &str, dtype| TensorSpec {
        name: name.into(),
        dtype,
        shape: [-1, COLUMNS as i64].into_iter().collect(),
        dimension_names: vec!["rows".into(), String::new()],
    };
    ModelInfo {
        model: "double".into(),
        version: 3,
        ready_versions: vec![3],
        engine: "fake".into(),
        max_batch_size: 64,
        inputs: vec![spec("x", DataType::Fp32)],
        outputs: vec![spec("y", DataType::Fp32)],
        ..ModelInfo::default()
    }
}

struct Prepared {
    inputs: Vec<(u64, u64)>,
    response: Option<Response>,
    wanted_shape: Vec<i64>,
}

struct Response {
    _descriptor: OwnedRange,
    output: OwnedRange,
    completion: CompletionEntry,
}

/// What a script answers to a region on a device.
pub(crate) type AttachAnswer = Box<dyn Fn(u64, u32) -> AttachMessage + Send>;

/// The server's side of one session.
pub(crate) struct Peer {
    pub(crate) memory: SessionMemory,
    pub(crate) socket: AttachSocket,
    pub(crate) log: Vec<SubmissionEntry>,
    /// Whether the server may sleep on its event descriptor; otherwise it spins.
    pub(crate) may_sleep: bool,
    /// Whether requests are prepared when the client asks for it.
    pub(crate) prepares: bool,
    /// Bits that clients asked to be woken by.
    pub(crate) wakes: u32,
    /// The last completion.
    pub(crate) last: Option<CompletionEntry>,
    /// The answer to a region on a device, by the question's number and that of the region.
    pub(crate) attach: Option<AttachAnswer>,
    /// Regions that were attached so far.
    attached: u32,
    /// Those of them that were detached.
    pub(crate) detached: Vec<u32>,
    event: EventNotifier,
    arena: Arena,
    consumer: Consumer,
    producer: Producer,
    prepared: HashMap<u32, Prepared>,
    out: HashMap<(u64, u32), Response>,
    generation: u32,
}

fn describe(query: &ModelQuery) -> AttachMessage {
    let query_id = query.query_id;
    if query.model != "double" {
        return AttachMessage::Refusal(Refusal {
            query_id,
            status: Status::ModelNotFound as u16,
            detail: [0; 2],
        });
    }
    AttachMessage::ModelInfo(ModelInfo {
        query_id,
        ..model_info()
    })
}

impl Peer {
    pub(crate) fn welcome(socket: AttachSocket, hello: &Hello) -> Self {
        Self::welcome_with(socket, hello, 0)
    }

    /// The same by a server that understands more than the first release.
    pub(crate) fn welcome_with(socket: AttachSocket, hello: &Hello, features: u64) -> Self {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let session_id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let layout = SessionLayout::new(
            hello.request_bytes,
            hello.response_bytes,
            hello.ring_entries,
        )
        .unwrap();
        let memory = SessionMemory::create(layout, session_id).unwrap();
        let event = EventNotifier::new().unwrap();
        let welcome = Welcome {
            protocol: adjoin_schema::PROTOCOL_VERSION,
            session_id,
            request_bytes: layout.region_bytes(RegionKind::Request),
            response_bytes: layout.region_bytes(RegionKind::Response),
            ring_entries: layout.ring_entries(RegionKind::Response),
            server_version: "fake".into(),
            features,
            ..Welcome::default()
        };
        let [request, response] = memory.client_fds();
        let fds = [request, response, event.as_fd()];
        socket
            .send(&AttachMessage::Welcome(welcome).encode(), &fds)
            .unwrap();
        Self {
            arena: memory.response_arena(),
            memory,
            socket,
            log: Vec::new(),
            may_sleep: true,
            prepares: true,
            wakes: 0,
            last: None,
            attach: None,
            attached: 0,
            detached: Vec::new(),
            event,
            consumer: Consumer::new(),
            producer: Producer::new(),
            prepared: HashMap::new(),
            out: HashMap::new(),
            generation: 0,
        }
    }

    /// Handles entries until the client leaves.
    pub(crate) fn run(&mut self, script: &mut impl FnMut(&mut Self, SubmissionEntry)) {
        while let Some(entry) = self.next() {
            script(self, entry);
        }
    }

    /// The next submission entry; `None` when the client is gone. Questions are answered meanwhile.
    pub(crate) fn next(&mut self) -> Option<SubmissionEntry> {
        let mut looks = 0u32;
        loop {
            if let Some(entry) = self.poll() {
                return Some(entry);
            }
            looks += 1;
            if !self.may_sleep {
                if looks.is_multiple_of(4096) && !self.read_socket() {
                    return self.poll();
                }
                std::hint::spin_loop();
                continue;
            }
            doorbell::announce(self.memory.server_wait(), wait::ASLEEP);
            if self.consumer.available(&self.memory.submission_ring()) == Ok(0) {
                poll(&[self.event.as_fd(), self.socket.as_fd()]);
                let mut counter = [0; 8];
                let _ = rustix::io::read(&self.event, &mut counter);
            }
            doorbell::withdraw(self.memory.server_wait());
            if !self.read_socket() {
                // What it pushed before it left is of interest to tests.
                return self.poll();
            }
        }
    }

    /// A submission entry, if there is one.
    pub(crate) fn poll(&mut self) -> Option<SubmissionEntry> {
        let ring = self.memory.submission_ring();
        if self.consumer.available(&ring).unwrap() == 0 {
            return None;
        }
        let entry = SubmissionEntry::from_words(self.consumer.peek(&ring, 0));
        self.consumer.advance(&ring, 1);
        self.log.push(entry);
        Some(entry)
    }

    /// Answers questions; false when the client is gone.
    pub(crate) fn read_socket(&mut self) -> bool {
        while let Ok(packet) = self.socket.receive(ATTACH_MESSAGE_BYTES_MAX) {
            if packet.bytes.is_empty() {
                return false;
            }
            let answer = match AttachMessage::parse(&packet.bytes) {
                Ok(AttachMessage::ModelQuery(query)) => describe(&query),
                Ok(AttachMessage::DeviceAttach(attach)) => {
                    assert_eq!(packet.fds.len(), 1);
                    self.attached += 1;
                    let answer = self.attach.as_ref().expect("no region is awaited");
                    answer(attach.query_id, self.attached)
                }
                Ok(AttachMessage::DeviceDetach(detach)) => {
                    self.detached.push(detach.region);
                    let query_id = detach.query_id;
                    AttachMessage::DeviceDetached(DeviceDetached { query_id })
                }
                other => panic!("an unexpected message: {other:?}"),
            };
            // A client that detaches as it leaves waits for no answer.
            let _ = self.socket.send(&answer.encode(), &[]);
        }
        true
    }

    /// What the real server does with an entry.
    pub(crate) fn handle(&mut self, entry: SubmissionEntry) {
        match SubmissionKind::from_wire(entry.kind).expect("a kind") {
            SubmissionKind::Submit => self.answer(&entry),
            SubmissionKind::Cancel => {}
            SubmissionKind::Release => {
                let key = (entry.offset, entry.generation);
                assert!(
                    self.out.remove(&key).is_some(),
                    "release of what is not out"
                );
            }
            SubmissionKind::Forget => {
                assert!(self.prepared.remove(&entry.prepared_id).is_some());
            }
        }
    }

    /// Bytes of responses that the client has not given back.
    pub(crate) fn response_bytes_out(&self) -> u64 {
        self.arena.capacity() - self.arena.free_bytes()
    }

    /// Runs a request: `y = 2 x`.
    pub(crate) fn answer(&mut self, entry: &SubmissionEntry) {
        if entry.flags & submit_flags::PREPARED != 0 {
            return self.answer_prepared(entry);
        }
        let mut copy = Vec::new();
        let region = self.memory.request();
        region
            .copy_out(entry.offset, u64::from(entry.size), &mut copy)
            .unwrap();
        let payload = self.memory.layout().payload(RegionKind::Request);
        let request = parse_request(&copy, &payload).unwrap();
        assert_eq!(request.model, "double");
        let input = &request.inputs[0];
        assert_eq!((input.name, input.dtype), ("x", DataType::Fp32));
        let shape = input.shape.to_vec();
        let inputs = vec![(input.offset, input.byte_size)];
        let mut response = self.make_response(&shape, inputs[0].1);
        self.double(inputs[0], &mut response.output);
        response.completion.request_id = entry.request_id;
        let mut completion = response.completion;
        if entry.flags & submit_flags::PREPARE != 0 && self.prepares {
            completion.flags |= completion_flags::PREPARED;
            let prepared = Prepared {
                inputs,
                response: Some(response),
                wanted_shape: shape,
            };
            let before = self.prepared.insert(entry.prepared_id, prepared);
            assert!(before.is_none(), "a number that is in use");
        } else {
            let key = (completion.response_offset, completion.generation);
            self.out.insert(key, response);
        }
        self.complete(completion);
    }

    fn answer_prepared(&mut self, entry: &SubmissionEntry) {
        let Some(prepared) = self.prepared.get(&entry.prepared_id) else {
            let detail = [u64::from(entry.prepared_id), 0];
            return self.complete(CompletionEntry::failure(
                entry.request_id,
                Status::PreparedUnknown,
                detail,
            ));
        };
        assert_eq!((entry.offset, entry.size), (0, 0));
        assert!(!prepared.wanted_shape.is_empty());
        let input = prepared.inputs[0];
        let mut response = self
            .prepared
            .get_mut(&entry.prepared_id)
            .and_then(|prepared| prepared.response.take())
            .unwrap();
        self.double(input, &mut response.output);
        let mut completion = response.completion;
        completion.request_id = entry.request_id;
        completion.flags = completion_flags::PREPARED | completion_flags::SAME_RESPONSE;
        if let Some(prepared) = self.prepared.get_mut(&entry.prepared_id) {
            prepared.response = Some(response);
        }
        self.complete(completion);
    }

    /// Forgets prepared requests, as when a model is replaced.
    pub(crate) fn forget_all(&mut self) {
        self.prepared.clear();
    }

    fn double(&self, (offset, byte_size): (u64, u64), output: &mut OwnedRange) {
        let bytes = self.memory.request().payload(offset, byte_size).unwrap();
        let bytes = bytes.to_vec();
        let output = output.as_mut_slice::<f32>().unwrap();
        for (y, x) in output.iter_mut().zip(bytes.chunks_exact(4)) {
            *y = 2.0 * f32::from_le_bytes(x.try_into().unwrap());
        }
    }

    fn make_response(&mut self, shape: &[i64], byte_size: u64) -> Response {
        let output = self.arena.allocate(byte_size).expect("room for the output");
        let tensor = TensorDescriptor {
            name: "y",
            dtype: DataType::Fp32,
            shape: shape.iter().copied().collect(),
            region: 0,
            offset: output.offset(),
            byte_size,
        };
        let mut writer = DescriptorWriter::new();
        let response = ResponseDescriptor {
            model_version: 3,
            outputs: [tensor].into_iter().collect(),
        };
        let bytes = writer.response(&response).unwrap();
        let mut descriptor = self.arena.allocate(bytes.len() as u64).unwrap();
        descriptor.write(bytes);
        self.generation += 1;
        let completion = CompletionEntry {
            batch_size: 1,
            response_offset: descriptor.offset(),
            response_size: u32::try_from(bytes.len()).unwrap(),
            generation: self.generation,
            queue_ns: 1000,
            execute_ns: 2000,
            detail: [3, 0],
            ..CompletionEntry::failure(0, Status::Ok, [0; 2])
        };
        Response {
            _descriptor: descriptor,
            output,
            completion,
        }
    }

    pub(crate) fn refuse(&mut self, entry: &SubmissionEntry, status: Status, detail: [u64; 2]) {
        self.complete(CompletionEntry::failure(entry.request_id, status, detail));
    }

    /// Publishes a completion and wakes the client as it wants to be woken.
    pub(crate) fn complete(&mut self, completion: CompletionEntry) {
        let ring = self.memory.completion_ring();
        self.producer.push(&ring, completion.to_words()).unwrap();
        self.last = Some(completion);
        self.wake();
    }

    pub(crate) fn wake(&mut self) {
        let wanted = doorbell::wanted(self.memory.client_wait());
        self.wakes |= wanted;
        if wanted & wait::ASLEEP != 0 {
            doorbell::futex_wake_all(self.memory.completion_ring().tail);
        }
        if wanted & wait::SOCKET != 0 {
            self.socket.wake();
        }
    }

    /// Goes as a killed process does: the socket closes, the memory stays with the client.
    pub(crate) fn die(self) {
        let Self { memory, socket, .. } = self;
        std::mem::forget(memory);
        drop(socket);
    }
}
