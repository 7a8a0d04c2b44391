//! Bytes of the messages that callers send, of all calls together.
//!
//! A message is in memory from its first byte until its call is answered, and a limit of one message is none of the
//! server as long as calls may come at the same time. So each call is charged for what it has sent, while it still
//! sends, and one that would go beyond the budget is refused with RESOURCE_EXHAUSTED; the others go on.
//!
//! What counts is what lies in memory: over HTTP the body as it unfolds, over gRPC the bytes that come, and of a message
//! that was compressed, or is one of a stream, what it was read to.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use adjoin_control_api::MESSAGE_BYTES_MAX;
use axum::http::{self, Request, Version};
use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use hyper::body::{Body, Frame, SizeHint};
use tonic::Status;
use tower::{Layer, Service};

use crate::metrics::MessageMetrics;

/// The path of the one method with a stream of messages.
const STREAM_PATH: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
/// Before each message of gRPC stand a flag and its length.
const PREFIX_BYTES: usize = 5;

/// What all calls together may hold. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct MessageBudget(Arc<State>);

#[derive(Debug)]
struct State {
    limit: u64,
    used: AtomicU64,
    metrics: MessageMetrics,
}

impl State {
    fn take(&self, byte_size: u64) -> Result<(), u64> {
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(byte_size).filter(|&sum| sum <= self.limit)
            });
        match taken {
            Ok(_) => {
                self.metrics.bytes.inc_by(byte_size.cast_signed());
                Ok(())
            }
            Err(used) => {
                self.metrics.refused.inc();
                Err(used)
            }
        }
    }

    fn give_back(&self, byte_size: u64) {
        self.used.fetch_sub(byte_size, Ordering::Relaxed);
        self.metrics.bytes.dec_by(byte_size.cast_signed());
    }
}

/// What one call holds; given back on drop.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: MessageBudget,
    held: AtomicU64,
}

impl MessageBudget {
    /// A budget of `limit` bytes, which tells how much of it is used.
    pub(crate) fn new(limit: u64, metrics: MessageMetrics) -> Self {
        Self(Arc::new(State {
            limit,
            used: AtomicU64::new(0),
            metrics,
        }))
    }

    /// A call that holds nothing yet.
    pub(crate) fn charge(&self) -> Charge {
        Charge {
            budget: self.clone(),
            held: AtomicU64::new(0),
        }
    }
}

impl Charge {
    /// From now on the call holds so many bytes. Not to be called for one charge at two places at once.
    ///
    /// # Errors
    /// If that would be beyond the budget; the call holds what it held.
    pub(crate) fn set(&self, byte_size: u64) -> Result<(), Status> {
        let budget = &*self.budget.0;
        let held = self.held.load(Ordering::Relaxed);
        if byte_size <= held {
            budget.give_back(held - byte_size);
        } else {
            budget.take(byte_size - held).map_err(|used| {
                Status::resource_exhausted(format!(
                    "the message has {byte_size} bytes or more, and other calls hold {} of the {} that all may hold; send \
                     fewer at once, or raise limits.message_bytes",
                    used - held,
                    budget.limit
                ))
            })?;
        }
        self.held.store(byte_size, Ordering::Relaxed);
        Ok(())
    }

    /// The call holds at least so many bytes.
    ///
    /// # Errors
    /// As [`Charge::set`].
    pub(crate) fn at_least(&self, byte_size: u64) -> Result<(), Status> {
        self.set(byte_size.max(self.held.load(Ordering::Relaxed)))
    }

    /// The call holds nothing any more.
    pub(crate) fn release(&self) {
        self.budget
            .0
            .give_back(self.held.swap(0, Ordering::Relaxed));
    }

    /// A charge beside this one, of the same budget.
    pub(crate) fn sibling(&self) -> Self {
        self.budget.charge()
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.release();
    }
}

