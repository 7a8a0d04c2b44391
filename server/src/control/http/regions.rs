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
    let mut regions: Vec<CudaStatus> = found
        .regions
        .into_values()
        .map(|it| CudaStatus {
            name: it.name,
            device_id: it.device_id,
            byte_size: it.byte_size,
        })
        .collect();
    regions.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(regions).into_response())
}

pub(super) async fn cuda_register(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    path: InPath,
    headers: HeaderMap,
    body: Body,
) -> Answer<StatusCode> {
    let name = path?.0.region;
    let bytes = read(body, &headers).await?;
    let wanted: CudaRegistration = serde_json::from_slice(&bytes).map_err(|error| {
        Fault::invalid(format!(
            "the request's JSON: {error}; it takes \"raw_handle\": {{\"b64\": ...}}, \"device_id\" and \"byte_size\""
        ))
    })?;
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
