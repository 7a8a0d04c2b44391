//! Routes that tell what server and models are, and what has run.

use adjoin_oip::{VersionChoice, json};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::{Json, response::Response};
use serde::Deserialize;

use super::Shared;
use super::failure::Answer;
use crate::oip::Oip;

/// A model of the path, and its version if the path has one.
#[derive(Debug, Deserialize)]
pub(super) struct ModelPath {
    pub(super) model: String,
    #[serde(default)]
    pub(super) version: String,
}

pub(super) type InPath = Result<Path<ModelPath>, PathRejection>;

impl ModelPath {
    pub(super) fn version(&self) -> Answer<VersionChoice> {
        Ok(VersionChoice::read(&self.version)?)
    }
}

fn message(name: &str, message: &impl prost::Message) -> Answer {
    Ok(Json(json::to_value(name, message)?).into_response())
}

pub(super) async fn server() -> Answer {
    message("ServerMetadataResponse", &Oip::server_metadata())
}

pub(super) async fn server_ready(State(shared): State<Shared>) -> StatusCode {
    readiness(shared.is_ready())
}

/// The protocol knows 200 and 400.
fn readiness(is_ready: bool) -> StatusCode {
    if is_ready {
        StatusCode::OK
    } else {
        StatusCode::BAD_REQUEST
    }
}

pub(super) async fn metadata(State(shared): State<Shared>, path: InPath) -> Answer {
    let path = path?;
    let metadata = shared.oip.model_metadata(&path.model, &path.version()?)?;
    message("ModelMetadataResponse", &metadata)
}

pub(super) async fn ready(State(shared): State<Shared>, path: InPath) -> Answer<StatusCode> {
    let path = path?;
    Ok(readiness(
        shared.oip.is_model_ready(&path.model, &path.version()?),
    ))
}

pub(super) async fn config(State(shared): State<Shared>, path: InPath) -> Answer {
    let path = path?;
    let config = shared.oip.model_config(&path.model, &path.version()?)?;
    message("ModelConfig", &config.config.unwrap_or_default())
}

pub(super) async fn statistics(State(shared): State<Shared>, path: InPath) -> Answer {
    let path = path?;
    let statistics = shared.oip.statistics(&path.model, &path.version()?)?;
    message("ModelStatisticsResponse", &statistics)
}

pub(super) async fn all_statistics(State(shared): State<Shared>) -> Answer<Response> {
    message(
        "ModelStatisticsResponse",
        &shared.oip.statistics("", &VersionChoice::Any)?,
    )
}
