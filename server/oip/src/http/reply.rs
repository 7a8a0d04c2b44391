//! From an answer to an HTTP body.

use adjoin_schema::element_count;
use bytes::Bytes;
use serde::Serialize;

use crate::elements::to_json;
use crate::{Fault, Kind, Reply, ReplyContent, ReplyOutput};

/// A body, as parts that follow one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// JSON, then the raw bytes of each output that goes so.
    pub parts: Vec<Bytes>,
    /// Bytes of the JSON, if raw bytes follow it.
    pub json_bytes: Option<usize>,
}

#[derive(Serialize)]
struct Start<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    model_name: &'a str,
    model_version: String,
}

#[derive(Serialize)]
struct Head<'a> {
    name: &'a str,
    datatype: &'a str,
    shape: &'a [i64],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
}

/// What stands beside raw bytes. Triton's client takes any parameters of an output for these.
#[derive(Serialize)]
struct Parameters {
    binary_data_size: usize,
}

/// Writes an answer.
///
/// # Errors
/// If values are asked for as JSON that JSON does not have: numbers that are not finite, strings that are no UTF-8.
pub fn body(reply: &Reply) -> Result<Body, Fault> {
    let internal = |error: serde_json::Error| Fault::new(Kind::Internal, error.to_string());
    let start = Start {
        id: &reply.id,
        model_name: &reply.model,
        model_version: reply.version.to_string(),
    };
    let mut json = serde_json::to_vec(&start).map_err(internal)?;
    let mut raw = Vec::new();
    // Elements are written as they are read; to build a tree of them first would take many times their room.
    json.pop();
    json.extend_from_slice(b",\"outputs\":[");
    for (index, output) in reply.outputs.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        let head = head(output);
        serde_json::to_writer(&mut json, &head).map_err(internal)?;
        match &output.content {
            ReplyContent::Message {
                bytes,
                is_binary: true,
            } => raw.push(bytes.clone()),
            ReplyContent::Message {
                bytes,
                is_binary: false,
            } => {
                let count = element_count(&output.shape)
                    .map_err(|error| Fault::new(Kind::Internal, error.to_string()))?;
                json.pop();
                json.extend_from_slice(b",\"data\":");
                to_json(output.dtype, count, bytes, &mut json)
                    .map_err(|fault| fault.about("output", &output.name))?;
                json.push(b'}');
            }
            ReplyContent::Region => {}
        }
    }
    json.extend_from_slice(b"]}");
    let json_bytes = (!raw.is_empty()).then_some(json.len());
    let mut parts = vec![Bytes::from(json)];
    parts.append(&mut raw);
    Ok(Body { parts, json_bytes })
}

fn head(output: &ReplyOutput) -> Head<'_> {
    let parameters = match &output.content {
        ReplyContent::Message {
            bytes,
            is_binary: true,
        } => Some(Parameters {
            binary_data_size: bytes.len(),
        }),
        ReplyContent::Message {
            is_binary: false, ..
        }
        | ReplyContent::Region => None,
    };
    Head {
        name: &output.name,
        datatype: output.dtype.name(),
        shape: &output.shape,
        parameters,
    }
}
