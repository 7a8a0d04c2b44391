//! Copies to the device and back by size, from memory of each kind: what the driver alone does from its own pinned
//! memory is the measure of the rest.

use std::time::Duration;

use adjoin_cuda::{BatchSlot, Device, DeviceBuffer, SlotSpec, Stream, Transfers};
use adjoin_shm::{AlignedBuffer, OwnedRange, Payload};
use cudarc::driver::sys::CU_MEMHOSTALLOC_PORTABLE;
use cudarc::driver::{CudaContext, result};
use serde_json::{Value, json};

use crate::Failure;
use crate::setup::{COPIES, gigabytes, input, median, register, session, transfers};

const STAGING_BYTES: usize = 512 << 20;

pub(crate) fn run(is_quick: bool) -> Result<Value, Failure> {
    let (sizes, turns): (&[usize], usize) = if is_quick {
        (&[64 << 10], 1)
    } else {
        (
            &[
                4 << 10,
                64 << 10,
                256 << 10,
                1 << 20,
                4 << 20,
                16 << 20,
                64 << 20,
            ],
            11,
        )
    };
    let with_staging = transfers(Some(COPIES), STAGING_BYTES)?;
    let without = transfers(Some(COPIES), 0)?;
    let mut rows = Vec::new();
    for &byte_size in sizes {
        let memory = [session(byte_size as u64)?];
        register(&with_staging, &memory)?;
        let registered = to_device(&with_staging, turns, byte_size, || {
            input(&memory[0], byte_size)
        })?;
        let registered_back = {
            let arena = memory[0].response_arena();
            let mut range = arena
                .allocate(byte_size as u64)
                .ok_or("no room in the response region")?;
            to_host(&with_staging, turns, byte_size, &mut range)?
        };
        let private = AlignedBuffer::new(byte_size)?;
        let staged = to_device(&with_staging, turns, byte_size, || {
            Ok(private.payload(byte_size))
        })?;
        let pageable = to_device(
            &without,
            turns,
            byte_size,
            || Ok(private.payload(byte_size)),
        )?;
        let (pinned, pinned_back) = by_driver(with_staging.device(), turns, byte_size)?;
        let speed = |time| gigabytes(byte_size, time);
        rows.push(json!({
            "bytes": byte_size,
            "to_device_gbs": {
                "pinned_by_the_driver": speed(pinned),
                "registered": speed(registered),
                "staged": speed(staged),
                "pageable": speed(pageable),
            },
            "to_host_gbs": { "pinned_by_the_driver": speed(pinned_back), "registered": speed(registered_back) },
            "registered_of_pinned": pinned.as_secs_f64() / registered.as_secs_f64().max(1e-9),
        }));
    }
    Ok(json!({ "sizes": rows }))
}

fn slot(transfers: &Transfers, byte_size: usize) -> Result<BatchSlot, Failure> {
    let spec = SlotSpec {
        inputs: vec![byte_size],
        outputs: vec![byte_size],
        pieces_max: 1,
        ..SlotSpec::default()
    };
    Ok(BatchSlot::new(transfers, spec)?)
}

fn to_device<'a>(
    transfers: &Transfers,
    turns: usize,
    byte_size: usize,
    piece: impl Fn() -> Result<Payload<'a>, Failure>,
) -> Result<Duration, Failure> {
    let mut slot = slot(transfers, byte_size)?;
    median(turns, || {
        let mut run = slot.begin()?;
        run.gather(0, &[piece()?])?;
        Ok(run.finish()?)
    })
}

fn to_host(
    transfers: &Transfers,
    turns: usize,
    byte_size: usize,
    room: &mut OwnedRange,
) -> Result<Duration, Failure> {
    let mut slot = slot(transfers, byte_size)?;
    median(turns, || {
        let mut run = slot.begin()?;
        run.scatter(0, [room.payload_mut()])?;
        Ok(run.finish()?)
    })
}

/// The driver's own copies between its pinned memory and the device, without this crate: there and back.
fn by_driver(
    device: &Device,
    turns: usize,
    byte_size: usize,
) -> Result<(Duration, Duration), Failure> {
    device.make_current()?;
    let context = CudaContext::new(usize::try_from(device.facts().index)?)?;
    let stream = Stream::new(device)?;
    let raw = stream.as_ptr().cast();
    let buffer = DeviceBuffer::new(device, byte_size)?;
    let address = buffer.device_address();
    #[allow(unsafe_code, reason = "a measure of the driver alone")]
    // SAFETY: the driver gives memory of its own, whose bytes are some numbers or other, and a `u8` may be any.
    let mut host =
        unsafe { context.alloc_pinned_with_flags::<u8>(byte_size, CU_MEMHOSTALLOC_PORTABLE)? };
    let host = host.as_mut_slice()?;
    let to_device = median(turns, || {
        #[allow(unsafe_code, reason = "a measure of the driver alone")]
        // SAFETY: both ranges have `byte_size` bytes, and live until the stream is synchronised below.
        unsafe {
            result::memcpy_htod_async(address, host, raw)?;
        }
        Ok(stream.synchronize()?)
    })?;
    let to_host = median(turns, || {
        #[allow(unsafe_code, reason = "a measure of the driver alone")]
        // SAFETY: as above, and `host` is borrowed exclusively.
        unsafe {
            result::memcpy_dtoh_async(host, address, raw)?;
        }
        Ok(stream.synchronize()?)
    })?;
    Ok((to_device, to_host))
}