/// Charges calls for what they send. The [`Charge`] is in the extensions of the request, as an `Arc`.
#[derive(Clone, Debug)]
pub(super) struct Metering(pub(super) MessageBudget);

/// Services whose calls are charged.
#[derive(Clone, Debug)]
pub(super) struct Metered<S> {
    inner: S,
    budget: MessageBudget,
}

impl<S> Layer<S> for Metering {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        let budget = self.0.clone();
        Metered { inner, budget }
    }
}

impl<S, B, R> Service<Request<B>> for Metered<S>
where
    S: Service<Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
    B: Body + From<Counted<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let charge = Arc::new(self.budget.charge());
        request.extensions_mut().insert(Arc::clone(&charge));
        let messages = (request.uri().path() == STREAM_PATH).then(Messages::default);
        let drains = request.version() < Version::HTTP_2;
        let of_body = Arc::clone(&charge);
        let answer = self.inner.call(request.map(|inner| {
            B::from(Counted {
                inner,
                charge: of_body,
                byte_size: 0,
                messages,
                drains,
                refusal: None,
            })
        }));
        Box::pin(async move {
            let answer = answer.await;
            // The message was there for as long as its call.
            drop(charge);
            answer
        })
    }
}

/// A body that is charged for as it comes.
#[derive(Debug)]
pub(super) struct Counted<B> {
    inner: B,
    charge: Arc<Charge>,
    /// Of the body so far; of a stream, of what is not a whole message yet.
    byte_size: u64,
    /// Set for a stream of messages.
    messages: Option<Messages>,
    /// Whether the rest is read, and thrown away, before a refusal is told: a client of HTTP/1 that still sends when the
    /// server answers and closes the connection may never see the answer.
    drains: bool,
    refusal: Option<Status>,
}

impl From<Counted<Self>> for axum::body::Body {
    fn from(counted: Counted<Self>) -> Self {
        Self::new(counted)
    }
}

impl From<Counted<Self>> for tonic::body::Body {
    fn from(counted: Counted<Self>) -> Self {
        Self::new(counted)
    }
}

