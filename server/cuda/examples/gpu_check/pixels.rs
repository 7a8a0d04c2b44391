//! A batch of images as pixels, which the kernel makes floats of, beside the same batch as floats: what each takes until the
//! engine's input is there. The floats are compared with a processor's, bit by bit.

use adjoin_cuda::{BatchSlot, FloatType, Normalize, NormalizeInput, SlotSpec, Transfers};
use adjoin_shm::Payload;
use serde_json::{Value, json};

use crate::Failure;
use crate::setup::{Party, gigabytes, median, microseconds, register_both, transfers};

const STAGING_BYTES: usize = 16 << 20;
/// Of images of three channels.
const IMAGE: Normalize = Normalize {
    height: 224,
    width: 224,
    channels: 3,
    scale: 1.0 / 255.0,
    mean: [0.485, 0.456, 0.406, 0.0],
    deviation: [0.229, 0.224, 0.225, 1.0],
    to: FloatType::Fp32,
};
const PIXELS: usize = 224 * 224;
const BYTES: usize = 3 * PIXELS;

pub(crate) fn run(is_quick: bool) -> Result<Value, Failure> {
    let (batches, turns): (&[usize], usize) = if is_quick {
        (&[1], 1)
    } else {
        (&[1, 8, 32], 21)
    };
    let transfers = transfers(None, STAGING_BYTES)?;
    let mut rows = Vec::new();
    for &images in batches {
        let mut party = Party::new((4 * images * BYTES) as u64)?;
        register_both(&transfers, std::iter::once(&party.memory))?;
        for (at, byte) in party.input.as_mut_slice::<u8>()?.iter_mut().enumerate() {
            *byte = (at * 89 + at / 256).to_le_bytes()[0];
        }
        let mut row = json!({ "images": images });
        for to in [FloatType::Fp32, FloatType::Fp16, FloatType::Bf16] {
            let normalize = Normalize { to, ..IMAGE };
            let (floats, pixels) = times(&transfers, turns, &party, &normalize, images)?;
            row[format!("{to:?}_floats_us")] = microseconds(floats).into();
            row[format!("{to:?}_pixels_us")] = microseconds(pixels).into();
            row[format!("{to:?}_pixels_gbs")] = gigabytes(images * BYTES, pixels).into();
        }
        compare(&transfers, &mut party, images)?;
        rows.push(row);
    }
    Ok(json!({ "batches": rows, "bits": "those of a processor" }))
}

fn pixels(party: &Party, byte_size: usize) -> Result<Payload<'_>, Failure> {
    let (request, offset) = (party.memory.request(), party.input.offset());
    Ok(request.payload(offset, byte_size as u64)?)
}

fn slot(transfers: &Transfers, normalize: &Normalize, images: usize) -> Result<BatchSlot, Failure> {
    let floats = images * BYTES * normalize.to.byte_size();
    let spec = SlotSpec {
        inputs: vec![floats],
        pixels: vec![images * BYTES],
        outputs: vec![floats],
        pieces_max: 1,
    };
    Ok(BatchSlot::new(transfers, spec)?)
}

fn made(normalize: &Normalize, images: usize) -> Result<NormalizeInput, Failure> {
    Ok(NormalizeInput {
        input: 0,
        normalize: *normalize,
        images: u32::try_from(images)?,
    })
}

/// What the floats of a batch take to the device, and its pixels with the kernel.
fn times(
    transfers: &Transfers,
    turns: usize,
    party: &Party,
    normalize: &Normalize,
    images: usize,
) -> Result<(std::time::Duration, std::time::Duration), Failure> {
    let floats = images * BYTES * normalize.to.byte_size();
    let spec = SlotSpec {
        inputs: vec![floats],
        pieces_max: 1,
        ..SlotSpec::default()
    };
    let mut plain = BatchSlot::new(transfers, spec)?;
    let as_floats = median(turns, || {
        let mut run = plain.begin()?;
        run.gather(0, &[pixels(party, floats)?])?;
        Ok(run.finish()?)
    })?;
    let mut slot = slot(transfers, normalize, images)?;
    let made = made(normalize, images)?;
    let as_pixels = median(turns, || {
        let mut run = slot.begin()?;
        run.gather(0, &[pixels(party, images * BYTES)?])?;
        run.normalize(&made)?;
        Ok(run.finish()?)
    })?;
    Ok((as_floats, as_pixels))
}

/// That the kernel gives a processor's bits.
fn compare(transfers: &Transfers, party: &mut Party, images: usize) -> Result<(), Failure> {
    let mut slot = slot(transfers, &IMAGE, images)?;
    let bytes = pixels(party, images * BYTES)?.to_vec();
    let mut run = slot.begin()?;
    run.gather(0, &[pixels(party, images * BYTES)?])?;
    run.normalize(&made(&IMAGE, images)?)?;
    run.with_lane(|lane, inputs, outputs| {
        lane.copy_on_device((&outputs[0], 0), (&inputs[0], 0), 4 * images * BYTES)
    })?;
    run.scatter(
        0,
        [party.output.payload_mut().split_at(4 * images * BYTES).0],
    )?;
    run.finish()?;
    let answer = party.output.as_slice::<f32>()?;
    for (image, planes) in bytes.chunks(BYTES).zip(answer.chunks(BYTES)) {
        for (at, value) in planes.iter().enumerate() {
            let (channel, pixel) = (at / PIXELS, at % PIXELS);
            let byte = f32::from(image[3 * pixel + channel]);
            let expected = (byte * IMAGE.scale - IMAGE.mean[channel]) / IMAGE.deviation[channel];
            if value.to_bits() != expected.to_bits() {
                return Err(
                    format!("{byte} became {value:?}, and {expected:?} on a processor").into(),
                );
            }
        }
    }
    Ok(())
}
