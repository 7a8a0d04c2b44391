//! `/metrics` for Prometheus, and `/healthz` for probes that speak HTTP.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::engine::Engine;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes of `--metrics-addr`.
pub fn router(engine: Arc<Engine>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .with_state(engine)
}

async fn metrics(State(engine): State<Arc<Engine>>) -> Response {
    engine.count_sessions();
    engine.count_memory();
    match engine.metrics().encode() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn health(State(engine): State<Arc<Engine>>) -> Response {
    let answer = if !engine.is_serving() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else if engine.is_device_given_up() {
        (StatusCode::SERVICE_UNAVAILABLE, "device lost\n")
    } else {
        (StatusCode::OK, "ok\n")
    };
    answer.into_response()
}
