//! Whether work runs in the order that it has to: batches of changing sessions and sizes, in two slots by turns, whose
//! outputs are compared byte by byte. What the tests do on the fake driver, on the driver at hand.

use adjoin_cuda::{BatchSlots, CudaError, Path, SlotSpec, Stream};
use serde_json::{Value, json};

use crate::Failure;
use crate::setup::{Party, register_both, transfers};

const SESSIONS: usize = 8;
const PIECE_BYTES: usize = 96 << 10;
const STAGING_BYTES: usize = 16 << 20;

pub(crate) fn run(is_quick: bool) -> Result<Value, Failure> {
    let batches: usize = if is_quick { 20 } else { 5000 };
    let transfers = transfers(None, STAGING_BYTES)?;
    let mut parties: Vec<Party> = (0..SESSIONS)
        .map(|_| Party::new(PIECE_BYTES as u64))
        .collect::<Result<_, _>>()?;
    register_both(&transfers, parties.iter().map(|party| &party.memory))?;
    let spec = SlotSpec {
        inputs: vec![SESSIONS * PIECE_BYTES],
        outputs: vec![SESSIONS * PIECE_BYTES],
        pieces_max: SESSIONS,
        ..SlotSpec::default()
    };
    let slots = BatchSlots::new(&transfers, &spec, 2)?;
    let engine = Stream::new(transfers.device())?;
    let mut compared = 0_usize;
    for batch in 0..batches {
        let count = 1 + batch % SESSIONS;
        let byte_size = 1 + (batch * 7919) % PIECE_BYTES;
        let (mut pieces, mut rooms) = (Vec::new(), Vec::new());
        for (index, party) in parties.iter_mut().enumerate().take(count) {
            party.input.as_mut_slice::<u8>()?[..byte_size].fill(seed(batch, index));
            pieces.push(
                party
                    .memory
                    .request()
                    .payload(party.input.offset(), byte_size as u64)?,
            );
            rooms.push(party.output.payload_mut().split_at(byte_size).0);
        }
        let mut slot = slots.acquire();
        let mut run = slot.begin()?;
        let total = run.gather(0, &pieces)?;
        // The model of this test hands its input out. In a stream of its own, as an engine has one.
        run.compute(&engine, |_, _, _| Ok::<(), CudaError>(()))?;
        run.with_lane(|lane, inputs, outputs| {
            lane.copy_on_device((&outputs[0], 0), (&inputs[0], 0), total)
        })?;
        run.scatter(0, rooms)?;
        run.finish()?;
        for (index, party) in parties.iter().enumerate().take(count) {
            let bytes = party.output.as_slice::<u8>()?;
            let expected = seed(batch, index);
            if let Some(at) = bytes[..byte_size].iter().position(|&byte| byte != expected) {
                return Err(format!(
                    "batch {batch}: byte {at} of session {index} is {}, expected {expected}",
                    bytes[at]
                )
                .into());
            }
            compared += byte_size;
        }
    }
    let counters = transfers.device().counters();
    let by_processor = counters.to_device.by_processor() + counters.to_host.by_processor();
    if by_processor > 0 {
        return Err(format!("a processor copied {by_processor} bytes of registered memory").into());
    }
    Ok(json!({
        "batches": batches,
        "bytes_compared": compared,
        "bytes_by_the_device": counters.to_device.get(Path::Direct) + counters.to_host.get(Path::Direct),
        "bytes_by_a_processor": by_processor,
    }))
}

fn seed(batch: usize, index: usize) -> u8 {
    let [low, ..] = (batch * 31 + index * 7 + 1).to_le_bytes();
    low
}
