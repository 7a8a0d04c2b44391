//! Routes of settings.

use std::collections::HashMap;

use adjoin_control_api::inference as api;
use adjoin_control_api::inference::log_settings_request::SettingValue as LogValue;
use adjoin_control_api::inference::log_settings_request::setting_value::ParameterChoice;
use adjoin_control_api::inference::log_settings_response::setting_value::ParameterChoice as Told;
use adjoin_control_api::inference::trace_setting_request::SettingValue as TraceValue;
use adjoin_oip::Fault;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use serde_json::{Map, Value};

use super::Shared;
use super::failure::Answer;
use super::infer::read;

async fn object(body: Body, headers: &HeaderMap) -> Answer<Map<String, Value>> {
    let bytes = read(body, headers).await?;
    let read = serde_json::from_slice(&bytes);
    Ok(read.map_err(|error| {
        Fault::invalid(format!(
            "the request's JSON: {error}; it is an object of settings"
        ))
    })?)
}

pub(super) async fn trace(State(shared): State<Shared>) -> Answer {
    trace_answer(&shared, HashMap::new())
}

pub(super) async fn set_trace(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let mut settings = HashMap::new();
    for (name, value) in object(body, &headers).await? {
        let text = |value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            other => Err(Fault::invalid(format!(
                "trace setting '{name}' is {other}; it takes a text or a list of texts"
            ))),
        };
        let value = match &value {
            // null asks for the default.
            Value::Null => Vec::new(),
            Value::Array(values) => values.iter().map(text).collect::<Result<_, _>>()?,
            value => vec![text(value)?],
        };
        settings.insert(name, TraceValue { value });
    }
    trace_answer(&shared, settings)
}

fn trace_answer(shared: &Shared, settings: HashMap<String, TraceValue>) -> Answer {
    let request = api::TraceSettingRequest {
        settings,
        ..Default::default()
    };
    let mut answer = Map::new();
    for (name, setting) in shared.oip.trace_setting(&request)?.settings {
        // Only levels can be several.
        let value = match setting.value.as_slice() {
            [one] if name != "trace_level" => Value::from(one.as_str()),
            several => Value::from(several),
        };
        answer.insert(name, value);
    }
    Ok(Json(answer).into_response())
}

pub(super) async fn log(State(shared): State<Shared>) -> Answer {
    log_answer(&shared, HashMap::new())
}

pub(super) async fn set_log(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let mut settings = HashMap::new();
    for (name, value) in object(body, &headers).await? {
        let choice = match &value {
            Value::Bool(value) => ParameterChoice::BoolParam(*value),
            Value::String(text) => ParameterChoice::StringParam(text.clone()),
            Value::Number(number) => {
                let number = number
                    .as_u64()
                    .and_then(|number| u32::try_from(number).ok());
                ParameterChoice::Uint32Param(number.ok_or_else(|| {
                    Fault::invalid(format!(
                        "log setting '{name}' is {value}; it takes a number from 0 to 2^32 - 1"
                    ))
                })?)
            }
            other => {
                return Err(Fault::invalid(format!(
                    "log setting '{name}' is {other}; it takes a single value"
                ))
                .into());
            }
        };
        settings.insert(
            name,
            LogValue {
                parameter_choice: Some(choice),
            },
        );
    }
    log_answer(&shared, settings)
}

fn log_answer(shared: &Shared, settings: HashMap<String, LogValue>) -> Answer {
    let answer = shared
        .oip
        .log_settings(&api::LogSettingsRequest { settings })?;
    let value = |told| match told {
        Some(Told::BoolParam(value)) => Value::from(value),
        Some(Told::Uint32Param(value)) => Value::from(value),
        Some(Told::StringParam(text)) => Value::from(text),
        None => Value::Null,
    };
    let answer: Map<String, Value> = answer
        .settings
        .into_iter()
        .map(|(name, setting)| (name, value(setting.parameter_choice)))
        .collect();
    Ok(Json(answer).into_response())
}
