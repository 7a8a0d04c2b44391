//! Parameters of calls and of their tensors: which of them mean something, and of what type they must be. Others are
//! left alone, as the protocol has it: they are for whoever knows them.

use crate::{Fault, RegionSlice};

/// The value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `true` or `false`.
    Bool(bool),
    /// An integer; JSON and gRPC have both signs.
    Int(i128),
    /// A number with a fraction.
    Float(f64),
    /// A text.
    Text(&'a str),
    /// Nothing, or what is no scalar.
    Other,
}

/// What a call says beside its tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallParameters {
    /// Level of priority from 1, the most urgent; 0 for the model's default.
    pub priority: u16,
    /// Longest time in the queue and the engine, in microseconds; 0 for none.
    pub timeout_us: u64,
    /// HTTP: whether outputs that say nothing of it come as raw bytes.
    pub binary_data_output: bool,
    /// A stream's caller wants every answer marked that is the last of its request.
    pub marks_final: bool,
}

/// What a call says of a tensor beside name, type and shape.
#[derive(Clone, Debug, Default)]
pub(crate) struct TensorParameters {
    pub(crate) region: Option<RegionSlice>,
    pub(crate) binary_data_size: Option<u64>,
    pub(crate) binary_data: Option<bool>,
    pub(crate) classes: u32,
}

fn wrong<T>(name: &str, value: Value<'_>, expected: &str) -> Result<T, Fault> {
    let value = match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(value) => format!("{value:?}"),
        Value::Other => "no scalar".to_owned(),
    };
    Err(Fault::invalid(format!(
        "parameter '{name}' is {value}; it takes {expected}"
    )))
}

fn unsigned<T: TryFrom<i128>>(name: &str, value: Value<'_>, expected: &str) -> Result<T, Fault> {
    let number = match value {
        Value::Int(number) => T::try_from(number).ok(),
        _ => None,
    };
    number.map_or_else(|| wrong(name, value, expected), Ok)
}

fn flag(name: &str, value: Value<'_>) -> Result<bool, Fault> {
    match value {
        Value::Bool(value) => Ok(value),
        _ => wrong(name, value, "true or false"),
    }
}

const COUNT: &str = "an integer from 0 to 2^63 - 1";

fn count(name: &str, value: Value<'_>) -> Result<u64, Fault> {
    let number: u64 = unsigned(name, value, COUNT)?;
    if number > i64::MAX.unsigned_abs() {
        return wrong(name, value, COUNT);
    }
    Ok(number)
}

impl CallParameters {
    /// Takes one parameter in.
    pub(crate) fn take(&mut self, name: &str, value: Value<'_>) -> Result<(), Fault> {
        match name {
            "priority" => self.priority = unsigned(name, value, "an integer from 0 to 65535")?,
            "timeout" => self.timeout_us = count(name, value)?,
            "binary_data_output" => self.binary_data_output = flag(name, value)?,
            "triton_enable_empty_final_response" => self.marks_final = flag(name, value)?,
            "sequence_id" if !matches!(value, Value::Int(0) | Value::Text("")) => {
                let text =
                    "sequences are not supported: parameter 'sequence_id' must be 0 or left out";
                return Err(Fault::new(crate::Kind::Unsupported, text));
            }
            _ => {}
        }
        Ok(())
    }
}

impl TensorParameters {
    /// What the parameters of a tensor say.
    pub(crate) fn read<'a>(
        parameters: impl Iterator<Item = (&'a str, Value<'a>)>,
    ) -> Result<Self, Fault> {
        let mut read = Self::default();
        let (mut region, mut offset, mut byte_size) = (None, None, None);
        for (name, value) in parameters {
            match (name, value) {
                ("shared_memory_region", Value::Text(text)) => region = Some(text.to_owned()),
                ("shared_memory_region", _) => return wrong(name, value, "the name of a region"),
                ("shared_memory_offset", _) => offset = Some(count(name, value)?),
                ("shared_memory_byte_size", _) => byte_size = Some(count(name, value)?),
                ("binary_data_size", _) => read.binary_data_size = Some(count(name, value)?),
                ("binary_data", _) => read.binary_data = Some(flag(name, value)?),
                ("classification", _) => {
                    read.classes = unsigned(name, value, "a number of classes from 0 to 2^32 - 1")?;
                }
                _ => {}
            }
        }
        read.region = match (region, byte_size) {
            (Some(region), Some(byte_size)) if byte_size > 0 => {
                let offset = offset.unwrap_or(0);
                Some(RegionSlice {
                    region,
                    offset,
                    byte_size,
                })
            }
            (Some(region), Some(_)) => {
                return Err(Fault::invalid(format!(
                    "'shared_memory_byte_size' is 0 for region '{region}'; it takes at least 1"
                )));
            }
            (Some(region), None) => {
                return Err(Fault::invalid(format!(
                    "'shared_memory_region' is '{region}', and 'shared_memory_byte_size' is missing"
                )));
            }
            (None, _) if offset.is_some() || byte_size.is_some() => {
                let text = "'shared_memory_offset' and 'shared_memory_byte_size' need 'shared_memory_region'";
                return Err(Fault::invalid(text));
            }
            (None, _) => None,
        };
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(parameters: &[(&'static str, Value<'static>)]) -> Result<TensorParameters, String> {
        TensorParameters::read(parameters.iter().copied()).map_err(|fault| fault.text)
    }

    #[test]
    fn a_region_needs_name_and_size_and_starts_at_its_beginning() {
        let name = ("shared_memory_region", Value::Text("r"));
        let size = |size| ("shared_memory_byte_size", Value::Int(size));
        let region = tensor(&[name, size(8)]).unwrap().region.unwrap();
        assert_eq!(
            (region.region.as_str(), region.offset, region.byte_size),
            ("r", 0, 8)
        );
        assert!(tensor(&[name]).unwrap_err().contains("missing"));
        assert!(tensor(&[name, size(0)]).unwrap_err().contains("at least 1"));
        assert!(tensor(&[name, size(-1)]).unwrap_err().contains("is -1"));
        assert!(
            tensor(&[size(8)])
                .unwrap_err()
                .contains("shared_memory_region")
        );
        let past = ("shared_memory_offset", Value::Int(1 << 63));
        assert!(
            tensor(&[name, size(8), past])
                .unwrap_err()
                .contains("2^63 - 1")
        );
        assert!(tensor(&[("shared_memory_region", Value::Int(1))]).is_err());
    }

    #[test]
    fn values_of_the_wrong_type_are_named_and_unknown_parameters_left_alone() {
        let mut call = CallParameters::default();
        let mut take = |name, value| call.take(name, value).map_err(|fault| fault.text);
        take("anything", Value::Other).unwrap();
        take("priority", Value::Int(2)).unwrap();
        take("sequence_id", Value::Int(0)).unwrap();
        assert!(
            take("sequence_id", Value::Int(7))
                .unwrap_err()
                .contains("not supported")
        );
        assert!(
            take("priority", Value::Int(70_000))
                .unwrap_err()
                .contains("70000")
        );
        assert!(
            take("timeout", Value::Float(0.5))
                .unwrap_err()
                .contains("0.5")
        );
        assert!(take("timeout", Value::Int(-5)).unwrap_err().contains("-5"));
        assert!(
            take("binary_data_output", Value::Text("yes"))
                .unwrap_err()
                .contains("\"yes\"")
        );
        assert_eq!(call.priority, 2);
    }
}
