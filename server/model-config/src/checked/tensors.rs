//! Inputs and outputs: names, types, shapes, and what a reshape may do.

use std::collections::HashSet;

use adjoin_control_api::inference as api;
use adjoin_schema::limits::{RANK_MAX, TENSOR_NAME_BYTES_MAX, TENSORS_MAX};
use adjoin_schema::text::shape_text;
use adjoin_schema::{DataType, Shape};

use super::file_name;
use crate::error::{ConfigError, quoted};

/// A tensor as clients see it, and as the model has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorConfig {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub dtype: DataType,
    /// Dimensions as clients have them, -1 for any size; without the batch dimension if `max_batch_size` is above 0.
    pub dims: Shape,
    /// Dimensions as the model has them, if those are others; without the batch dimension as `dims`.
    pub reshape: Option<Shape>,
}

/// An input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputConfig {
    /// Its name, type and shape.
    pub tensor: TensorConfig,
    /// Whether a request may leave it out.
    pub is_optional: bool,
}

/// An output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputConfig {
    /// Its name, type and shape.
    pub tensor: TensorConfig,
    /// File with the labels of its classes, one path segment.
    pub label_filename: Option<String>,
}

impl TensorConfig {
    /// The whole shape as clients have it: with -1 first for the rows if requests can be joined.
    #[must_use]
    pub fn client_shape(&self, max_batch_size: u32) -> Shape {
        whole(&self.dims, max_batch_size)
    }

    /// The whole shape as the model has it.
    #[must_use]
    pub fn model_shape(&self, max_batch_size: u32) -> Shape {
        whole(self.reshape.as_ref().unwrap_or(&self.dims), max_batch_size)
    }
}

fn whole(dims: &[i64], max_batch_size: u32) -> Shape {
    let rows = (max_batch_size > 0).then_some(-1);
    rows.into_iter().chain(dims.iter().copied()).collect()
}

pub(super) fn inputs(configured: &[api::ModelInput]) -> Result<Vec<InputConfig>, ConfigError> {
    check_names("input", configured.iter().map(|input| input.name.as_str()))?;
    let mut inputs = Vec::new();
    for (index, input) in configured.iter().enumerate() {
        let path = format!("input[{index}]");
        let reshape = input.reshape.as_ref();
        let tensor = tensor(&path, &input.name, input.data_type, &input.dims, reshape)?;
        check_format(&path, input)?;
        inputs.push(InputConfig {
            tensor,
            is_optional: input.optional,
        });
    }
    Ok(inputs)
}

pub(super) fn outputs(configured: &[api::ModelOutput]) -> Result<Vec<OutputConfig>, ConfigError> {
    check_names(
        "output",
        configured.iter().map(|output| output.name.as_str()),
    )?;
    let mut outputs = Vec::new();
    for (index, output) in configured.iter().enumerate() {
        let path = format!("output[{index}]");
        let reshape = output.reshape.as_ref();
        let tensor = tensor(&path, &output.name, output.data_type, &output.dims, reshape)?;
        outputs.push(OutputConfig {
            tensor,
            label_filename: file_name(&format!("{path}.label_filename"), &output.label_filename)?,
        });
    }
    Ok(outputs)
}

/// The data type of a field `data_type`.
pub(super) fn dtype(path: &str, number: i32) -> Result<DataType, ConfigError> {
    let known = DataType::ALL
        .into_iter()
        .find(|&dtype| i32::from(word(dtype)) == number);
    known.ok_or_else(|| {
        let value = match api::DataType::try_from(number) {
            Ok(word) => word.as_str_name().to_owned(),
            Err(_) => number.to_string(),
        };
        ConfigError::value(path, value, "it is a type such as TYPE_FP32")
    })
}

/// The word for a data type in the configuration's enumeration.
pub(crate) fn word(dtype: DataType) -> api::DataType {
    use api::DataType as Word;
    match dtype {
        DataType::Bool => Word::TypeBool,
        DataType::Uint8 => Word::TypeUint8,
        DataType::Uint16 => Word::TypeUint16,
        DataType::Uint32 => Word::TypeUint32,
        DataType::Uint64 => Word::TypeUint64,
        DataType::Int8 => Word::TypeInt8,
        DataType::Int16 => Word::TypeInt16,
        DataType::Int32 => Word::TypeInt32,
        DataType::Int64 => Word::TypeInt64,
        DataType::Fp16 => Word::TypeFp16,
        DataType::Bf16 => Word::TypeBf16,
        DataType::Fp32 => Word::TypeFp32,
        DataType::Fp64 => Word::TypeFp64,
        DataType::Bytes => Word::TypeString,
    }
}

