//! Requests of a model's configuration that an instance runs before it is ready.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use adjoin_model_config::{WarmUp, WarmUpData, WarmUpInput};
use adjoin_schema::{DataType, Shape};
use adjoin_shm::Payload;

use super::warm_up;
use crate::model::{InstanceSlot, Signature, Timing};

/// Directory of their files, in the model's.
const DIRECTORY: &str = "warmup";
/// Random values are the same at each start, so that a model fails always or never.
const SEED: u64 = 1;
/// Bytes of a random string.
const STRING_BYTES: u32 = 8;

/// Runs a sample as often as it says; `model` is the model's directory.
pub(super) fn run(
    signature: &Signature,
    instance: &mut InstanceSlot,
    timing: &Timing,
    sample: &WarmUp,
    model: &Path,
) -> Result<(), String> {
    let failed = |reason: String| format!("sample {:?}: {reason}", sample.name);
    let rows = usize::try_from(sample.batch_size).unwrap_or(usize::MAX);
    let has_rows = signature.max_batch_size() > 0;
    let mut shapes = Vec::new();
    let mut sizes = Vec::new();
    for (spec, buffer) in signature.metadata().inputs.iter().zip(&mut instance.inputs) {
        let input = sample.inputs.get(&spec.name);
        let input = input.ok_or_else(|| failed(format!("it has no input {:?}", spec.name)))?;
        let row = values(input, model).map_err(failed)?;
        let bytes = if has_rows { row.repeat(rows) } else { row };
        buffer
            .reserve(bytes.len())
            .map_err(|error| failed(error.to_string()))?;
        Payload::from_slice(&bytes).copy_to(&mut buffer.payload_mut(bytes.len()));
        let rows = has_rows.then(|| i64::from(sample.batch_size));
        shapes.push(
            rows.into_iter()
                .chain(input.dims.iter().copied())
                .collect::<Shape>(),
        );
        sizes.push(bytes.len());
    }
    for _ in 0..sample.count {
        let ran = warm_up::run_filled(signature, instance, &shapes, &sizes).map_err(failed)?;
        ran.observe(timing);
    }
    Ok(())
}

/// The bytes of one row.
fn values(input: &WarmUpInput, model: &Path) -> Result<Vec<u8>, String> {
    let elements = adjoin_schema::element_count(&input.dims).map_err(|error| error.to_string())?;
    let elements = usize::try_from(elements).map_err(|error| error.to_string())?;
    // The configuration was checked: all rows together are less than its limit.
    let byte_size = match input
        .dtype
        .byte_size(&input.dims)
        .map_err(|error| error.to_string())?
    {
        Some(byte_size) => Some(usize::try_from(byte_size).map_err(|error| error.to_string())?),
        None => None,
    };
    match &input.data {
        WarmUpData::Zero => Ok(vec![0; byte_size.unwrap_or(4 * elements)]),
        WarmUpData::Random => Ok(random(input.dtype, elements)),
        WarmUpData::File(name) => {
            let bytes = read(&model.join(DIRECTORY).join(name), name)?;
            match byte_size {
                Some(expected) if expected != bytes.len() => Err(format!(
                    "{DIRECTORY}/{name} has {} bytes; the input takes {expected}",
                    bytes.len()
                )),
                _ => Ok(bytes),
            }
        }
    }
}

fn read(path: &Path, name: &str) -> Result<Vec<u8>, String> {
    let unreadable = |error| format!("cannot read {DIRECTORY}/{name}: {error}");
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    let limit = adjoin_model_config::limits::WARM_UP_BYTES_MAX;
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(bytes)
}

/// Fractions from 0 to 1, small numbers that may be indices, short words.
fn random(dtype: DataType, elements: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut bytes = Vec::new();
    for _ in 0..elements {
        match dtype {
            DataType::Fp64 => bytes.extend(random.f64().to_le_bytes()),
            DataType::Fp32 => bytes.extend(random.f32().to_le_bytes()),
            // Patterns of positive numbers up to 1: the exponent and fraction below that of 1.
            DataType::Fp16 => bytes.extend(random.u16(0..0x3c00).to_le_bytes()),
            DataType::Bf16 => bytes.extend(random.u16(0..0x3f80).to_le_bytes()),
            DataType::Bool => bytes.push(random.u8(0..2)),
            DataType::Uint8 | DataType::Int8 => bytes.push(random.u8(0..2)),
            DataType::Uint16 | DataType::Int16 => bytes.extend(random.u16(0..2).to_le_bytes()),
            DataType::Uint32 | DataType::Int32 => bytes.extend(random.u32(0..2).to_le_bytes()),
            DataType::Uint64 | DataType::Int64 => bytes.extend(random.u64(0..2).to_le_bytes()),
            DataType::Bytes => {
                bytes.extend(STRING_BYTES.to_le_bytes());
                bytes.extend((0..STRING_BYTES).map(|_| random.u8(b'a'..=b'z')));
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_values_have_the_bytes_of_their_type() {
        for dtype in DataType::ALL {
            let expected = match dtype.byte_size(&[3]).unwrap() {
                Some(bytes) => usize::try_from(bytes).unwrap(),
                None => 3 * 12,
            };
            assert_eq!(random(dtype, 3).len(), expected, "{dtype}");
        }
        let words = random(DataType::Bytes, 1);
        assert!(words[4..].iter().all(u8::is_ascii_lowercase));
        assert_eq!(words, random(DataType::Bytes, 1));
    }

    #[test]
    fn a_file_has_to_have_the_bytes_of_a_row() {
        let model = tempfile::tempdir().unwrap();
        std::fs::create_dir(model.path().join(DIRECTORY)).unwrap();
        std::fs::write(model.path().join(DIRECTORY).join("row"), [7; 8]).unwrap();
        let input = |dims: &[i64], name: &str| WarmUpInput {
            dtype: DataType::Fp32,
            dims: dims.into(),
            data: WarmUpData::File(name.into()),
        };
        assert_eq!(values(&input(&[2], "row"), model.path()), Ok(vec![7; 8]));
        let wrong = values(&input(&[3], "row"), model.path()).unwrap_err();
        assert!(wrong.contains("has 8 bytes; the input takes 12"), "{wrong}");
        let missing = values(&input(&[2], "none"), model.path()).unwrap_err();
        assert!(missing.starts_with("cannot read warmup/none"), "{missing}");
    }
}
