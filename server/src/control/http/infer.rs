//! The route that runs a model.

use adjoin_control_api::MESSAGE_BYTES_MAX;
use adjoin_oip::http::{Body as Parts, JSON_LENGTH_HEADER, body, call};
use adjoin_oip::{Fault, Kind};
use adjoin_shm::padding;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use tokio_stream::iter;

use super::Shared;
use super::failure::Answer;
use super::models::InPath;
use crate::control::listen::Caller;
use crate::oip::Arrival;
use crate::trace::Transport;

/// More than what may be left out for tensors to begin where engines may read them.
const ALIGNMENT: usize = 64;
/// Up to this size room is made for a body as soon as it is announced; for a larger one when so much of it has come.
const BELIEVED_BYTES_MAX: usize = 4 << 20;
/// The parts of an answer up to this size are joined: that costs less than to send each by itself.
const JOINED_BYTES_MAX: usize = 16 << 10;

pub(super) async fn infer(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    path: InPath,
    headers: HeaderMap,
    request: Body,
) -> Answer {
    let path = path?;
    let json_bytes = match headers.get(JSON_LENGTH_HEADER) {
        Some(value) => Some(value.to_str().map_err(|_| {
            Fault::invalid("Inference-Header-Content-Length is no text; it is a number of bytes")
        })?),
        None => None,
    };
    // Behind the JSON are the tensors.
    let tensors_at = json_bytes.and_then(|text| text.parse().ok()).unwrap_or(0);
    let bytes = read_aligned(request, &headers, tensors_at).await?;
    let call = call(&path.model, &path.version, &bytes, json_bytes)?;
    drop(bytes);
    let traceparent = headers.get("traceparent");
    let arrival = Arrival {
        transport: Transport::Http,
        deadline_ns: 0,
        traceparent: traceparent.and_then(|value| value.to_str().ok()),
    };
    let reply = shared
        .oip
        .infer(&caller.of_protocol(), call, arrival)
        .await?;
    Ok(response(body(&reply)?))
}

/// The whole body in one piece.
pub(super) async fn read(body: Body, headers: &HeaderMap) -> Result<Bytes, Fault> {
    read_aligned(body, headers, 0).await
}

/// The whole body in one piece, of which tensors are views. What comes `at` so many bytes begins where an engine may read
/// it, if the body is as long as its header says; the first tensor does not have to be copied once more then.
async fn read_aligned(body: Body, headers: &HeaderMap, at: usize) -> Result<Bytes, Fault> {
    let too_large = |byte_size: u64| {
        let text =
            format!("the body has {byte_size} bytes or more; the most is {MESSAGE_BYTES_MAX}");
        Fault::new(Kind::ResourceExhausted, text)
    };
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let announced = announced.unwrap_or(0);
    if announced > MESSAGE_BYTES_MAX as u64 {
        return Err(too_large(announced));
    }
    let announced = usize::try_from(announced).unwrap_or(0);
    let (mut whole, mut padding) = aligned_room(announced.min(BELIEVED_BYTES_MAX), at);
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        let part = part.map_err(unread)?;
        let byte_size = whole.len() - padding + part.len();
        if byte_size > MESSAGE_BYTES_MAX {
            return Err(too_large(byte_size as u64));
        }
        if byte_size > BELIEVED_BYTES_MAX && byte_size <= announced && whole.capacity() < announced
        {
            let (mut larger, its_padding) = aligned_room(announced, at);
            larger.extend_from_slice(&whole[padding..]);
            (whole, padding) = (larger, its_padding);
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole.freeze().slice(padding..))
}

/// Why a body did not come: the server's budget for messages is a reason of its own.
fn unread(error: axum::Error) -> Fault {
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        if let Some(status) = error.downcast_ref::<tonic::Status>() {
            return Fault::new(Kind::ResourceExhausted, status.message());
        }
        cause = error.source();
    }
    Fault::invalid(format!("the body cannot be read: {error}"))
}

/// Room for so many bytes behind what is left out so that the one `at` so many bytes is aligned; and how much that is.
fn aligned_room(byte_size: usize, at: usize) -> (BytesMut, usize) {
    let mut room = BytesMut::with_capacity(byte_size + ALIGNMENT);
    let padding = padding(room.as_ptr().addr().wrapping_add(at));
    room.put_bytes(0, padding);
    (room, padding)
}

fn response(Parts { parts, json_bytes }: Parts) -> Response {
    let length: usize = parts.iter().map(Bytes::len).sum();
    let kind = if json_bytes.is_some() {
        "application/octet-stream"
    } else {
        "application/json"
    };
    let body = if length <= JOINED_BYTES_MAX {
        Body::from(parts.concat())
    } else {
        // One after the other as they are: together they may be hundreds of megabytes.
        let stream = iter(parts.into_iter().map(Ok::<_, std::convert::Infallible>));
        Body::from_stream(stream)
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(json_bytes) = json_bytes {
        headers.insert(JSON_LENGTH_HEADER, HeaderValue::from(json_bytes));
    }
    response
}
