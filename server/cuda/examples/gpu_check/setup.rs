//! What all steps begin with, and how they measure.

use std::time::{Duration, Instant};

use adjoin_cuda::{Driver, RegionState, Thresholds, TransferSettings, Transfers};
use adjoin_schema::layout::{RegionKind, SessionLayout};
use adjoin_shm::{ClientMemory, OwnedRange, Payload, SessionMemory};

use crate::Failure;

/// Copies that the driver does one by one.
pub(crate) const COPIES: Thresholds = Thresholds {
    kernel_below_bytes: 0,
    batched_from_pieces: usize::MAX,
};
/// Copies in one call.
pub(crate) const BATCHED: Thresholds = Thresholds {
    kernel_below_bytes: 0,
    batched_from_pieces: 0,
};
/// Copies by the kernel.
pub(crate) const KERNEL: Thresholds = Thresholds {
    kernel_below_bytes: usize::MAX,
    batched_from_pieces: usize::MAX,
};

const REGISTERED_BYTES: u64 = 4 << 30;

/// Device 0 with a registry, staging memory and kernels.
pub(crate) fn transfers(
    thresholds: Option<Thresholds>,
    staging_bytes: usize,
) -> Result<Transfers, Failure> {
    let device = Driver::find()?.device(0)?;
    let settings = TransferSettings {
        registered_bytes: REGISTERED_BYTES,
        staging_bytes,
        thresholds,
        spin: Duration::from_micros(200),
    };
    Ok(Transfers::start(&device, settings)?)
}

/// The layout of a session whose regions have room for `byte_size` bytes of payload each.
pub(crate) fn layout(byte_size: u64) -> Result<SessionLayout, Failure> {
    let room = byte_size.max(1 << 16) + (1 << 16);
    Ok(SessionLayout::new(room, room, 64)
        .map_err(|rejection| format!("no such session: {rejection:?}"))?)
}

/// Memory as of such a session.
pub(crate) fn session(byte_size: u64) -> Result<SessionMemory, Failure> {
    Ok(SessionMemory::create(layout(byte_size)?, 1)?)
}

/// The first `byte_size` bytes of payload of a session's request region.
pub(crate) fn input(memory: &SessionMemory, byte_size: usize) -> Result<Payload<'_>, Failure> {
    let start = memory.layout().payload(RegionKind::Request).start;
    Ok(memory.request().payload(start, byte_size as u64)?)
}

/// A session with its client in one process: the client's input, and room for an output.
pub(crate) struct Party {
    pub(crate) memory: SessionMemory,
    pub(crate) input: OwnedRange,
    pub(crate) output: OwnedRange,
}

impl Party {
    /// A session whose input and output have `byte_size` bytes each.
    pub(crate) fn new(byte_size: u64) -> Result<Self, Failure> {
        let memory = session(byte_size)?;
        let [request, response] = memory.client_fds();
        let (request, response) = (
            request.try_clone_to_owned()?,
            response.try_clone_to_owned()?,
        );
        let client = ClientMemory::map(memory.layout(), &request, &response)?;
        let input = client
            .request_arena()
            .allocate(byte_size)
            .ok_or("no room in a request region")?;
        let output = memory
            .response_arena()
            .allocate(byte_size)
            .ok_or("no room in a response region")?;
        Ok(Self {
            memory,
            input,
            output,
        })
    }
}

/// Registers both regions of sessions and waits until that is done.
pub(crate) fn register(transfers: &Transfers, sessions: &[SessionMemory]) -> Result<(), Failure> {
    register_both(transfers, sessions.iter())
}

/// The same for sessions wherever they are.
pub(crate) fn register_both<'m>(
    transfers: &Transfers,
    sessions: impl Iterator<Item = &'m SessionMemory>,
) -> Result<(), Failure> {
    let registry = transfers.registry();
    let regions = sessions.flat_map(|memory| [memory.request(), memory.response()]);
    let keys: Vec<_> = regions.map(|region| registry.register(region)).collect();
    registry.settle();
    for key in keys {
        match registry.state(key) {
            Some(RegionState::Registered) => {}
            state => return Err(format!("a region was not registered: {state:?}").into()),
        }
    }
    Ok(())
}

/// The median time of `turns` calls, after one that does not count.
pub(crate) fn median(
    turns: usize,
    mut call: impl FnMut() -> Result<(), Failure>,
) -> Result<Duration, Failure> {
    call()?;
    let mut times = Vec::with_capacity(turns);
    for _ in 0..turns {
        let start = Instant::now();
        call()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// A time in microseconds.
pub(crate) fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Speed in 10^9 bytes a second.
pub(crate) fn gigabytes(byte_size: usize, time: Duration) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
    let bytes = byte_size as f64;
    bytes / time.as_secs_f64().max(1e-9) / 1e9
}
