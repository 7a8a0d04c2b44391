//! `model_warmup`: runs that an instance makes before it is ready.

use std::collections::BTreeMap;

use adjoin_control_api::inference as api;
use adjoin_control_api::inference::model_warmup::input::InputDataType;
use adjoin_schema::limits::{TENSOR_NAME_BYTES_MAX, TENSORS_MAX};
use adjoin_schema::{DataType, Shape};

use super::{bounded, file_name, tensors};
use crate::error::{ConfigError, quoted};
use crate::limits::{WARM_UP_BYTES_MAX, WARM_UP_COUNT_MAX, WARM_UP_SAMPLES_MAX};

/// A request that is run before a model is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmUp {
    /// Its name, for messages; may be empty.
    pub name: String,
    /// Rows, 1 or more.
    pub batch_size: u32,
    /// How often it is run, 1 or more.
    pub count: u32,
    /// Inputs by name. With those sizes all rows together have at most
    /// [`WARM_UP_BYTES_MAX`] bytes.
    pub inputs: BTreeMap<String, WarmUpInput>,
}

/// An input of such a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmUpInput {
    /// Type of its elements.
    pub dtype: DataType,
    /// Dimensions as clients have them, each from 1; without the batch dimension if `max_batch_size` is above 0.
    pub dims: Shape,
    /// Its values.
    pub data: WarmUpData,
}

/// The values of such an input; each row gets the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WarmUpData {
    /// Zeros, or empty strings.
    Zero,
    /// Random ones.
    Random,
    /// Those of a file in `warmup` in the model's directory, one path segment. For strings, each with its length before it.
    File(String),
}

pub(super) fn samples(
    configured: &[api::ModelWarmup],
    max_batch_size: u32,
) -> Result<Vec<WarmUp>, ConfigError> {
    if configured.len() > WARM_UP_SAMPLES_MAX {
        let value = format!("a list of {}", configured.len());
        let expected = format!("it has at most {WARM_UP_SAMPLES_MAX} samples");
        return Err(ConfigError::value("model_warmup", value, expected));
    }
    let numbered = configured.iter().enumerate();
    numbered
        .map(|(index, sample)| {
            WarmUp::new(&format!("model_warmup[{index}]"), sample, max_batch_size)
        })
        .collect()
}

impl WarmUp {
    fn new(
        path: &str,
        sample: &api::ModelWarmup,
        max_batch_size: u32,
    ) -> Result<Self, ConfigError> {
        let most_rows = max_batch_size.max(1);
        let batch_size = bounded(
            format!("{path}.batch_size"),
            sample.batch_size,
            0..=most_rows,
        )?;
        let count = bounded(format!("{path}.count"), sample.count, 0..=WARM_UP_COUNT_MAX)?;
        if sample.inputs.len() > TENSORS_MAX {
            let value = format!("a map of {}", sample.inputs.len());
            let expected = format!("a model has at most {TENSORS_MAX} inputs");
            return Err(ConfigError::value(
                format!("{path}.inputs"),
                value,
                expected,
            ));
        }
        let mut inputs = BTreeMap::new();
        for (name, input) in &sample.inputs {
            let path = format!("{path}.inputs[{}]", quoted(name));
            if name.len() > TENSOR_NAME_BYTES_MAX {
                let expected = format!("a name has at most {TENSOR_NAME_BYTES_MAX} bytes");
                return Err(ConfigError::value(
                    path,
                    format!("{} bytes", name.len()),
                    expected,
                ));
            }
            inputs.insert(name.clone(), WarmUpInput::new(&path, input)?);
        }
        let warm_up = Self {
            name: sample.name.clone(),
            batch_size: batch_size.max(1),
            count: count.max(1),
            inputs,
        };
        match warm_up.byte_size() {
            Some(byte_size) if byte_size <= WARM_UP_BYTES_MAX => Ok(warm_up),
            _ => {
                let expected =
                    format!("all rows of a sample have at most {WARM_UP_BYTES_MAX} bytes");
                Err(ConfigError::value(
                    format!("{path}.inputs"),
                    "larger than that",
                    expected,
                ))
            }
        }
    }

    /// Bytes of all inputs of all rows, strings counted as empty ones.
    fn byte_size(&self) -> Option<u64> {
        let mut sum = 0_u64;
        for input in self.inputs.values() {
            let of_row = match input.dtype.byte_size(&input.dims).ok()? {
                Some(byte_size) => byte_size,
                None => adjoin_schema::element_count(&input.dims)
                    .ok()?
                    .checked_mul(4)?,
            };
            sum = sum.checked_add(of_row.checked_mul(u64::from(self.batch_size))?)?;
        }
        Some(sum)
    }
}

impl WarmUpInput {
    fn new(path: &str, input: &api::model_warmup::Input) -> Result<Self, ConfigError> {
        let dtype = tensors::dtype(&format!("{path}.data_type"), input.data_type)?;
        tensors::check_dims(&format!("{path}.dims"), &input.dims)?;
        if let Some(index) = input.dims.iter().position(|&dim| dim < 1) {
            let path = format!("{path}.dims[{index}]");
            return Err(ConfigError::value(
                path,
                input.dims[index],
                "a sample has a size, at least 1",
            ));
        }
        let untrue = |field: &str| {
            let expected = "it is true, or absent beside another kind of values";
            ConfigError::value(format!("{path}.{field}"), false, expected)
        };
        let data = match &input.input_data_type {
            Some(InputDataType::ZeroData(true)) => WarmUpData::Zero,
            Some(InputDataType::RandomData(true)) => WarmUpData::Random,
            Some(InputDataType::ZeroData(false)) => return Err(untrue("zero_data")),
            Some(InputDataType::RandomData(false)) => return Err(untrue("random_data")),
            Some(InputDataType::InputDataFile(file)) => {
                let path = format!("{path}.input_data_file");
                let name = file_name(&path, file)?;
                let name = name
                    .ok_or_else(|| ConfigError::value(path, "\"\"", "it is the name of a file"))?;
                WarmUpData::File(name)
            }
            None => {
                let expected = "zero_data, random_data or input_data_file says what is in it";
                return Err(ConfigError::value(path, "without values", expected));
            }
        };
        let dims = input.dims.as_slice().into();
        Ok(Self { dtype, dims, data })
    }
}
