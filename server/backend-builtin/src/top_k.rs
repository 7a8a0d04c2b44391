//! `adjoin_top_k`: the highest scores of each row.

use std::cmp::Ordering;

use adjoin_backend::{Dimension, LoadError, ModelMetadata, strings};
use adjoin_schema::DataType;

use crate::labels::{self, Labels};
use crate::model::{Step, batch, tensor};
use crate::parameters::Parameters;
use crate::softmax::scores_type;
use crate::value::{Elements, Tensor, Value, dimension};

/// The `k` highest scores of each row, the highest first; of equal ones the first. What is not a number counts as
/// lower than all numbers.
///
/// Input `scores` (batch, classes), FP32 or by the parameter `data_type` FP16; outputs `indices` INT64, `values`
/// FP32 and, with the parameter `labels` (a file with one on each line), `labels` BYTES, all (batch, k). A class
/// without a label has an empty one.
#[derive(Clone, Debug)]
pub(crate) struct TopK {
    dtype: DataType,
    k: usize,
    labels: Option<Labels>,
}

const K_MAX: u32 = 1 << 16;

fn descending(a: f32, b: f32) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => b.partial_cmp(&a).unwrap_or(Ordering::Equal),
        (a, b) => a.cmp(&b),
    }
}

impl TopK {
    /// Indices of the highest scores of a row, in their order.
    fn highest(&self, row: &[f32], order: &mut Vec<usize>) {
        order.clear();
        order.extend(0..row.len());
        let by_score = |&a: &usize, &b: &usize| descending(row[a], row[b]).then(a.cmp(&b));
        // Of a thousand classes usually five are wanted.
        if self.k < order.len() {
            order.select_nth_unstable_by(self.k, by_score);
            order.truncate(self.k);
        }
        order.sort_unstable_by(by_score);
    }
}

impl Step for TopK {
    const NAME: &'static str = "adjoin_top_k";
    const PARAMETERS: &'static [&'static str] = &["k", "labels", "data_type"];

    fn new(parameters: &Parameters<'_>) -> Result<Self, LoadError> {
        let k = parameters.required("k", 1..=K_MAX)?;
        let labels = parameters.text("labels");
        Ok(Self {
            dtype: scores_type(parameters)?,
            k: usize::try_from(k).unwrap_or(usize::MAX),
            labels: labels
                .map(|file| labels::read(parameters, file))
                .transpose()?,
        })
    }

    fn metadata(&self) -> ModelMetadata {
        let classes = [batch(), Dimension::Named("classes".to_owned())];
        let shape = [batch(), Dimension::Fixed(dimension(self.k))];
        let mut outputs = vec![
            tensor("indices", DataType::Int64, &shape),
            tensor("values", DataType::Fp32, &shape),
        ];
        if self.labels.is_some() {
            outputs.push(tensor("labels", DataType::Bytes, &shape));
        }
        ModelMetadata {
            inputs: vec![tensor("scores", self.dtype, &classes)],
            outputs,
        }
    }

    fn compute(&mut self, inputs: &[Tensor<'_>]) -> Result<Vec<Value>, String> {
        let scores = inputs[0];
        let (rows, classes, k) = (scores.rows(), scores.row_len(), self.k);
        if classes < k {
            return Err(format!(
                "the {k} highest scores are wanted of rows that have {classes}"
            ));
        }
        let numbers = scores.numbers();
        let (mut indices, mut values, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        let mut order = Vec::new();
        for row in numbers.chunks_exact(classes) {
            self.highest(row, &mut order);
            for &index in &order {
                indices.push(dimension(index));
                values.push(row[index]);
                if let Some(labels) = &self.labels {
                    let label = labels.get(index).map_or("", String::as_str);
                    strings::push(&mut texts, label.as_bytes())?;
                }
            }
        }
        let value = |elements| Value {
            shape: vec![dimension(rows), dimension(k)],
            elements,
        };
        let mut results = vec![
            value(Elements::Int64(indices)),
            value(Elements::Float(values)),
        ];
        if self.labels.is_some() {
            results.push(value(Elements::Bytes(texts)));
        }
        Ok(results)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top_k(k: usize, classes: i64, scores: &[f32]) -> Result<Vec<Value>, String> {
        let input = Tensor {
            dtype: DataType::Fp32,
            shape: &[i64::try_from(scores.len()).unwrap() / classes, classes],
            bytes: bytemuck::cast_slice(scores),
        };
        let labels: Labels = ["cat".to_owned(), "dog".to_owned()].into();
        let mut step = TopK {
            dtype: DataType::Fp32,
            k,
            labels: Some(labels),
        };
        step.compute(&[input])
    }

    #[test]
    fn highest_come_first_row_by_row_and_equal_ones_in_their_order() {
        let scores = [0.1, 0.7, 0.2, 5.0, f32::NAN, 5.0];
        let results = top_k(2, 3, &scores).unwrap();
        assert_eq!(results[0].shape, [2, 2]);
        assert_eq!(results[0].elements, Elements::Int64(vec![1, 2, 0, 2]));
        let values = vec![0.7, 0.2, 5.0, 5.0];
        assert_eq!(results[1].elements, Elements::Float(values));
        let texts = strings::split(results[2].elements.bytes(), 4).unwrap();
        assert_eq!(texts, [b"dog".as_slice(), b"", b"cat", b""]);
        let all = top_k(3, 3, &scores[3..]).unwrap();
        assert_eq!(all[0].elements, Elements::Int64(vec![0, 2, 1]));
    }

    #[test]
    fn fewer_classes_than_wanted_are_refused() {
        let error = top_k(4, 3, &[0.0; 3]).unwrap_err();
        assert!(error.contains('4') && error.contains('3'), "{error}");
        assert_eq!(top_k(3, 3, &[]).unwrap()[0].shape, [0, 3]);
    }
}
