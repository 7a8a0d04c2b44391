//! One batch of the requests of 32 sessions: every form of copy beside one copy of the same bytes, the processor that gathers
//! first, and requests that lie on the device already.

use adjoin_cuda::{
    BatchSlot, CopyForm, DeviceRegion, Driver, Kernels, SharedBuffer, SlotSpec, Thresholds,
    Transfers,
};
use adjoin_shm::{AlignedBuffer, Payload};
use serde_json::{Map, Value, json};

use crate::Failure;
use crate::setup::{
    BATCHED, COPIES, KERNEL, input, median, microseconds, register, session, transfers,
};

const SESSIONS: usize = 32;
const STAGING_BYTES: usize = 64 << 20;

pub(crate) fn run(is_quick: bool) -> Result<Value, Failure> {
    let (sizes, turns): (&[usize], usize) = if is_quick {
        (&[16 << 10], 1)
    } else {
        (
            &[1 << 10, 4 << 10, 16 << 10, 64 << 10, 147 << 10, 588 << 10],
            21,
        )
    };
    let largest = sizes.iter().copied().max().unwrap_or(0);
    let sessions: Vec<_> = (0..SESSIONS)
        .map(|_| session(largest as u64))
        .collect::<Result<_, _>>()?;
    let whole = [session((SESSIONS * largest) as u64)?];
    let private = AlignedBuffer::new(SESSIONS * largest)?;
    let mut forms = vec![("copies", COPIES), ("kernel", KERNEL)];
    if Driver::find()?.has_batched_copy() {
        forms.push(("batched", BATCHED));
    }
    let mut rows: Vec<Map<String, Value>> = sizes.iter().map(|size| row(*size)).collect();
    for (name, thresholds) in forms {
        let transfers = transfers(Some(thresholds), STAGING_BYTES)?;
        register(&transfers, &sessions)?;
        register(&transfers, &whole)?;
        let shared: Vec<Shared> = (0..SESSIONS)
            .map(|_| Shared::new(&transfers, largest))
            .collect::<Result<_, _>>()?;
        for (&byte_size, row) in sizes.iter().zip(&mut rows) {
            let pieces: Vec<Payload<'_>> = sessions
                .iter()
                .map(|memory| input(memory, byte_size))
                .collect::<Result<_, _>>()?;
            row.insert(format!("{name}_us"), time(&transfers, turns, &pieces)?);
            let pieces: Vec<Payload<'_>> = shared
                .iter()
                .map(|shared| shared.region.payload(0, byte_size as u64))
                .collect::<Option<_>>()
                .ok_or("a region on the device is smaller than a request")?;
            let within = time(&transfers, turns, &pieces)?;
            row.insert(format!("within_{name}_us"), within);
            if name == "copies" {
                let one = [input(&whole[0], SESSIONS * byte_size)?];
                row.insert("one_copy_us".into(), time(&transfers, turns, &one)?);
                let unregistered = private.payload(SESSIONS * byte_size);
                let parts: Vec<_> = (0..SESSIONS)
                    .filter_map(|index| unregistered.part(index * byte_size, byte_size))
                    .collect();
                row.insert("processor_us".into(), time(&transfers, turns, &parts)?);
            }
        }
    }
    let device = Driver::find()?.device(0)?;
    let measured = Thresholds::measure(&device, &Kernels::load(&device)?)?;
    Ok(json!({
        "sessions": SESSIONS,
        "sizes": rows,
        "kernel_below_bytes": measured.kernel_below_bytes,
        "batched_from_pieces": measured.batched_from_pieces,
        "form_for_588_kib": measured.choose(SESSIONS, SESSIONS * (588 << 10), device.driver().has_batched_copy()).as_str(),
        "form_of_one_piece": CopyForm::Contiguous.as_str(),
    }))
}

/// Memory on the device as a client has it, and as the server sees it.
struct Shared {
    region: DeviceRegion,
    _memory: SharedBuffer,
}

impl Shared {
    fn new(transfers: &Transfers, byte_size: usize) -> Result<Self, Failure> {
        let memory = SharedBuffer::allocate(transfers.device(), byte_size)?;
        let region = DeviceRegion::import(transfers, &memory.export()?, memory.byte_size(), ())?;
        Ok(Self {
            region,
            _memory: memory,
        })
    }
}

fn row(byte_size: usize) -> Map<String, Value> {
    let mut row = Map::new();
    row.insert("bytes_each".into(), byte_size.into());
    row
}

fn time(transfers: &Transfers, turns: usize, pieces: &[Payload<'_>]) -> Result<Value, Failure> {
    let spec = SlotSpec {
        inputs: vec![pieces.iter().map(Payload::byte_size).sum()],
        outputs: Vec::new(),
        pieces_max: SESSIONS,
        ..SlotSpec::default()
    };
    let mut slot = BatchSlot::new(transfers, spec)?;
    let time = median(turns, || {
        let mut run = slot.begin()?;
        run.gather(0, pieces)?;
        Ok(run.finish()?)
    })?;
    Ok(microseconds(time).into())
}
