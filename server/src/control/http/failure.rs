//! Errors as HTTP has them: a status, and `{"error": "..."}`.

use adjoin_oip::{Fault, Kind};
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// An error as an answer.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    text: String,
}

/// An answer, or an error in its place.
pub(super) type Answer<T = Response> = Result<T, Failure>;

impl Failure {
    pub(super) fn not_found() -> Self {
        let text = "no such route; those of the protocol begin with /v2".into();
        Self {
            status: StatusCode::NOT_FOUND,
            text,
        }
    }

    pub(super) fn unknown_encoding() -> Self {
        let text = "the body's Content-Encoding is none of gzip, deflate and identity".into();
        Self {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            text,
        }
    }

    pub(super) fn method_not_allowed() -> Self {
        let text = "the route takes another method, GET or POST".into();
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            text,
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let status = StatusCode::from_u16(fault.kind.http_status());
        Self {
            status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            text: fault.into_text(),
        }
    }
}

impl From<PathRejection> for Failure {
    fn from(rejection: PathRejection) -> Self {
        Fault::new(Kind::InvalidArgument, rejection.body_text()).into()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.text }))).into_response()
    }
}
