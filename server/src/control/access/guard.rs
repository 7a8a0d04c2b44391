//! The check, as a layer around all gRPC services and as one around a router.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{self, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::future::Either;
use tonic::Status;
use tower::{Layer, Service};

use super::{Access, Refusal};
use crate::control::listen::Caller;

/// Puts the check in front of gRPC services.
#[derive(Clone, Debug)]
pub(in crate::control) struct GrpcGuard {
    access: Arc<Access>,
}

/// Services behind the check.
#[derive(Clone, Debug)]
pub(in crate::control) struct Guarded<S> {
    access: Arc<Access>,
    inner: S,
}

impl GrpcGuard {
    pub(in crate::control) fn new(access: Arc<Access>) -> Self {
        Self { access }
    }
}

impl<S> Layer<S> for GrpcGuard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        let access = Arc::clone(&self.access);
        Guarded { access, inner }
    }
}

impl<S, B, R> Service<http::Request<B>> for Guarded<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<S::Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let caller = request.extensions().get::<Caller>();
        let path = request.uri().path();
        match self.access.check_method(path, caller, request.headers()) {
            Ok(token) => {
                if let Some(caller) = request.extensions_mut().get_mut::<Caller>() {
                    caller.token = token;
                }
                Either::Right(self.inner.call(request))
            }
            Err(refusal) => {
                let text = refusal.to_string();
                let status = match refusal {
                    // Clients that try a newer form of a service first look for this code.
                    Refusal::Unknown => Status::unimplemented(text),
                    Refusal::TokenMissing(_) | Refusal::TokenWrong(_) => {
                        Status::unauthenticated(text)
                    }
                    Refusal::Denied(_) => Status::permission_denied(text),
                };
                Either::Left(ready(Ok(status.into_http())))
            }
        }
    }
}

/// Puts the check in front of all routes of a router. Handlers find the [`Caller`] among the extensions.
pub(in crate::control) fn guarded(router: Router, access: Arc<Access>) -> Router {
    router.layer(from_fn_with_state(access, guard))
}

async fn guard(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    let extensions = request.extensions_mut();
    let caller = extensions.remove::<ConnectInfo<Caller>>();
    let caller = caller.map(|ConnectInfo(caller)| caller);
    let template = extensions.get::<MatchedPath>().cloned();
    let template = template.as_ref().map_or("", MatchedPath::as_str);
    match access.check_route(template, caller.as_ref(), request.headers()) {
        Ok(token) => {
            if let Some(mut caller) = caller {
                caller.token = token;
                request.extensions_mut().insert(caller);
            }
            next.run(request).await
        }
        Err(refusal) => refused(refusal),
    }
}

fn refused(refusal: Refusal) -> Response {
    // Only names of rights come in, so the text needs no escapes but for its quotes.
    let text = refusal.to_string().replace('"', "\\\"");
    let json = [(CONTENT_TYPE, "application/json")];
    let body = format!("{{\"error\":\"{text}\"}}");
    match refusal {
        Refusal::Unknown => (StatusCode::NOT_FOUND, json, body).into_response(),
        Refusal::Denied(_) => (StatusCode::FORBIDDEN, json, body).into_response(),
        Refusal::TokenMissing(_) | Refusal::TokenWrong(_) => {
            let scheme = [(WWW_AUTHENTICATE, "Bearer")];
            (StatusCode::UNAUTHORIZED, scheme, json, body).into_response()
        }
    }
}
