//! Whether a configuration says what its model does.

use adjoin_backend::{Dimension, ModelMetadata, TensorMetadata};
use adjoin_schema::DataType;
use adjoin_schema::text::shape_text;

use crate::checked::{Checked, TensorConfig, WarmUp, word};
use crate::error::{ConfigError, quoted};

impl Checked {
    /// Checks names, types and shapes of all that is configured against the model's own description. A dimension that
    /// the model leaves open may be fixed here, not the other way round.
    ///
    /// # Errors
    /// [`ConfigError::Mismatch`], and [`ConfigError::Value`] for a sample of the warm-up that no request could be.
    pub fn fits(&self, metadata: &ModelMetadata) -> Result<(), ConfigError> {
        for input in &self.inputs {
            self.tensor_fits("input", &input.tensor, &metadata.inputs)?;
        }
        for output in &self.outputs {
            self.tensor_fits("output", &output.tensor, &metadata.outputs)?;
        }
        let has = |name: &String| self.inputs.iter().any(|input| input.tensor.name == *name);
        let is_whole =
            self.inputs.is_empty() || metadata.inputs.iter().all(|known| has(&known.name));
        if !is_whole {
            let configured = names(self.inputs.iter().map(|input| &input.tensor.name));
            return Err(mismatch(
                "input",
                configured,
                tensor_names(&metadata.inputs),
            ));
        }
        let samples = self.warm_up.iter().enumerate();
        for (index, sample) in samples {
            self.warm_up_fits(index, sample, metadata)?;
        }
        Ok(())
    }

    fn tensor_fits(
        &self,
        kind: &str,
        tensor: &TensorConfig,
        known: &[TensorMetadata],
    ) -> Result<(), ConfigError> {
        let path = |field: &str| format!("{kind} {}{field}", quoted(&tensor.name));
        let Some(model) = known.iter().find(|known| known.name == tensor.name) else {
            let configured = format!("that there is an {kind} of this name");
            return Err(mismatch(path(""), configured, tensor_names(known)));
        };
        check_dtype(path(" data_type"), tensor.dtype, model.dtype)?;
        let shape = tensor.model_shape(self.max_batch_size);
        let has_rows = match model.dimensions.first() {
            Some(first) => first.or_open() < 0,
            None => false,
        };
        let dims_fit = shape.len() == model.dimensions.len()
            && shape
                .iter()
                .zip(&model.dimensions)
                .all(|(&dim, known)| match known {
                    Dimension::Fixed(size) => dim == *size,
                    Dimension::Named(_) | Dimension::Unknown => true,
                });
        if dims_fit && (has_rows || self.max_batch_size == 0) {
            return Ok(());
        }
        let field = if tensor.reshape.is_some() {
            " reshape"
        } else {
            " dims"
        };
        let rows = match self.max_batch_size {
            0 => "",
            _ => ", rows included",
        };
        let configured = format!("{}{rows}", shape_text(&shape, &[]));
        Err(mismatch(path(field), configured, model_shape_text(model)))
    }

    /// A sample has every input that a request must have, and each fits what clients may send.
    fn warm_up_fits(
        &self,
        index: usize,
        sample: &WarmUp,
        metadata: &ModelMetadata,
    ) -> Result<(), ConfigError> {
        let path = |name: &str| format!("model_warmup[{index}].inputs[{}]", quoted(name));
        let is_optional = |name: &String| {
            let mut configured = self.inputs.iter();
            configured.any(|input| input.is_optional && input.tensor.name == *name)
        };
        for known in &metadata.inputs {
            if !sample.inputs.contains_key(&known.name) && !is_optional(&known.name) {
                return Err(mismatch(
                    format!("model_warmup[{index}].inputs"),
                    names(sample.inputs.keys()),
                    tensor_names(&metadata.inputs),
                ));
            }
        }
        for (name, input) in &sample.inputs {
            let Some(known) = metadata.inputs.iter().find(|known| known.name == *name) else {
                let configured = "that there is an input of this name".to_owned();
                return Err(mismatch(
                    path(name),
                    configured,
                    tensor_names(&metadata.inputs),
                ));
            };
            check_dtype(
                format!("{}.data_type", path(name)),
                input.dtype,
                known.dtype,
            )?;
            let rows = usize::from(self.max_batch_size > 0);
            let configured = self.inputs.iter().find(|input| input.tensor.name == *name);
            let expected = match configured {
                Some(input) => input.tensor.dims.clone(),
                None => known.open_shape().into_iter().skip(rows).collect(),
            };
            if !can_be_equal(&input.dims, &expected) {
                let path = format!("{}.dims", path(name));
                let expected = format!("a request has {} there", shape_text(&expected, &[]));
                return Err(ConfigError::value(
                    path,
                    shape_text(&input.dims, &[]),
                    expected,
                ));
            }
        }
        Ok(())
    }
}

/// Whether two shapes can be one, -1 being any size.
pub(crate) fn can_be_equal(one: &[i64], other: &[i64]) -> bool {
    let fits = |(&a, &b): (&i64, &i64)| a == b || a < 0 || b < 0;
    one.len() == other.len() && one.iter().zip(other).all(fits)
}

fn check_dtype(path: String, configured: DataType, known: DataType) -> Result<(), ConfigError> {
    if configured == known {
        return Ok(());
    }
    let name = |dtype| word(dtype).as_str_name().to_owned();
    Err(mismatch(path, name(configured), name(known)))
}

