//! `adjoin_softmax`: scores to probabilities.

use adjoin_backend::{Dimension, LoadError, ModelMetadata};
use adjoin_schema::DataType;

use crate::model::{Step, batch, tensor};
use crate::parameters::Parameters;
use crate::value::{Elements, Tensor, Value};

/// The exponential of each score of a row, divided by the sum of all.
///
/// Input `scores` (batch, classes), FP32 or by the parameter `data_type` FP16; output `probabilities` FP32 of the
/// same shape.
#[derive(Clone, Debug)]
pub(crate) struct Softmax {
    dtype: DataType,
}

/// The type of scores that a configuration names.
pub(crate) fn scores_type(parameters: &Parameters<'_>) -> Result<DataType, LoadError> {
    let words = [("FP32", DataType::Fp32), ("FP16", DataType::Fp16)];
    let named = parameters.choice("data_type", &words)?;
    Ok(named.unwrap_or(DataType::Fp32))
}

impl Step for Softmax {
    const NAME: &'static str = "adjoin_softmax";
    const PARAMETERS: &'static [&'static str] = &["data_type"];

    fn new(parameters: &Parameters<'_>) -> Result<Self, LoadError> {
        let dtype = scores_type(parameters)?;
        Ok(Self { dtype })
    }

    fn metadata(&self) -> ModelMetadata {
        let shape = [batch(), Dimension::Named("classes".to_owned())];
        ModelMetadata {
            inputs: vec![tensor("scores", self.dtype, &shape)],
            outputs: vec![tensor("probabilities", DataType::Fp32, &shape)],
        }
    }

    fn compute(&mut self, inputs: &[Tensor<'_>]) -> Result<Vec<Value>, String> {
        let scores = inputs[0];
        let mut numbers = scores.numbers();
        for row in numbers.chunks_exact_mut(scores.row_len().max(1)) {
            // The largest becomes 0, so that no exponential overflows.
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for score in &mut *row {
                *score = (*score - most).exp();
            }
            let sum: f32 = row.iter().sum();
            for score in row {
                *score /= sum;
            }
        }
        Ok(vec![Value {
            shape: scores.shape.to_vec(),
            elements: Elements::Float(numbers),
        }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn softmax(classes: i64, scores: &[f32]) -> Vec<f32> {
        let rows = i64::try_from(scores.len()).unwrap() / classes.max(1);
        let input = Tensor {
            dtype: DataType::Fp32,
            shape: &[rows, classes],
            bytes: bytemuck::cast_slice(scores),
        };
        let mut step = Softmax {
            dtype: DataType::Fp32,
        };
        let results = step.compute(&[input]).unwrap();
        assert_eq!(results[0].shape, [rows, classes]);
        bytemuck::cast_slice(results[0].elements.bytes()).to_vec()
    }

    #[test]
    fn each_row_adds_up_to_one_however_large_its_scores() {
        let values = softmax(2, &[0.0, 0.0, 1000.0, 1000.0 + 3_f32.ln(), -1e30, 0.0]);
        let wanted = [0.5, 0.5, 0.25, 0.75, 0.0, 1.0];
        for (value, wanted) in values.iter().zip(wanted) {
            assert!((value - wanted).abs() < 1e-4, "{values:?}");
        }
        assert_eq!(softmax(3, &[]), Vec::<f32>::new());
        assert_eq!(softmax(0, &[]), Vec::<f32>::new());
    }
}
