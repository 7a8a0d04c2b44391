//! Routes of shared memory.

use adjoin_control_api::inference as api;
use adjoin_oip::Fault;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::Shared;
use super::failure::Answer;
use super::infer::read;
use crate::control::listen::Caller;
use crate::oip::Oip;

/// A region of the path, if the path has one.
#[derive(Debug, Deserialize)]
pub(super) struct RegionPath {
    #[serde(default)]
    region: String,
}

type InPath = Result<Path<RegionPath>, PathRejection>;

/// What is registered, as HTTP writes it.
#[derive(Debug, Serialize)]
struct Status {
    name: String,
    key: String,
    offset: u64,
    byte_size: u64,
}

/// What is to be registered.
#[derive(Debug, Deserialize)]
struct Registration {
    key: String,
    #[serde(default)]
    offset: u64,
    byte_size: u64,
}

pub(super) async fn status(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    path: InPath,
) -> Answer {
    let found = shared
        .oip
        .region_status(&caller.of_protocol(), &path?.region)?;
    let mut regions: Vec<Status> = found
        .regions
        .into_values()
        .map(|it| Status {
            name: it.name,
            key: it.key,
            offset: it.offset,
            byte_size: it.byte_size,
        })
        .collect();
    regions.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(regions).into_response())
}

pub(super) async fn register(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    path: InPath,
    headers: HeaderMap,
    body: Body,
) -> Answer<StatusCode> {
    let name = path?.0.region;
    let bytes = read(body, &headers).await?;
    let wanted: Registration = serde_json::from_slice(&bytes).map_err(|error| {
        Fault::invalid(format!(
            "the request's JSON: {error}; it takes \"key\", \"offset\" and \"byte_size\""
        ))
    })?;
    let Registration {
        key,
        offset,
        byte_size,
    } = wanted;
    let request = api::SystemSharedMemoryRegisterRequest {
        name,
        key,
        offset,
        byte_size,
    };
    shared
        .oip
        .register_region(&caller.of_protocol(), &request)?;
    Ok(StatusCode::OK)
}

pub(super) async fn unregister(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    path: InPath,
) -> Answer<StatusCode> {
    shared
        .oip
        .unregister_region(&caller.of_protocol(), &path?.region);
    Ok(StatusCode::OK)
}

pub(super) async fn cuda_status(path: InPath) -> Answer<Response> {
    Oip::cuda_region_status(&path?.region)?;
    let none: [Status; 0] = [];
    Ok(Json(none).into_response())
}

pub(super) async fn cuda_register() -> Answer<StatusCode> {
    Err(Oip::no_cuda().into())
}

pub(super) async fn cuda_unregister() -> StatusCode {
    // There are none, and clients call this when they begin.
    StatusCode::OK
}
