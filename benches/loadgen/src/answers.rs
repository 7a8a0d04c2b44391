//! Comparing the answers of a server with those of the same model in-process.
//!
//! The answers are recorded once, into a file, by a client of the target `in-process`, and compared by each
//! client that is to be measured, for every content that its requests will have.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use adjoin_cli_kit::Failure;
use adjoin_cli_kit::contents::Contents;
use adjoin_cli_kit::tensor::Tensor;
use adjoin_schema::DataType;
use half::{bf16, f16};

use crate::caller::Caller;
use crate::lanes::Answer;

/// What may lie between an answer and the expected one: `ABSOLUTE + RELATIVE * abs(expected)`.
const ABSOLUTE: f64 = 1e-4;
const RELATIVE: f64 = 1e-3;

/// Writes the answers to all contents into a file.
pub(crate) fn record(
    caller: &mut dyn Caller,
    inputs: &[Tensor],
    path: &Path,
) -> Result<(), Failure> {
    let mut file = File::create_new(path)?;
    for contents in Contents::new(inputs)?.all() {
        for answer in caller.ask(contents)? {
            let mut heading = serde_json::to_vec(&answer.tensor)?;
            heading.push(b'\n');
            file.write_all(&heading)?;
            file.write_all(&answer.bytes)?;
        }
    }
    Ok(())
}

/// Compares the answers to all contents with those in a file; the largest difference.
pub(crate) fn check(
    caller: &mut dyn Caller,
    inputs: &[Tensor],
    path: &Path,
) -> Result<f64, Failure> {
    let recorded = read(path)?;
    let contents = Contents::new(inputs)?;
    let per_content = recorded.len() / contents.all().len();
    let mut error_max = 0.0f64;
    for (contents, expected) in contents
        .all()
        .iter()
        .zip(recorded.chunks(per_content.max(1)))
    {
        for (index, answer) in caller.ask(contents)?.iter().enumerate() {
            let error = compare(answer, counterpart(answer, index, expected)?)?;
            error_max = error_max.max(error);
        }
    }
    // The inputs are what they were before anybody looked.
    caller.ask(&contents.all()[0])?;
    Ok(error_max)
}

fn read(path: &Path) -> Result<Vec<Answer>, Failure> {
    let mut file = BufReader::new(File::open(path)?);
    let mut answers = Vec::new();
    loop {
        let mut heading = Vec::new();
        if std::io::BufRead::read_until(&mut file, b'\n', &mut heading)? == 0 {
            return Ok(answers);
        }
        let tensor: Tensor = serde_json::from_slice(&heading)?;
        let mut bytes = vec![0; tensor.bytes()];
        file.read_exact(&mut bytes)?;
        answers.push(Answer { tensor, bytes });
    }
}

/// The expected output of the same name; of the same place for one without a name.
fn counterpart<'a>(
    answer: &Answer,
    index: usize,
    expected: &'a [Answer],
) -> Result<&'a Answer, Failure> {
    let name = &answer.tensor.name;
    let found = if name.is_empty() {
        expected.get(index)
    } else {
        expected
            .iter()
            .find(|expected| expected.tensor.name == *name)
    };
    Ok(found.ok_or_else(|| format!("the model has no output {name:?}"))?)
}

fn compare(answer: &Answer, expected: &Answer) -> Result<f64, Failure> {
    let name = &expected.tensor.name;
    let of = &expected.tensor;
    if answer.tensor.shape != of.shape || answer.bytes.len() != expected.bytes.len() {
        return Err(format!(
            "wrong answer: output {name:?} has shape {:?} with {} bytes, not {:?} with {}",
            answer.tensor.shape,
            answer.bytes.len(),
            of.shape,
            expected.bytes.len()
        )
        .into());
    }
    let dtype = of.dtype()?;
    let (Some(values), Some(wanted)) =
        (floats(dtype, &answer.bytes), floats(dtype, &expected.bytes))
    else {
        return match answer.bytes == expected.bytes {
            true => Ok(0.0),
            false => Err(format!("wrong answer: output {name:?} differs").into()),
        };
    };
    let mut error_max = 0.0f64;
    for (index, (value, wanted)) in values.zip(wanted).enumerate() {
        if value == wanted || (value.is_nan() && wanted.is_nan()) {
            continue;
        }
        let error = (value - wanted).abs();
        let is_within = error.is_finite() && error <= ABSOLUTE + RELATIVE * wanted.abs();
        if !is_within {
            return Err(format!(
                "wrong answer: output {name:?} has {value} at {index}, not {wanted}"
            )
            .into());
        }
        error_max = error_max.max(error);
    }
    Ok(error_max)
}

