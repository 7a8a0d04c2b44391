//! From a refusal to the protocol's error: its kind, and a text in which clients of the protocol find the words that they
//! look for.

use adjoin_oip::{Call, Content, Fault, Kind, VersionChoice};
use adjoin_schema::attach::ModelInfo;
use adjoin_schema::descriptor::{Rejection, RequestDescriptor, TensorDescriptor};
use adjoin_schema::status::Status;
use adjoin_schema::text::explain;
use smallvec::SmallVec;

use crate::model::request::Outcome;
use crate::repository::ManageError;

/// The protocol's kind of a status.
fn kind(status: Status) -> Kind {
    match status {
        Status::ModelNotFound | Status::VersionNotFound => Kind::NotFound,
        Status::DeadlineExceeded | Status::DeadlineUnreachable => Kind::DeadlineExceeded,
        Status::Cancelled => Kind::Cancelled,
        Status::ResponseRegionFull | Status::OutputTooLarge => Kind::ResourceExhausted,
        Status::QueueFull | Status::ModelNotReady | Status::NotExecuted => Kind::Unavailable,
        _ if (102..200).contains(&(status as u16)) => Kind::InvalidArgument,
        _ => Kind::Internal,
    }
}

/// Why a model cannot be described, or a call not be run.
pub(super) fn of_model(rejection: Rejection, model: &str, version: &VersionChoice) -> Fault {
    let mut request = unplaced(model);
    request.version = version.number();
    request.label = version.label();
    fault(rejection, &request, None)
}

/// Why a call was not run.
pub(super) fn of_call(rejection: Rejection, call: &Call, info: Option<&ModelInfo>) -> Fault {
    let mut request = unplaced(&call.model);
    request.version = call.version.number();
    request.label = call.version.label();
    request.outputs = call
        .outputs
        .iter()
        .map(|output| output.name.as_str())
        .collect();
    for input in &call.inputs {
        request.inputs.push(TensorDescriptor {
            name: &input.name,
            dtype: input.dtype,
            shape: input.shape.clone(),
            region: 0,
            offset: 0,
            byte_size: byte_size(&input.content),
        });
    }
    // The time that ran out was the queue's: the protocol has words of its own for that.
    let timed_out = [Status::DeadlineExceeded, Status::DeadlineUnreachable];
    if call.parameters.timeout_us > 0 && timed_out.contains(&rejection.status) {
        let text = explain(rejection, Some(&request), info);
        return Fault::new(
            Kind::Unavailable,
            format!("Request timeout expired: {text}"),
        );
    }
    fault(rejection, &request, info)
}

/// Why a call that was queued has no answer.
pub(super) fn of_outcome(outcome: &Outcome, call: &Call, info: &ModelInfo) -> Fault {
    let rejection = Rejection::new(outcome.status, outcome.detail);
    let fault = of_call(rejection, call, Some(info));
    let Some(reason) = &outcome.reason else {
        return fault;
    };
    let text = match outcome.status {
        // The reason says more than the status, which would send its reader to a log.
        Status::ValuesRefused | Status::ExecutionFailed => {
            format!("model '{}': {reason}", call.model)
        }
        _ => format!("{}: {reason}", fault.text),
    };
    Fault { text, ..fault }
}

/// Bytes of an input's content.
pub(super) fn byte_size(content: &Content) -> u64 {
    match content {
        Content::Message(bytes) => bytes.len() as u64,
        Content::Region(slice) => slice.byte_size,
    }
}

fn fault(rejection: Rejection, request: &RequestDescriptor<'_>, info: Option<&ModelInfo>) -> Fault {
    let text = explain(rejection, Some(request), info);
    let model = request.model;
    let text = match rejection.status {
        Status::ModelNotFound => {
            format!("Request for unknown model: '{model}' is not found")
        }
        Status::VersionNotFound => format!("Request for unknown model: {text}"),
        Status::ModelNotReady => {
            format!("Request for unknown model: '{model}' has no available versions: {text}")
        }
        Status::QueueFull => format!("Exceeds maximum queue size: {text}"),
        _ => text,
    };
    Fault::new(kind(rejection.status), text)
}

/// Why models were not changed as wanted.
pub(crate) fn of_manager(error: &ManageError) -> Fault {
    let kind = match error {
        ManageError::NotExplicit | ManageError::Ending => Kind::Unavailable,
        ManageError::NotFound { .. }
        | ManageError::NotLoaded { .. }
        | ManageError::VersionNotServed { .. } => Kind::NotFound,
        ManageError::Load { .. } | ManageError::Unreadable => Kind::Internal,
        ManageError::Busy | ManageError::TooManyLabels { .. } => Kind::ResourceExhausted,
        ManageError::LabelSize { .. } | ManageError::Split(_) => Kind::InvalidArgument,
    };
    Fault::new(kind, error.to_string())
}

/// A request for messages: names and shapes, no places.
fn unplaced(model: &str) -> RequestDescriptor<'_> {
    RequestDescriptor {
        model,
        version: 0,
        label: "",
        inputs: SmallVec::new(),
        outputs: SmallVec::new(),
        rooms: SmallVec::new(),
    }
}
