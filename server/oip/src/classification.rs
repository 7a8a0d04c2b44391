//! The classification extension: in place of all values of an output, the highest of each row with their indices and
//! labels, as strings `value:index:label`.

use std::sync::Arc;

use adjoin_schema::{DataType, Shape};
use bytes::Bytes;
use half::{bf16, f16};

use crate::{Fault, Kind};

/// Labels of an output's classes, by index.
pub type Labels = Arc<[String]>;

/// The `classes` highest values of each row of an output, as strings. With `is_batched` the first dimension counts rows;
/// without, all values are one row.
///
/// # Errors
/// If the output has no numbers.
pub fn classify(
    dtype: DataType,
    shape: &[i64],
    bytes: &[u8],
    classes: u32,
    is_batched: bool,
    labels: &[String],
) -> Result<(Shape, Bytes), Fault> {
    let values = numbers(dtype, bytes)?;
    let rows = match shape.first() {
        Some(&rows) if is_batched => usize::try_from(rows).unwrap_or(0),
        _ => 1,
    };
    let of_row = values.len().checked_div(rows).unwrap_or(0);
    let kept = of_row.min(usize::try_from(classes).unwrap_or(usize::MAX));
    let mut out = Vec::new();
    for row in values.chunks_exact(of_row.max(1)).take(rows) {
        let mut order: Vec<usize> = (0..row.len()).collect();
        let descending = |a: &usize, b: &usize| row[*b].total_cmp(&row[*a]);
        // Of a thousand classes usually five are wanted.
        if kept < order.len() {
            order.select_nth_unstable_by(kept, descending);
            order.truncate(kept);
        }
        order.sort_by(descending);
        for index in order {
            let text = match labels.get(index) {
                Some(label) => format!("{:.6}:{index}:{label}", row[index]),
                None => format!("{:.6}:{index}", row[index]),
            };
            let length = u32::try_from(text.len())
                .map_err(|_| Fault::new(Kind::Internal, "a label has more than 2^32 bytes"))?;
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
    }
    let mut shape = Shape::new();
    if is_batched {
        shape.push(i64::try_from(rows).unwrap_or(0));
    }
    shape.push(i64::try_from(kept).unwrap_or(0));
    Ok((shape, out.into()))
}

/// The values as numbers that can be compared.
fn numbers(dtype: DataType, bytes: &[u8]) -> Result<Vec<f64>, Fault> {
    fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes
            .as_chunks::<N>()
            .0
            .iter()
            .map(|element| value(*element))
            .collect()
    }
    #[allow(
        clippy::cast_precision_loss,
        reason = "only the order of scores is of interest"
    )]
    Ok(match dtype {
        DataType::Bool | DataType::Uint8 => each(bytes, |v| u8::from_le_bytes(v).into()),
        DataType::Uint16 => each(bytes, |v| u16::from_le_bytes(v).into()),
        DataType::Uint32 => each(bytes, |v| u32::from_le_bytes(v).into()),
        DataType::Uint64 => each(bytes, |v| u64::from_le_bytes(v) as f64),
        DataType::Int8 => each(bytes, |v| i8::from_le_bytes(v).into()),
        DataType::Int16 => each(bytes, |v| i16::from_le_bytes(v).into()),
        DataType::Int32 => each(bytes, |v| i32::from_le_bytes(v).into()),
        DataType::Int64 => each(bytes, |v| i64::from_le_bytes(v) as f64),
        DataType::Fp16 => each(bytes, |v| f16::from_le_bytes(v).into()),
        DataType::Bf16 => each(bytes, |v| bf16::from_le_bytes(v).into()),
        DataType::Fp32 => each(bytes, |v| f32::from_le_bytes(v).into()),
        DataType::Fp64 => each(bytes, f64::from_le_bytes),
        DataType::Bytes => {
            return Err(Fault::invalid(
                "classes can be asked of numbers, and the output has strings",
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::string_elements;

    fn texts(
        shape: &[i64],
        values: &[f32],
        classes: u32,
        is_batched: bool,
        labels: &[&str],
    ) -> (Vec<i64>, Vec<String>) {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        let (shape, bytes) =
            classify(DataType::Fp32, shape, &bytes, classes, is_batched, &labels).unwrap();
        let count = shape.iter().product::<i64>().unsigned_abs();
        let texts: Vec<_> = string_elements(&bytes, count)
            .collect::<Result<_, _>>()
            .unwrap();
        let texts = texts
            .iter()
            .map(|text| String::from_utf8(text.to_vec()).unwrap())
            .collect();
        (shape.to_vec(), texts)
    }

    #[test]
    fn highest_values_come_first_row_by_row_with_labels_where_there_are_some() {
        let (shape, of_rows) = texts(
            &[2, 3],
            &[0.1, 0.7, 0.2, 3.0, 1.0, 2.0],
            2,
            true,
            &["cat", "dog"],
        );
        assert_eq!(shape, [2, 2]);
        assert_eq!(
            of_rows,
            [
                "0.700000:1:dog",
                "0.200000:2",
                "3.000000:0:cat",
                "2.000000:2"
            ]
        );
        let (shape, of_all) = texts(&[2, 3], &[0.0, 0.7, 0.2, 3.0, 1.0, 2.0], 1, false, &[]);
        assert_eq!(
            (shape.as_slice(), of_all.as_slice()),
            ([1].as_slice(), ["3.000000:3".to_owned()].as_slice())
        );
    }

    #[test]
    fn more_classes_than_values_and_empty_outputs_are_no_trouble() {
        assert_eq!(
            texts(&[1, 2], &[1.0, f32::NAN], u32::MAX, true, &[]).0,
            [1, 2]
        );
        assert_eq!(texts(&[0, 2], &[], 5, true, &[]), (vec![0, 0], Vec::new()));
        let error = classify(DataType::Bytes, &[1], b"", 1, false, &[]).unwrap_err();
        assert!(error.text.contains("strings"), "{error}");
    }
}
