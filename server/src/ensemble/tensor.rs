//! Tensors on their way from step to step: they stay where they were made, and are given away by reference.

use std::sync::Arc;

use adjoin_schema::DataType;
use adjoin_shm::Payload;

use crate::model::request::Request;
use crate::session::response::{ReplyOutput, ResponseBlock};

/// What a step has made; there for as long as somebody needs one of its outputs.
#[derive(Debug)]
pub struct StepOutputs {
    request: Arc<Request>,
    response: Box<ResponseBlock>,
}

impl StepOutputs {
    /// The outputs of a step's request, in private memory.
    #[must_use]
    pub fn new(request: Arc<Request>, response: Box<ResponseBlock>) -> Self {
        Self { request, response }
    }

    /// An output; `None` if it was not wanted or not made.
    #[must_use]
    pub fn output(&self, index: usize) -> Option<ReplyOutput<'_>> {
        self.response.private_output(&self.request, index)
    }
}

/// A tensor of a run.
#[derive(Clone, Debug)]
pub enum StepTensor {
    /// An input of the ensemble's request, where its client wrote it.
    Input {
        /// The request.
        request: Arc<Request>,
        /// Index in its model's inputs.
        index: usize,
    },
    /// An output of a step.
    Output {
        /// All outputs of the step; the one at `index` was made.
        outputs: Arc<StepOutputs>,
        /// Index in its model's outputs.
        index: usize,
    },
}

impl StepTensor {
    /// An output of a step, if it was made.
    #[must_use]
    pub fn of(outputs: &Arc<StepOutputs>, index: usize) -> Option<Self> {
        outputs.output(index)?;
        let outputs = Arc::clone(outputs);
        Some(Self::Output { outputs, index })
    }

    /// Type, shape and bytes.
    #[must_use]
    pub fn parts(&self) -> (DataType, &[i64], Payload<'_>) {
        match self {
            Self::Input { request, index } => {
                let place = &request.inputs[*index];
                (place.dtype, &place.shape, request.payload(*index))
            }
            Self::Output { outputs, index } => {
                let output = outputs
                    .output(*index)
                    .expect("looked at when the tensor was made");
                let payload = Payload::from_slice(output.bytes);
                (output.dtype, output.shape, payload)
            }
        }
    }

    /// Whether a client may be writing the bytes.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        match self {
            Self::Input { request, index } => request.is_shared(*index),
            Self::Output { .. } => false,
        }
    }

    /// Whether the bytes begin where engines are promised them.
    #[must_use]
    pub fn is_aligned(&self) -> bool {
        match self {
            Self::Input { request, index } => request.is_aligned(*index),
            Self::Output { .. } => true,
        }
    }
}
