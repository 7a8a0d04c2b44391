//! Routes of shared memory.

use adjoin_control_api::inference as api;
use adjoin_oip::Fault;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Shared;
use super::failure::Answer;
use super::infer::read;
use crate::control::listen::Caller;
use crate::oip::regions::RegionKind;

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

/// What is registered of a device's memory.
#[derive(Debug, Serialize)]
struct CudaStatus {
    name: String,
    device_id: u64,
    byte_size: u64,
}

/// What is to be registered of a device's memory.
#[derive(Debug, Deserialize)]
struct CudaRegistration {
    raw_handle: Handle,
    device_id: i64,
    byte_size: u64,
}

/// Bytes, as JSON has them.
#[derive(Debug, Deserialize)]
struct Handle {
    b64: String,
}

/// What the body asks for; `takes` are its fields, for a caller who has others.
async fn registration<T: DeserializeOwned>(
    body: Body,
    headers: &HeaderMap,
    takes: &str,
) -> Answer<T> {
    let bytes = read(body, headers).await?;
    let wanted = serde_json::from_slice(&bytes);
    Ok(wanted.map_err(|error| {
        Fault::invalid(format!("the request's JSON: {error}; it takes {takes}"))
    })?)
}

/// All of them, by name.
fn listed<T: Serialize>(regions: impl Iterator<Item = T>, name: impl Fn(&T) -> &str) -> Response {
    let mut regions: Vec<T> = regions.collect();
    regions.sort_by(|a, b| name(a).cmp(name(b)));
    Json(regions).into_response()
}

pub(super) async fn status(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    path: InPath,
) -> Answer {
    let found = shared
        .oip
        .region_status(&caller.of_protocol(), &path?.region)?;
    let regions = found.regions.into_values().map(|it| Status {
        name: it.name,
        key: it.key,
        offset: it.offset,
        byte_size: it.byte_size,
    });
    Ok(listed(regions, |status| &status.name))
}

pub(super) async fn register(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    path: InPath,
    headers: HeaderMap,
    body: Body,
) -> Answer<StatusCode> {
    let name = path?.0.region;
    let takes = "\"key\", \"offset\" and \"byte_size\"";
    let Registration {
        key,
        offset,
        byte_size,
    } = registration(body, &headers, takes).await?;
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
    let caller = caller.of_protocol();
    let name = &path?.region;
    shared
        .oip
        .unregister_region(&caller, RegionKind::System, name);
    Ok(StatusCode::OK)
}

pub(super) async fn cuda_status(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    path: InPath,
) -> Answer<Response> {
    let found = shared
        .oip
        .cuda_region_status(&caller.of_protocol(), &path?.region)?;
    let regions = found.regions.into_values().map(|it| CudaStatus {
        name: it.name,
        device_id: it.device_id,
        byte_size: it.byte_size,
    });
    Ok(listed(regions, |status| &status.name))
}

pub(super) async fn cuda_register(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    path: InPath,
    headers: HeaderMap,
    body: Body,
) -> Answer<StatusCode> {
    let name = path?.0.region;
    let takes = "\"raw_handle\": {\"b64\": ...}, \"device_id\" and \"byte_size\"";
    let wanted: CudaRegistration = registration(body, &headers, takes).await?;
    let raw_handle = BASE64_STANDARD.decode(&wanted.raw_handle.b64);
    let raw_handle = raw_handle
        .map_err(|error| Fault::invalid(format!("raw_handle.b64 is no base64: {error}")))?;
    let request = api::CudaSharedMemoryRegisterRequest {
        name,
        raw_handle,
        device_id: wanted.device_id,
        byte_size: wanted.byte_size,
    };
    shared
        .oip
        .register_cuda_region(&caller.of_protocol(), &request)?;
    Ok(StatusCode::OK)
}

pub(super) async fn cuda_unregister(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    path: InPath,
) -> Answer<StatusCode> {
    let caller = caller.of_protocol();
    let name = &path?.region;
    shared
        .oip
        .unregister_region(&caller, RegionKind::Cuda, name);
    Ok(StatusCode::OK)
}