impl<B> Body for Counted<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Data = Bytes;
    type Error = tonic::codegen::StdError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        loop {
            let frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
            let Some(frame) = frame else {
                return Poll::Ready(this.refusal.take().map(|refusal| Err(refusal.into())));
            };
            let frame = frame.map_err(Into::into)?;
            let Some(data) = frame.data_ref() else {
                return Poll::Ready(Some(Ok(frame)));
            };
            let sum = this.byte_size + data.remaining() as u64;
            if this.refusal.is_none() {
                this.refusal = this.charge.set(sum).err();
            }
            match this.refusal.take() {
                None => {
                    this.byte_size = match &mut this.messages {
                        // Whole messages of this part are with their reader when the next one is asked for.
                        Some(messages) => messages.unfinished(data),
                        None => sum,
                    };
                    return Poll::Ready(Some(Ok(frame)));
                }
                Some(refusal) if this.drains && sum <= MESSAGE_BYTES_MAX as u64 => {
                    this.charge.release();
                    (this.refusal, this.byte_size) = (Some(refusal), sum);
                }
                Some(refusal) => return Poll::Ready(Some(Err(refusal.into()))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Where the messages of a stream begin and end.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of the prefix that are there.
    prefix_bytes: usize,
    /// Bytes of the message that are still to come, once its prefix is there.
    left: u64,
    /// Bytes of the message that are there, prefix and all.
    there: u64,
}

impl Messages {
    /// Bytes of the message that a further part leaves unfinished; 0 if it ends with a message.
    fn unfinished(&mut self, mut part: &[u8]) -> u64 {
        while !part.is_empty() {
            if self.prefix_bytes < PREFIX_BYTES {
                let taken = part.len().min(PREFIX_BYTES - self.prefix_bytes);
                let (prefix, rest) = part.split_at(taken);
                self.prefix[self.prefix_bytes..][..taken].copy_from_slice(prefix);
                self.prefix_bytes += taken;
                self.there += taken as u64;
                part = rest;
                if self.prefix_bytes < PREFIX_BYTES {
                    break;
                }
                let [_, length @ ..] = self.prefix;
                self.left = u64::from(u32::from_be_bytes(length));
            }
            let taken = part
                .len()
                .min(usize::try_from(self.left).unwrap_or(usize::MAX));
            part = &part[taken..];
            self.left -= taken as u64;
            self.there += taken as u64;
            if self.left == 0 {
                (self.prefix_bytes, self.there) = (0, 0);
            }
        }
        self.there
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use futures_util::stream;
    use tonic::Code;
    use tower::{ServiceExt, service_fn};

    use super::*;

    fn used(budget: &MessageBudget) -> u64 {
        budget.0.used.load(Ordering::Relaxed)
    }

    #[test]
    fn a_charge_grows_and_shrinks_within_the_budget_and_is_given_back() {
        let budget = MessageBudget::new(100, MessageMetrics::default());
        let (one, other) = (budget.charge(), budget.charge());
        one.set(60).unwrap();
        other.set(40).unwrap();
        let status = other.set(41).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().contains("41 bytes"), "{status:?}");
        assert!(
            status.message().contains("hold 60 of the 100"),
            "{status:?}"
        );
        assert_eq!(used(&budget), 100);
        one.set(10).unwrap();
        one.at_least(5).unwrap();
        other.sibling().set(50).unwrap();
        assert_eq!(used(&budget), 50);
        drop((one, other));
        assert_eq!(used(&budget), 0);
    }

    #[test]
    fn of_a_stream_only_what_is_unfinished_stays() {
        let mut messages = Messages::default();
        let message = |length: u32, there: usize| {
            let mut bytes = vec![0];
            bytes.extend(length.to_be_bytes());
            bytes.resize(PREFIX_BYTES + there, 7);
            bytes
        };
        assert_eq!(messages.unfinished(&message(3, 3)), 0);
        assert_eq!(messages.unfinished(&[]), 0);
        let two = [message(2, 2), message(1000, 10)].concat();
        assert_eq!(messages.unfinished(&two), 15);
        assert_eq!(messages.unfinished(&[7; 100]), 115);
        // The end of one, an empty one, and a part of a prefix.
        let end = [vec![7; 890], message(0, 0), vec![0, 0]].concat();
        assert_eq!(messages.unfinished(&end), 2);
        assert_eq!(messages.unfinished(&[0, 0, 1, 9]), 0);
    }

    /// Sends two parts of 40 bytes while another call holds `other`; what is held while the call is worked on.
    fn sent(other: u64) -> Result<u64, String> {
        let budget = MessageBudget::new(100, MessageMetrics::default());
        let another = budget.charge();
        another.set(other).unwrap();
        let seen = budget.clone();
        let service = service_fn(move |request: Request<Body>| {
            let seen = seen.clone();
            async move {
                let read = to_bytes(request.into_body(), usize::MAX).await;
                let answer = read.map(|_| used(&seen));
                let answer = answer.map_err(|error| format!("{error:?}"));
                Ok::<_, std::convert::Infallible>(http::Response::new(answer))
            }
        });
        let service = Metering(budget.clone()).layer(service);
        let parts = [[1_u8; 40], [2; 40]].map(|part| Ok::<_, String>(Bytes::from(part.to_vec())));
        let request = Request::new(Body::from_stream(stream::iter(parts)));
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let response = runtime.unwrap().block_on(service.oneshot(request)).unwrap();
        assert_eq!(used(&budget), other, "given back");
        response.into_body()
    }

    #[test]
    fn a_call_is_charged_until_it_is_answered_and_cut_off_where_the_budget_ends() {
        assert_eq!(sent(20), Ok(100));
        let error = sent(21).unwrap_err();
        assert!(error.contains("limits.message_bytes"), "{error}");
    }
}