fn check_names<'a>(
    kind: &str,
    names: impl ExactSizeIterator<Item = &'a str>,
) -> Result<(), ConfigError> {
    if names.len() > TENSORS_MAX {
        let value = format!("a list of {}", names.len());
        let expected = format!("a model has at most {TENSORS_MAX}");
        return Err(ConfigError::value(kind, value, expected));
    }
    let mut seen = HashSet::new();
    for (index, name) in names.enumerate() {
        if name.is_empty() || name.len() > TENSOR_NAME_BYTES_MAX {
            let expected = format!("a name has 1 to {TENSOR_NAME_BYTES_MAX} bytes");
            return Err(ConfigError::value(
                format!("{kind}[{index}].name"),
                quoted(name),
                expected,
            ));
        }
        if !seen.insert(name) {
            let expected = format!("an {kind} before it has this name");
            return Err(ConfigError::value(
                format!("{kind}[{index}].name"),
                quoted(name),
                expected,
            ));
        }
    }
    Ok(())
}

fn check_format(path: &str, input: &api::ModelInput) -> Result<(), ConfigError> {
    use api::model_input::Format;
    let path = || format!("{path}.format");
    match Format::try_from(input.format) {
        Ok(Format::None) => Ok(()),
        Ok(Format::Nhwc | Format::Nchw) if input.dims.len() == 3 => Ok(()),
        Ok(word) => {
            let expected = format!("it needs 3 dims, and there are {}", input.dims.len());
            Err(ConfigError::value(path(), word.as_str_name(), expected))
        }
        Err(_) => {
            let expected = "it is FORMAT_NONE, FORMAT_NHWC or FORMAT_NCHW";
            Err(ConfigError::value(path(), input.format, expected))
        }
    }
}

fn tensor(
    path: &str,
    name: &str,
    number: i32,
    dims: &[i64],
    reshape: Option<&api::ModelTensorReshape>,
) -> Result<TensorConfig, ConfigError> {
    let dtype = dtype(&format!("{path}.data_type"), number)?;
    check_dims(&format!("{path}.dims"), dims)?;
    if let Some(reshape) = reshape {
        let path = format!("{path}.reshape.shape");
        check_dims(&path, &reshape.shape)?;
        if runs(dims) != runs(&reshape.shape) {
            let expected = format!(
                "it has as many elements as dims, {}, and its -1 at the same places among them",
                shape_text(dims, &[])
            );
            return Err(ConfigError::value(
                path,
                shape_text(&reshape.shape, &[]),
                expected,
            ));
        }
    }
    Ok(TensorConfig {
        name: name.to_owned(),
        dtype,
        dims: dims.into(),
        reshape: reshape.map(|reshape| reshape.shape.as_slice().into()),
    })
}

/// Checks dimensions: few enough, each a size or -1, all together a number of elements.
pub(super) fn check_dims(path: &str, dims: &[i64]) -> Result<(), ConfigError> {
    if dims.len() > RANK_MAX {
        let value = format!("a list of {}", dims.len());
        return Err(ConfigError::value(
            path,
            value,
            format!("a tensor has at most {RANK_MAX} dimensions"),
        ));
    }
    if let Some(index) = dims.iter().position(|&dim| dim < 1 && dim != -1) {
        let expected = "a dimension is at least 1, or -1 for any size";
        return Err(ConfigError::value(
            format!("{path}[{index}]"),
            dims[index],
            expected,
        ));
    }
    let sizes: Shape = dims.iter().copied().filter(|&dim| dim > 0).collect();
    if adjoin_schema::element_count(&sizes).is_err() {
        let expected = "a tensor has fewer than 2^63 elements";
        return Err(ConfigError::value(path, shape_text(dims, &[]), expected));
    }
    Ok(())
}

/// The number of elements before, between and behind the open dimensions: what a reshape has to keep, so that each open
/// dimension has one value.
fn runs(dims: &[i64]) -> Vec<i64> {
    dims.split(|&dim| dim < 0)
        .map(|fixed| fixed.iter().product())
        .collect()
}