/// The values, of a type that is compared with a tolerance.
fn floats(dtype: DataType, bytes: &[u8]) -> Option<Box<dyn Iterator<Item = f64> + '_>> {
    fn each<'a, const N: usize>(
        bytes: &'a [u8],
        value: impl Fn([u8; N]) -> f64 + 'a,
    ) -> Box<dyn Iterator<Item = f64> + 'a> {
        let (elements, _) = bytes.as_chunks::<N>();
        Box::new(elements.iter().map(move |element| value(*element)))
    }
    Some(match dtype {
        DataType::Fp16 => each(bytes, |bytes| f16::from_le_bytes(bytes).into()),
        DataType::Bf16 => each(bytes, |bytes| bf16::from_le_bytes(bytes).into()),
        DataType::Fp32 => each(bytes, |bytes| f32::from_le_bytes(bytes).into()),
        DataType::Fp64 => each(bytes, f64::from_le_bytes),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(name: &str, data_type: &str, bytes: Vec<u8>) -> Answer {
        let dtype = DataType::from_name(data_type).unwrap();
        let count = bytes.len() as u64 / dtype.element_bytes().unwrap();
        let tensor = Tensor {
            name: name.into(),
            data_type: data_type.into(),
            shape: vec![i64::try_from(count).unwrap()],
            byte_size: Some(bytes.len() as u64),
        };
        Answer { tensor, bytes }
    }

    fn fp32(values: &[f32]) -> Answer {
        answer(
            "y",
            "FP32",
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        )
    }

    #[test]
    fn floats_are_compared_with_the_tolerance_and_integers_exactly() {
        let error = compare(&fp32(&[1.0, 1000.5]), &fp32(&[1.0, 1000.0])).unwrap();
        assert!((error - 0.5).abs() < 1e-9);
        assert!(compare(&fp32(&[1.0, 1002.0]), &fp32(&[1.0, 1000.0])).is_err());
        assert!(compare(&fp32(&[f32::NAN]), &fp32(&[1.0])).is_err());
        assert!(compare(&fp32(&[1.0]), &fp32(&[f32::INFINITY])).is_err());
        assert!(compare(&fp32(&[f32::NAN]), &fp32(&[f32::NAN])).is_ok());
        assert!(compare(&fp32(&[1.0]), &fp32(&[1.0, 1.0])).is_err());
        let int = |value| answer("y", "INT32", vec![value, 0, 0, 0]);
        assert!(compare(&int(3), &int(3)).is_ok());
        assert!(compare(&int(3), &int(4)).is_err());
        let half = |bits: u16| answer("y", "FP16", bits.to_le_bytes().to_vec());
        assert!(compare(&half(0x3c00), &half(0x3c00)).is_ok());
        assert!(compare(&half(0x3c00), &half(0x4000)).is_err());
    }

    #[test]
    fn outputs_are_found_by_name_or_else_by_place() {
        let expected = [answer("a", "UINT8", vec![1]), answer("b", "UINT8", vec![2])];
        let at = |name: &str, index| counterpart(&answer(name, "UINT8", vec![9]), index, &expected);
        assert_eq!(at("b", 0).unwrap().bytes, [2]);
        assert_eq!(at("", 0).unwrap().bytes, [1]);
        assert!(at("c", 0).is_err() && at("", 2).is_err());
    }
}
