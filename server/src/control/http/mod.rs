//! The Open Inference Protocol over HTTP: routes under `/v2`. JSON everywhere; tensors as JSON or as raw bytes behind it.

mod failure;
mod infer;
mod models;
mod regions;
mod repository;
mod settings;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower_http::compression::CompressionLayer;
use tower_http::decompression::RequestDecompressionLayer;

use super::Shared;
use super::message_budget::Metering;
use failure::Failure;

/// All routes.
pub(super) fn router(shared: Shared) -> Router {
    let model = Router::new()
        .route("/", get(models::metadata))
        .route("/ready", get(models::ready))
        .route("/config", get(models::config))
        .route("/stats", get(models::statistics))
        .route("/infer", post(infer::infer))
        .route(
            "/trace/setting",
            get(settings::trace).post(settings::set_trace),
        );
    let repository = Router::new()
        .route("/index", post(repository::index))
        .route("/models/{model}/load", post(repository::load))
        .route("/models/{model}/unload", post(repository::unload));
    let system = Router::new()
        .route("/status", get(regions::status))
        .route("/unregister", post(regions::unregister))
        .route("/region/{region}/status", get(regions::status))
        .route("/region/{region}/register", post(regions::register))
        .route("/region/{region}/unregister", post(regions::unregister));
    let cuda = Router::new()
        .route("/status", get(regions::cuda_status))
        .route("/unregister", post(regions::cuda_unregister))
        .route("/region/{region}/status", get(regions::cuda_status))
        .route("/region/{region}/register", post(regions::cuda_register))
        .route(
            "/region/{region}/unregister",
            post(regions::cuda_unregister),
        );
    Router::new()
        .route("/v2", get(models::server))
        .route("/v2/", get(models::server))
        .route("/v2/health/live", get(async || StatusCode::OK))
        .route("/v2/health/ready", get(models::server_ready))
        .route("/v2/models/stats", get(models::all_statistics))
        .nest("/v2/models/{model}", model.clone())
        .nest("/v2/models/{model}/versions/{version}", model)
        .nest("/v2/repository", repository)
        .nest("/v2/systemsharedmemory", system)
        .nest("/v2/cudasharedmemory", cuda)
        .route(
            "/v2/trace/setting",
            get(settings::trace).post(settings::set_trace),
        )
        .route("/v2/logging", get(settings::log).post(settings::set_log))
        .fallback(async || Failure::not_found())
        .method_not_allowed_fallback(async || Failure::method_not_allowed())
        // What is limited is what comes out: a small body may unfold to a large one.
        .layer(Metering(shared.messages.clone()))
        .layer(RequestDecompressionLayer::new())
        .layer(map_response(say_what_is_decoded))
        .layer(CompressionLayer::new())
        .with_state(shared)
}

/// The layer that decompresses refuses without a word.
async fn say_what_is_decoded(response: Response) -> Response {
    if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        return Failure::unknown_encoding().into_response();
    }
    response
}
