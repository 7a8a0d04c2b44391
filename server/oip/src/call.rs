//! An inference request and its answer, as both transports mean them.

use adjoin_schema::limits::{LABEL_BYTES_MAX, RANK_MAX, TENSOR_NAME_BYTES_MAX};
use adjoin_schema::{DataType, Shape, element_count};
use bytes::Bytes;

use crate::elements::check_bytes;
use crate::{CallParameters, Fault};

/// An inference request.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// Name of the model.
    pub model: String,
    /// Which version.
    pub version: VersionChoice,
    /// The caller's own name for the request; it comes back with the answer.
    pub id: String,
    /// What else the caller said.
    pub parameters: CallParameters,
    /// Its inputs, in the order of the message.
    pub inputs: Vec<CallInput>,
    /// The outputs that are wanted, none for all.
    pub outputs: Vec<CallOutput>,
}

/// An input of a call.
#[derive(Clone, Debug)]
pub struct CallInput {
    /// Name in the model.
    pub name: String,
    /// Type of its elements.
    pub dtype: DataType,
    /// Dimensions, none of them negative.
    pub shape: Shape,
    /// Where its bytes are.
    pub content: Content,
}

/// Bytes of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// They came with the message; as many as type and shape make.
    Message(Bytes),
    /// They lie in a registered region.
    Region(RegionSlice),
}

/// A part of a registered region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionSlice {
    /// Name that the region was registered under.
    pub region: String,
    /// Bytes from the registered start.
    pub offset: u64,
    /// Bytes, at least 1.
    pub byte_size: u64,
}

/// An output that a call asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallOutput {
    /// Name in the model.
    pub name: String,
    /// Where it should go.
    pub target: Target,
    /// So many of the highest values with their labels in place of all values; 0 for all values.
    pub classes: u32,
}

/// Where an output should go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Into the answer: as raw bytes, or over HTTP as JSON.
    Message {
        /// Whether raw bytes are wanted. gRPC knows no other form.
        is_binary: bool,
    },
    /// Into a registered region; the answer says type and shape.
    Region(RegionSlice),
}

/// The answer to a call.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// Name of the model.
    pub model: String,
    /// Number of the version that ran.
    pub version: u64,
    /// The call's.
    pub id: String,
    /// The outputs.
    pub outputs: Vec<ReplyOutput>,
}

/// An output of an answer.
#[derive(Clone, Debug)]
pub struct ReplyOutput {
    /// Name in the model.
    pub name: String,
    /// Type of its elements.
    pub dtype: DataType,
    /// Dimensions.
    pub shape: Shape,
    /// Where its bytes are.
    pub content: ReplyContent,
}

/// Bytes of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyContent {
    /// They go with the message.
    Message {
        /// The bytes.
        bytes: Bytes,
        /// Whether as raw bytes.
        is_binary: bool,
    },
    /// They were written into a region, and the caller knows where.
    Region,
}

/// The version that a call asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VersionChoice {
    /// None in particular.
    #[default]
    Any,
    /// The one with this number, from 1.
    Number(u64),
    /// The one that carries this label, such as `stable`.
    Label(String),
}

impl VersionChoice {
    /// A version as messages and paths write it: a number from 1, a label, or nothing for none in particular.
    ///
    /// # Errors
    /// If it is none of them.
    pub fn read(text: &str) -> Result<Self, Fault> {
        // "-1" stands for the newest version in configurations, and some clients send it.
        if text.is_empty() || text == "-1" {
            return Ok(Self::Any);
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c);
        match text.parse::<u64>() {
            Ok(number) if number > 0 => Ok(Self::Number(number)),
            Err(_)
                if text.len() <= LABEL_BYTES_MAX
                    && text.starts_with(|c: char| c.is_ascii_alphabetic())
                    && text.chars().all(is_word) =>
            {
                Ok(Self::Label(text.to_owned()))
            }
            _ => Err(Fault::invalid(format!(
                "model version {text:?} is neither a number from 1 nor a label"
            ))),
        }
    }

    /// The number, or 0.
    #[must_use]
    pub fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Any | Self::Label(_) => 0,
        }
    }

    /// The label, or nothing.
    #[must_use]
    pub fn label(&self) -> &str {
        match self {
            Self::Label(label) => label,
            Self::Any | Self::Number(_) => "",
        }
    }
}

impl CallInput {
    /// An input of a message, its name, type and shape checked; `content` is asked for its bytes with the number of
    /// elements.
    pub(crate) fn new(
        name: String,
        datatype: &str,
        shape: &[i64],
        content: impl FnOnce(DataType, u64) -> Result<Content, Fault>,
    ) -> Result<Self, Fault> {
        check_name("input", &name)?;
        let Some(dtype) = DataType::from_name(datatype) else {
            let known: Vec<_> = DataType::ALL.iter().map(|dtype| dtype.name()).collect();
            let known = known.join(", ");
            return Err(Fault::invalid(format!(
                "input '{name}' has unknown data type {datatype:?}; known are {known}"
            )));
        };
        if shape.len() > RANK_MAX {
            let rank = shape.len();
            return Err(Fault::invalid(format!(
                "input '{name}' has {rank} dimensions; the most is {RANK_MAX}"
            )));
        }
        let count = element_count(shape)
            .and_then(|count| dtype.byte_size(shape).map(|_| count))
            .map_err(|error| {
                Fault::invalid(format!("input '{name}' has shape {shape:?}: {error}"))
            })?;
        let content = content(dtype, count).map_err(|fault| fault.about("input", &name))?;
        let shape = shape.into();
        Ok(Self {
            name,
            dtype,
            shape,
            content,
        })
    }

    /// Checks bytes that came by another way than the message.
    ///
    /// # Errors
    /// If they are not those of the input's type and shape.
    pub fn check(&self, bytes: &[u8]) -> Result<(), Fault> {
        // Counted when the input was read.
        let count = element_count(&self.shape).unwrap_or(u64::MAX);
        check_bytes(self.dtype, count, bytes).map_err(|fault| fault.about("input", &self.name))
    }
}

/// Checks that no output is asked for twice, with one target here and another there.
pub(crate) fn check_outputs(outputs: &[CallOutput]) -> Result<(), Fault> {
    for (index, output) in outputs.iter().enumerate() {
        if outputs[..index]
            .iter()
            .any(|other| other.name == output.name)
        {
            return Err(Fault::invalid(format!(
                "output '{}' is asked for twice",
                output.name
            )));
        }
    }
    Ok(())
}

pub(crate) fn check_name(kind: &str, name: &str) -> Result<(), Fault> {
    if name.len() > TENSOR_NAME_BYTES_MAX {
        let byte_size = name.len();
        return Err(Fault::invalid(format!(
            "an {kind}'s name has {byte_size} bytes; the most is {TENSOR_NAME_BYTES_MAX}"
        )));
    }
    Ok(())
}

pub(crate) fn check_count(kind: &str, count: usize) -> Result<(), Fault> {
    use adjoin_schema::limits::TENSORS_MAX;
    if count > TENSORS_MAX {
        return Err(Fault::invalid(format!(
            "{count} {kind}s; the most is {TENSORS_MAX}"
        )));
    }
    Ok(())
}
