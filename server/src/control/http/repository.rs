//! Routes of the model repository.

use std::collections::HashMap;

use adjoin_control_api::inference as api;
use adjoin_control_api::inference::model_repository_parameter::ParameterChoice;
use adjoin_oip::{Fault, json};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Shared;
use super::failure::Answer;
use super::infer::read;
use super::models::InPath;

#[derive(Debug, Default, Deserialize)]
struct Index {
    #[serde(default)]
    ready: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Change {
    #[serde(default)]
    parameters: HashMap<String, Value>,
}

/// A body that may be left out.
async fn optional<T: Default + DeserializeOwned>(body: Body, headers: &HeaderMap) -> Answer<T> {
    let bytes = read(body, headers).await?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    let read = serde_json::from_slice(&bytes);
    Ok(read.map_err(|error| Fault::invalid(format!("the request's JSON: {error}")))?)
}

pub(super) async fn index(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Answer {
    let asked: Index = optional(body, &headers).await?;
    let request = api::RepositoryIndexRequest {
        ready: asked.ready,
        ..Default::default()
    };
    let index = shared.oip.repository_index(&request).await?;
    let mut value = json::to_value("RepositoryIndexResponse", &index)?;
    // Over HTTP the list stands alone.
    Ok(Json(value["models"].take()).into_response())
}

async fn parameters(
    body: Body,
    headers: &HeaderMap,
) -> Answer<HashMap<String, api::ModelRepositoryParameter>> {
    let asked: Change = optional(body, headers).await?;
    let mut parameters = HashMap::new();
    for (name, value) in asked.parameters {
        let choice = match value {
            Value::Bool(value) => ParameterChoice::BoolParam(value),
            Value::String(text) => ParameterChoice::StringParam(text),
            Value::Number(number) if number.is_i64() => {
                ParameterChoice::Int64Param(number.as_i64().unwrap_or(0))
            }
            other => {
                return Err(Fault::invalid(format!(
                    "parameter '{name}' is {other}; it takes a text, a number or true or false"
                ))
                .into());
            }
        };
        parameters.insert(
            name,
            api::ModelRepositoryParameter {
                parameter_choice: Some(choice),
            },
        );
    }
    Ok(parameters)
}

pub(super) async fn load(
    State(shared): State<Shared>,
    path: InPath,
    headers: HeaderMap,
    body: Body,
) -> Answer<StatusCode> {
    let model_name = path?.0.model;
    let parameters = parameters(body, &headers).await?;
    let request = api::RepositoryModelLoadRequest {
        model_name,
        parameters,
        ..Default::default()
    };
    shared.oip.load(request).await?;
    Ok(StatusCode::OK)
}

pub(super) async fn unload(
    State(shared): State<Shared>,
    path: InPath,
    headers: HeaderMap,
    body: Body,
) -> Answer<StatusCode> {
    let model_name = path?.0.model;
    let parameters = parameters(body, &headers).await?;
    let request = api::RepositoryModelUnloadRequest {
        model_name,
        parameters,
        ..Default::default()
    };
    shared.oip.unload(request).await?;
    Ok(StatusCode::OK)
}
