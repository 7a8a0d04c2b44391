//! Sessions as the server has them, with a client beside each, and slots for their batches.

use std::sync::Arc;
use std::time::Duration;

use adjoin_cuda::{
    CudaError, Device, Driver, Lane, RegionKey, RegionState, Registry, SlotSpec, Thresholds,
    TransferSettings, Transfers,
};
use adjoin_schema::layout::SessionLayout;
use adjoin_shm::{ClientMemory, OwnedRange, Payload, PayloadMut, SessionMemory};

/// A session whose client has written one request.
pub(crate) struct Session {
    pub(crate) memory: SessionMemory,
    client: ClientMemory,
    input: OwnedRange,
    pub(crate) output: OwnedRange,
}

impl Session {
    /// A session with room for one request of that size each way; what the client writes follows from `seed`.
    pub(crate) fn new(byte_size: usize, seed: usize) -> Self {
        let region = (byte_size as u64 + (64 << 10)).next_multiple_of(4096);
        let layout = SessionLayout::new(region, region, 64).unwrap();
        let memory = SessionMemory::create(layout, seed as u64).unwrap();
        let [request, response] = memory
            .client_fds()
            .map(|fd| fd.try_clone_to_owned().unwrap());
        let client = ClientMemory::map(layout, &request, &response).unwrap();
        let mut input = client.request_arena().allocate(byte_size as u64).unwrap();
        input.write(&content(byte_size, seed));
        let output = memory.response_arena().allocate(byte_size as u64).unwrap();
        Self {
            memory,
            client,
            input,
            output,
        }
    }

    /// The request, as the server sees it.
    pub(crate) fn payload(&self) -> Payload<'_> {
        let (offset, byte_size) = (self.input.offset(), self.input.byte_size());
        self.memory.request().payload(offset, byte_size).unwrap()
    }

    /// Room for the answer.
    pub(crate) fn room(&mut self) -> PayloadMut<'_> {
        self.output.payload_mut()
    }

    /// The answer, as the client sees it.
    pub(crate) fn answer(&self) -> Vec<u8> {
        let (offset, byte_size) = (self.output.offset(), self.output.byte_size());
        self.client
            .response()
            .payload(offset, byte_size)
            .unwrap()
            .to_vec()
    }

    /// Registers both regions.
    pub(crate) fn register(&self, registry: &Registry) -> [RegionKey; 2] {
        [self.memory.request(), self.memory.response()].map(|region| registry.register(region))
    }
}

/// What the client of a session writes: no two sessions the same, and no page like the next.
pub(crate) fn content(byte_size: usize, seed: usize) -> Vec<u8> {
    let byte = |index: usize| ((index * 31) ^ (index >> 9) ^ (seed * 7 + 1)) as u8;
    (0..byte_size).map(byte).collect()
}

pub(crate) fn sessions(count: usize, byte_size: usize) -> Vec<Session> {
    (0..count)
        .map(|seed| Session::new(byte_size, seed))
        .collect()
}

pub(crate) fn device() -> Device {
    Driver::find().unwrap().device(0).unwrap()
}

pub(crate) const SETTINGS: TransferSettings = TransferSettings {
    registered_bytes: 1 << 30,
    staging_bytes: 64 << 20,
    thresholds: Some(Thresholds {
        kernel_below_bytes: 0,
        batched_from_pieces: usize::MAX,
    }),
    spin: Duration::from_micros(50),
};

/// Settings that lead to one form of copy for more than one piece.
pub(crate) fn settings(kernel_below_bytes: usize, batched_from_pieces: usize) -> TransferSettings {
    TransferSettings {
        thresholds: Some(Thresholds {
            kernel_below_bytes,
            batched_from_pieces,
        }),
        ..SETTINGS
    }
}

pub(crate) fn transfers(settings: TransferSettings) -> Transfers {
    Transfers::start(&device(), settings).unwrap()
}

/// Registers all regions and waits until the device has them.
pub(crate) fn register_all(transfers: &Transfers, sessions: &[Session]) -> Vec<RegionKey> {
    let registry = transfers.registry();
    let keys: Vec<RegionKey> = sessions
        .iter()
        .flat_map(|session| session.register(registry))
        .collect();
    registry.settle();
    for key in &keys {
        assert_eq!(registry.state(*key), Some(RegionState::Registered));
    }
    keys
}

/// A model with one input and one output of the same size.
pub(crate) fn spec(byte_size: usize, pieces_max: usize) -> SlotSpec {
    SlotSpec {
        inputs: vec![byte_size],
        outputs: vec![byte_size],
        pieces_max,
        ..SlotSpec::default()
    }
}

/// Runs one batch of a model that gives back what it gets, in a lane of its own.
pub(crate) fn run_identity(
    slot: &mut adjoin_cuda::BatchSlot,
    engine: &mut Lane,
    sessions: &mut [Session],
) -> Result<(), CudaError> {
    let mut run = slot.begin()?;
    let pieces: Vec<Payload<'_>> = sessions.iter().map(Session::payload).collect();
    let byte_size = run.gather(0, &pieces)?;
    drop(pieces);
    run.compute_in(engine, |lane, inputs, outputs| {
        lane.copy_on_device((&outputs[0], 0), (&inputs[0], 0), byte_size)
    })?;
    run.scatter(0, sessions.iter_mut().map(Session::room))?;
    run.finish()
}

/// Every client has its own request back.
pub(crate) fn assert_answers(sessions: &[Session]) {
    for (seed, session) in sessions.iter().enumerate() {
        let answer = session.answer();
        assert!(answer == content(answer.len(), seed), "session {seed}");
    }
}

/// Tells how many copies of it there are: whether something that was handed over has been dropped.
#[derive(Clone, Default)]
pub(crate) struct Flag(Arc<()>);

impl Flag {
    pub(crate) fn copies(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}
