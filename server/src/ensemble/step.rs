//! One step of a run: what it asks of its model, and how it fails.

use std::sync::Arc;

use adjoin_schema::descriptor::{Rejection, RequestDescriptor, TensorDescriptor};
use adjoin_schema::status::Status;
use adjoin_schema::text::explain;
use smallvec::SmallVec;

use super::plan::Step;
use super::tensor::StepTensor;
use crate::model::request::{InputPlace, Outcome, Request, Source};
use crate::model::{Claim, InputFacts, ModelVersion};

/// Most bytes of all tensors that the steps of one request make.
pub(super) const BYTES_MAX: u64 = 256 << 20;

/// Why a run ends early.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: Status,
    pub(super) detail: [u64; 2],
    pub(super) reason: String,
}

impl Failure {
    pub(super) fn new(status: Status, reason: impl Into<String>) -> Self {
        Self {
            status,
            detail: [0; 2],
            reason: reason.into(),
        }
    }

    /// As the ensemble's client learns of it. What says nothing of the step's own tensors is said of the whole.
    pub(super) fn outcome(self, step: &Step) -> Outcome {
        let number = step.number as u64;
        let (status, detail) = match self.status {
            Status::QueueFull
            | Status::DeadlineExceeded
            | Status::DeadlineUnreachable
            | Status::ModelNotReady
            | Status::Cancelled
            | Status::NotExecuted => (self.status, self.detail),
            Status::ValuesRefused => (self.status, [number, 0]),
            status => (Status::ExecutionFailed, [number, u64::from(status as u16)]),
        };
        let reason = format!("step {number}, model {:?}: {}", step.model, self.reason);
        Outcome {
            reason: Some(reason.into()),
            ..Outcome::refused(status, detail)
        }
    }
}

pub(super) fn too_large(byte_size: u64) -> Failure {
    Failure::new(
        Status::OutputTooLarge,
        format!("tensors between steps take {byte_size} bytes; the most is {BYTES_MAX}"),
    )
}

/// What a step asks of its model.
pub(super) fn request(
    step: &Step,
    (version, claim): (Arc<ModelVersion>, Claim),
    tensors: &[Option<StepTensor>],
) -> Result<Request, Failure> {
    let mut given: SmallVec<[(&str, &StepTensor); 4]> = SmallVec::new();
    for (port, tensor) in &step.inputs {
        let tensor = tensors[*tensor].as_ref();
        given.push((
            port,
            tensor.ok_or_else(|| Failure::new(Status::Internal, "fed by nothing"))?,
        ));
    }
    let facts: SmallVec<[InputFacts<'_>; 4]> = given
        .iter()
        .map(|&(name, tensor)| {
            let (dtype, shape, payload) = tensor.parts();
            InputFacts {
                name,
                dtype,
                shape,
                byte_size: payload.byte_size() as u64,
            }
        })
        .collect();
    let wanted: SmallVec<[&str; 4]> = step.outputs.iter().map(|(port, _)| port.as_str()).collect();
    let resolved = version.signature().resolve(&facts, &wanted);
    let resolved = resolved.map_err(|rejection| {
        version.metrics().refused(rejection.status);
        Failure {
            status: rejection.status,
            detail: rejection.detail,
            reason: sentence(rejection, &version, &facts),
        }
    })?;
    let place = |&index: &usize| InputPlace {
        dtype: facts[index].dtype,
        shape: facts[index].shape.into(),
        offset: 0,
        byte_size: facts[index].byte_size,
    };
    let source = resolved.inputs.iter().map(|&index| given[index].1.clone());
    Ok(Request {
        inputs: resolved.inputs.iter().map(place).collect(),
        source: Source::Steps(source.collect()),
        outputs: resolved.outputs,
        device: None,
        rows: resolved.rows,
        compatibility: resolved.compatibility,
        key: None,
        claim: Some(claim),
        version,
    })
}

/// A refusal in words, as a client of that model would read it.
pub(super) fn sentence(
    rejection: Rejection,
    version: &ModelVersion,
    inputs: &[InputFacts<'_>],
) -> String {
    let inputs = inputs.iter().map(|input| TensorDescriptor {
        name: input.name,
        dtype: input.dtype,
        shape: input.shape.into(),
        region: 0,
        offset: 0,
        byte_size: input.byte_size,
    });
    let request = RequestDescriptor {
        model: version.name(),
        version: version.version(),
        label: "",
        inputs: inputs.collect(),
        outputs: SmallVec::new(),
        rooms: SmallVec::new(),
    };
    let info = version.info(0, Vec::new());
    explain(rejection, Some(&request), Some(&info))
}
