//! From adjoin's statuses to gRPC's codes: the only place.

use adjoin_oip::{Fault, Kind};
use adjoin_schema::attach::ModelInfo;
use adjoin_schema::descriptor::{Rejection, RequestDescriptor};
use adjoin_schema::status::Status;
use adjoin_schema::text::explain;
use tonic::Code;

use crate::oip::of_manager;
use crate::repository::ManageError;

/// The code for a status.
pub(super) fn code(status: Status) -> Code {
    match status as u16 {
        0 => Code::Ok,
        100 => Code::NotFound,
        200..=202 | 300 | 302 => match status {
            Status::DeadlineExceeded | Status::DeadlineUnreachable => Code::DeadlineExceeded,
            Status::ResponseRegionFull => Code::ResourceExhausted,
            _ => Code::Unavailable,
        },
        301 => Code::Cancelled,
        101..=199 => Code::InvalidArgument,
        500 | 501 | 503 | 504 => Code::InvalidArgument,
        502 | 507 => Code::PermissionDenied,
        204 | 205 | 505 | 506 | 508 | 509 => Code::ResourceExhausted,
        303 => Code::Unavailable,
        _ => Code::Internal,
    }
}

/// An error with its sentence.
pub(super) fn error(
    rejection: Rejection,
    request: Option<&RequestDescriptor<'_>>,
    model: Option<&ModelInfo>,
) -> tonic::Status {
    let text = explain(rejection, request, model);
    let text = match (rejection.status, request) {
        // Clients of the protocol look for these words.
        (Status::ModelNotFound, Some(request)) => format!(
            "Request for unknown model: '{}' is not found",
            request.model
        ),
        _ => text,
    };
    tonic::Status::new(code(rejection.status), text)
}

/// An error of the protocol's calls.
pub(super) fn fault(fault: Fault) -> tonic::Status {
    let code = match fault.kind {
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::Unavailable => Code::Unavailable,
        Kind::Unsupported => Code::Unimplemented,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::PermissionDenied => Code::PermissionDenied,
        Kind::ResourceExhausted => Code::ResourceExhausted,
        Kind::Cancelled => Code::Cancelled,
        Kind::DeadlineExceeded => Code::DeadlineExceeded,
        Kind::Internal => Code::Internal,
    };
    tonic::Status::new(code, fault.into_text())
}

/// An error of the model repository.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn manage_error(error: ManageError) -> tonic::Status {
    fault(of_manager(&error))
}
