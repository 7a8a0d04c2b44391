//! The deadline that a gRPC caller sends along. The transport library ends such a call, too, but with CANCELLED; the
//! protocol's word for it is DEADLINE_EXCEEDED. So a timer of the same length is started here, just before the
//! library's, and is looked at first.

use std::future::Future;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{self, HeaderMap};
use futures_util::FutureExt;
use futures_util::future::{Either, Map};
use tokio::time::Timeout;
use tokio::time::error::Elapsed;
use tonic::Status;
use tower::{Layer, Service};

/// Ends calls at their deadlines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines;

/// Services whose calls end at their deadlines.
#[derive(Clone, Debug)]
pub(super) struct Timed<S> {
    inner: S,
}

/// What came of a call, or that its time is over.
type Outcome<R, E> = Result<Result<http::Response<R>, E>, Elapsed>;
type Told<R, E> = fn(Outcome<R, E>) -> Result<http::Response<R>, E>;

impl<S> Layer<S> for Deadlines {
    type Service = Timed<S>;

    fn layer(&self, inner: S) -> Timed<S> {
        Timed { inner }
    }
}

impl<S, B, R> Service<http::Request<B>> for Timed<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<Map<Timeout<S::Future>, Told<R, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let timeout = timeout(request.headers());
        let answer = self.inner.call(request);
        match timeout {
            Some(timeout) => Either::Left(timed(timeout, answer)),
            None => Either::Right(answer),
        }
    }
}

fn timed<F, R, E>(timeout: Duration, answer: F) -> Map<Timeout<F>, Told<R, E>>
where
    F: Future<Output = Result<http::Response<R>, E>>,
    R: Default,
{
    let told: Told<R, E> = |outcome| {
        outcome.unwrap_or_else(|_| {
            let status = Status::deadline_exceeded("the call's deadline has passed");
            Ok(status.into_http())
        })
    };
    tokio::time::timeout(timeout, answer).map(told)
}

/// How long the caller waits, if it says so in the form of gRPC.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    timeout_ns(text).map(Duration::from_nanos)
}

/// At most eight digits and a unit, says the protocol of gRPC.
fn timeout_ns(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let ns: u64 = match unit {
        "H" => 3_600_000_000_000,
        "M" => 60_000_000_000,
        "S" => 1_000_000_000,
        "m" => 1_000_000,
        "u" => 1_000,
        "n" => 1,
        _ => return None,
    };
    Some(digits.parse::<u64>().ok()?.saturating_mul(ns))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tonic::Code;
    use tower::{ServiceExt, service_fn};

    use super::*;

    #[test]
    fn timeouts_have_digits_and_a_unit() {
        assert_eq!(timeout_ns("100m"), Some(100_000_000));
        assert_eq!(timeout_ns("2S"), Some(2_000_000_000));
        assert_eq!(timeout_ns("99999999H"), Some(u64::MAX));
        for wrong in ["", "m", "1", "1x", "-1S", "123456789S", "1ü"] {
            assert_eq!(timeout_ns(wrong), None, "{wrong}");
        }
    }

    fn call(timeout: &str, answers: bool) -> Option<Status> {
        let service = service_fn(move |_: http::Request<()>| async move {
            if !answers {
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(http::Response::new(()))
        });
        let request = http::Request::builder().header("grpc-timeout", timeout);
        let answer = Deadlines.layer(service).oneshot(request.body(()).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let answer = runtime.unwrap().block_on(answer).unwrap();
        Status::from_header_map(answer.headers())
    }

    #[test]
    fn a_call_that_is_not_answered_in_time_is_told_so() {
        assert_eq!(
            call("1m", false).map(|status| status.code()),
            Some(Code::DeadlineExceeded)
        );
        for timeout in ["9S", "99999999H", "soon"] {
            assert!(call(timeout, true).is_none(), "{timeout}");
        }
    }
}
