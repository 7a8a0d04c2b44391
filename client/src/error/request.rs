//! Why a request could not be built, or a tensor not be looked at.

use adjoin_schema::DataType;
use adjoin_schema::status::Status;
use thiserror::Error;

use super::{Explanation, InferError};

/// Too little is free of a session's request region.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the request needs {needed} bytes and {free} of the session's {capacity} are free; drop requests that are not used any more, or open the client with more request_bytes"
)]
pub struct RegionFull {
    /// Bytes that the request's inputs take.
    pub needed: u64,
    /// Bytes that no request uses, in however many pieces.
    pub free: u64,
    /// Bytes for inputs in the session.
    pub capacity: u64,
}

/// Why a request could not be built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The model has no such input.
    #[error("model {model:?} has no input {name:?}; it takes {known}")]
    InputUnknown {
        /// Name of the model.
        model: String,
        /// The name that was given.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// An input is named twice.
    #[error("input {name:?} is named twice")]
    InputRepeated {
        /// Its name.
        name: String,
    },
    /// An input of the model is missing.
    #[error("input {name:?} of model {model:?} is missing; it takes {known}")]
    InputMissing {
        /// Name of the model.
        model: String,
        /// The name that is missing.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// The model has no such output.
    #[error("model {model:?} has no output {name:?}; it gives {known}")]
    OutputUnknown {
        /// Name of the model.
        model: String,
        /// The name that was given.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// An output has two rooms.
    #[error("output {name:?} has room on a device twice")]
    OutputRepeated {
        /// Its name.
        name: String,
    },
    /// The model does not take that shape.
    #[error("input {name:?} has shape {got}; the model takes {expected}")]
    ShapeMismatch {
        /// Name of the input.
        name: String,
        /// The shape that was given.
        got: String,
        /// The model's shape, with names of its open dimensions.
        expected: String,
    },
    /// More than one dimension is open, so a number of rows does not settle the shape.
    #[error(
        "a number of rows does not settle the shape {expected} of input {name:?}; name it with `input`"
    )]
    ShapeOpen {
        /// Name of the input.
        name: String,
        /// The model's shape, with names of its open dimensions.
        expected: String,
    },
    /// The size does not follow from the shape, or is another one than was given.
    #[error("input {name:?} of type {dtype}: {reason}")]
    ByteSize {
        /// Name of the input.
        name: String,
        /// Its data type.
        dtype: DataType,
        /// What is wrong, and what to do.
        reason: &'static str,
    },
    /// The names and shapes make a descriptor that the protocol does not allow.
    #[error("{0}")]
    Descriptor(Explanation),
    /// The request region has no room for it.
    #[error(transparent)]
    RegionFull(#[from] RegionFull),
    /// There is no session.
    #[error(transparent)]
    Session(Box<InferError>),
}

impl RequestError {
    /// Why a request found no place.
    pub(crate) fn of_placement(error: InferError) -> Self {
        match error {
            InferError::RegionFull(full) => Self::RegionFull(full),
            // What the server says of a region on a device is none of the descriptor.
            InferError::Invalid(explanation)
                if explanation.status() == Status::DescriptorTooLarge =>
            {
                Self::Descriptor(explanation)
            }
            other => other.into(),
        }
    }
}

impl From<InferError> for RequestError {
    fn from(error: InferError) -> Self {
        Self::Session(Box::new(error))
    }
}

/// Why a tensor of a request or a response cannot be looked at.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TensorError {
    /// There is no tensor of that name.
    #[error("there is no tensor {name:?}, only {known}")]
    NameUnknown {
        /// The name that was given.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// There is no tensor at that place.
    #[error("there is no tensor at index {index}, there are {count}")]
    IndexOutOfRange {
        /// The index that was given.
        index: usize,
        /// How many tensors there are.
        count: usize,
    },
    /// Its elements are of another type.
    #[error("tensor {name:?} has data type {actual}, which is not a {wanted}")]
    DataTypeMismatch {
        /// Name of the tensor.
        name: String,
        /// Its data type.
        actual: DataType,
        /// The Rust type that was asked for.
        wanted: &'static str,
    },
    /// It lies on a device, where the processor does not reach it.
    #[error("tensor {name:?} lies on a device; copy it from there with the device's own means")]
    OnDevice {
        /// Name of the tensor.
        name: String,
    },
    /// The server took the memory back when it shut down.
    #[error("the output was lost with the session of a server that shut down")]
    Lost,
    /// The bytes of another place are not as many as the input's.
    #[error("{given} bytes were given for an input of {byte_size}")]
    SizeMismatch {
        /// Bytes that were given.
        given: u64,
        /// Bytes of the input.
        byte_size: u64,
    },
    /// A handle on the input's place is out, and whoever has it may be writing.
    #[error("the input is shared with an `InputPlace`; drop that first, or write through it")]
    Shared,
    /// This system refused something.
    #[error("mapping an output failed: {0}")]
    System(std::io::Error),
    /// The extent is not where tensors lie.
    #[error(transparent)]
    Element(#[from] adjoin_shm::ElementError),
    /// The session belongs to the parent of this process.
    #[error(
        "this process was forked after the session was opened, whose memory is not here; connect in the child, with a client of its own"
    )]
    Forked,
}
