//! A connection of HTTP/1.1 that stays open, with one request at a time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use hyper::http::request::Builder;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::CallError;
use crate::arguments::HttpUrl;

/// How much of an error's text is shown.
const REASON_BYTES_MAX: usize = 300;

/// A connection, which is opened again when the server has closed it.
#[derive(Debug)]
pub(super) struct Connection {
    url: HttpUrl,
    content_type: &'static str,
    /// `None` until the first request.
    sender: Option<SendRequest<Parts>>,
    reconnects: u64,
}

/// An answer of status 200.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub(super) head: hyper::http::response::Parts,
    pub(super) body: Bytes,
}

impl Connection {
    /// A connection that is opened with the first request: in open loop most lanes are never needed.
    pub(super) fn new(url: &HttpUrl, content_type: &'static str) -> Self {
        Self {
            sender: None,
            url: url.clone(),
            content_type,
            reconnects: 0,
        }
    }

    /// How often the server had closed it.
    pub(super) fn reconnects(&self) -> u64 {
        self.reconnects
    }

    /// Posts a body, which is sent without being put together, with another header if it needs one.
    pub(super) async fn post(
        &mut self,
        path: &str,
        parts: &[Bytes],
        header: Option<(&'static str, &str)>,
    ) -> Result<HttpAnswer, CallError> {
        let mut sender = match self.sender.take() {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let answer = match sender.ready().await {
            Ok(()) => {
                sender
                    .send_request(self.request(path, parts, header)?)
                    .await
            }
            Err(error) => Err(error),
        };
        let answer = match answer {
            // A server may close a connection that was idle at any time, also while a request is on its
            // way; that is told apart from one that fails by asking again, once.
            Err(error) if is_hang_up(&error) => {
                self.reconnects += 1;
                sender = self.connect().await?;
                sender
                    .send_request(self.request(path, parts, header)?)
                    .await
            }
            answer => answer,
        };
        self.sender = Some(sender);
        read(answer.map_err(|error| self.failed(&error))?).await
    }

    async fn connect(&self) -> Result<SendRequest<Parts>, CallError> {
        let authority = &self.url.authority;
        let stream = TcpStream::connect(authority).await;
        let stream = stream.map_err(|error| {
            CallError::Failed(format!("no HTTP server at {authority}: {error}"))
        })?;
        stream.set_nodelay(true).map_err(CallError::failed)?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(CallError::failed)?;
        // Its end shows in the requests.
        tokio::spawn(async { connection.await.ok() });
        Ok(sender)
    }

    fn request(
        &self,
        path: &str,
        parts: &[Bytes],
        header: Option<(&'static str, &str)>,
    ) -> Result<Request<Parts>, CallError> {
        let mut builder: Builder = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, &self.url.authority)
            .header(CONTENT_TYPE, self.content_type);
        if let Some((name, value)) = header {
            builder = builder.header(name, value);
        }
        let body = Parts::new(parts);
        // Said also of an empty one, which some servers insist on.
        builder
            .header(CONTENT_LENGTH, body.left)
            .body(body)
            .map_err(CallError::failed)
    }

    fn failed(&self, error: &hyper::Error) -> CallError {
        CallError::Failed(format!("{}: {error}", self.url.authority))
    }
}

/// Whether the server has ended the connection, one way or the other.
fn is_hang_up(error: &hyper::Error) -> bool {
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<io::Error>());
    let is_reset = cause.is_some_and(|cause| {
        matches!(
            cause.kind(),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
        )
    });
    is_reset || error.is_closed() || error.is_canceled() || error.is_incomplete_message()
}

/// Reads an answer to its end; a server that has too much to do refuses.
async fn read(answer: Response<Incoming>) -> Result<HttpAnswer, CallError> {
    let (head, body) = answer.into_parts();
    let body = whole(body).await.map_err(CallError::failed)?;
    if head.status == StatusCode::OK {
        return Ok(HttpAnswer { head, body });
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(REASON_BYTES_MAX)]);
    let text = format!("HTTP {}: {}", head.status, text.trim());
    Err(match head.status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => CallError::Refused(text),
        _ => CallError::Failed(text),
    })
}

/// The whole body; without a copy if it came in one piece.
async fn whole(mut body: Incoming) -> Result<Bytes, hyper::Error> {
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(0);
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            all.reserve(expected.max(first.len() + data.len()));
            all.extend_from_slice(&first);
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// A body of several parts, sent one after the other.
#[derive(Debug)]
pub(super) struct Parts {
    parts: VecDeque<Bytes>,
    left: u64,
}

impl Parts {
    fn new(parts: &[Bytes]) -> Self {
        let parts: VecDeque<Bytes> = parts
            .iter()
            .filter(|part| !part.is_empty())
            .cloned()
            .collect();
        Self {
            left: parts.iter().map(|part| part.len() as u64).sum(),
            parts,
        }
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.parts.pop_front();
        self.left -= part.as_ref().map_or(0, |part| part.len() as u64);
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