pub(crate) fn mismatch(path: impl Into<String>, configured: String, actual: String) -> ConfigError {
    ConfigError::Mismatch {
        path: path.into(),
        configured,
        actual,
    }
}

pub(crate) fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<String> = names.map(|name| quoted(name)).collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}

fn tensor_names(tensors: &[TensorMetadata]) -> String {
    names(tensors.iter().map(|tensor| &tensor.name))
}

fn model_shape_text(model: &TensorMetadata) -> String {
    let names: Vec<String> = model
        .dimensions
        .iter()
        .map(|d| d.name().to_owned())
        .collect();
    shape_text(&model.open_shape(), &names)
}

#[cfg(test)]
mod tests {
    use adjoin_backend::InputAccess;

    use super::*;
    use crate::parse_text;

    fn tensor(name: &str, dtype: DataType, dimensions: &[Dimension]) -> TensorMetadata {
        TensorMetadata {
            name: name.into(),
            dtype,
            dimensions: dimensions.into(),
            access: InputAccess::InPlace,
        }
    }

    /// Two inputs and two outputs; the last of them has no rows.
    fn metadata() -> ModelMetadata {
        let batch = Dimension::Named("batch".into());
        ModelMetadata {
            inputs: vec![
                tensor("x", DataType::Fp32, &[batch.clone(), Dimension::Fixed(784)]),
                tensor("ids", DataType::Int64, &[batch.clone(), Dimension::Unknown]),
            ],
            outputs: vec![
                tensor("y", DataType::Fp32, &[batch, Dimension::Fixed(10)]),
                tensor("total", DataType::Fp32, &[Dimension::Fixed(1)]),
            ],
        }
    }

    fn fits(text: &str) -> Result<(), ConfigError> {
        Checked::new("m", &parse_text(text).unwrap())
            .unwrap()
            .0
            .fits(&metadata())
    }

    const INPUTS: &str =
        "input [ { name: 'x' data_type: TYPE_FP32 dims: [ 28, 28 ] reshape { shape: 784 } },
        { name: 'ids' data_type: TYPE_INT64 dims: 5 } ]";

    #[test]
    fn what_the_model_allows_fits() {
        assert_eq!(fits(""), Ok(()));
        let good = format!(
            "max_batch_size: 8 {INPUTS} output {{ name: 'y' data_type: TYPE_FP32 dims: 10 }}"
        );
        assert_eq!(fits(&good), Ok(()));
        assert_eq!(
            fits("output { name: 'y' data_type: TYPE_FP32 dims: [ -1, 10 ] }"),
            Ok(())
        );
        // Without joining, the rows are a dimension like any other.
        assert_eq!(
            fits("output { name: 'y' data_type: TYPE_FP32 dims: [ 1, 10 ] }"),
            Ok(())
        );
    }

    #[test]
    fn what_the_model_is_not_is_named_beside_what_it_is() {
        let output = |fields: &str| format!("max_batch_size: 8 {INPUTS} output {{ {fields} }}");
        let sample =
            |inputs: &str| format!("max_batch_size: 8 {INPUTS} model_warmup {{ {inputs} }}");
        let ids = "inputs { key: 'ids' value { data_type: TYPE_INT64 dims: 5 zero_data: true } }";
        for (text, expected) in [
            (
                output("name: 'z' data_type: TYPE_FP32 dims: 10"),
                "output \"z\" says that there is an output of this name; the model has \"y\", \"total\"",
            ),
            (
                output("name: 'y' data_type: TYPE_FP16 dims: 10"),
                "output \"y\" data_type says TYPE_FP16; the model has TYPE_FP32",
            ),
            (
                output("name: 'y' data_type: TYPE_FP32 dims: 11"),
                "output \"y\" dims says [-1,11], rows included; the model has [batch,10]",
            ),
            (
                output("name: 'y' data_type: TYPE_FP32 dims: -1"),
                "output \"y\" dims says [-1,-1], rows included; the model has [batch,10]",
            ),
            (
                output("name: 'total' data_type: TYPE_FP32"),
                "output \"total\" dims says [-1], rows included; the model has [1]",
            ),
            (
                output("name: 'y' data_type: TYPE_FP32 dims: 12 reshape { shape: [ 3, 4 ] }"),
                "output \"y\" reshape says [-1,3,4], rows included; the model has [batch,10]",
            ),
            (
                "input { name: 'x' data_type: TYPE_FP32 dims: [ -1, 784 ] }".to_owned(),
                "input says \"x\"; the model has \"x\", \"ids\"",
            ),
            (
                sample(ids),
                "model_warmup[0].inputs says \"ids\"; the model has \"x\", \"ids\"",
            ),
            (
                sample(&format!(
                    "{ids} inputs {{ key: 'x' value {{ data_type: TYPE_FP32 dims: 784 zero_data: true }} }}"
                )),
                "model_warmup[0].inputs[\"x\"].dims is [784]; a request has [28,28] there",
            ),
            (
                sample(&format!(
                    "{ids} inputs {{ key: 'x' value {{ data_type: TYPE_BOOL dims: 784 zero_data: true }} }}"
                )),
                "model_warmup[0].inputs[\"x\"].data_type says TYPE_BOOL; the model has TYPE_FP32",
            ),
        ] {
            assert_eq!(fits(&text).unwrap_err().to_string(), expected);
        }
        let good = format!(
            "{ids} inputs {{ key: 'x' value {{ data_type: TYPE_FP32 dims: [28, 28] random_data: true }} }}"
        );
        assert_eq!(fits(&sample(&good)), Ok(()));
    }
}
