//! From an HTTP body to a call.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::bounded::{Parameters, list};
use crate::call::{check_count, check_name, check_outputs};
use crate::elements::{check_bytes, from_json};
use crate::parameters::TensorParameters;
use crate::{Call, CallInput, CallOutput, CallParameters, Content, Fault, Target, VersionChoice};

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow, deserialize_with = "list")]
    inputs: Vec<Input<'a>>,
    #[serde(borrow, default, deserialize_with = "list")]
    outputs: Vec<Output<'a>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(deserialize_with = "list")]
    shape: Vec<i64>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    parameters: Parameters,
}

/// Reads a body that asks for `model` in `version`, both from the path. `json_bytes` is what the header
/// [`JSON_LENGTH_HEADER`](super::JSON_LENGTH_HEADER) says, `None` if it is not there: then all of the body is JSON.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn call(
    model: &str,
    version: &str,
    body: &Bytes,
    json_bytes: Option<&str>,
) -> Result<Call, Fault> {
    let json_bytes = json_length(body.len(), json_bytes)?;
    let mut raw = body.slice(json_bytes..);
    let message: Message<'_> = serde_json::from_slice(&body[..json_bytes])
        .map_err(|error| Fault::invalid(format!("the request's JSON: {error}")))?;
    check_count("input", message.inputs.len())?;
    check_count("output", message.outputs.len())?;
    let mut parameters = CallParameters::default();
    for (name, value) in message.parameters.iter() {
        parameters.take(name, value)?;
    }
    let mut inputs = Vec::with_capacity(message.inputs.len());
    for it in message.inputs {
        inputs.push(input(it, &mut raw)?);
    }
    if !raw.is_empty() {
        let (left, all) = (raw.len(), body.len());
        return Err(Fault::invalid(format!(
            "{left} of the body's {all} bytes are left after its JSON and the 'binary_data_size' of all inputs"
        )));
    }
    let outputs = message
        .outputs
        .into_iter()
        .map(|it| output(it, parameters.binary_data_output));
    let outputs: Vec<_> = outputs.collect::<Result<_, _>>()?;
    check_outputs(&outputs)?;
    Ok(Call {
        model: model.to_owned(),
        version: VersionChoice::read(version)?,
        id: message.id.into_owned(),
        parameters,
        inputs,
        outputs,
    })
}

fn json_length(body: usize, header: Option<&str>) -> Result<usize, Fault> {
    let Some(text) = header else { return Ok(body) };
    match text.trim().parse::<usize>() {
        Ok(length) if length <= body => Ok(length),
        Ok(length) => Err(Fault::invalid(format!(
            "Inference-Header-Content-Length is {length}, and the body has {body} bytes"
        ))),
        Err(_) => Err(Fault::invalid(format!(
            "Inference-Header-Content-Length is {text:?}; it is a number of bytes"
        ))),
    }
}

fn input(input: Input<'_>, raw: &mut Bytes) -> Result<CallInput, Fault> {
    let parameters = TensorParameters::read(input.parameters.iter())
        .map_err(|fault| fault.about("input", &input.name))?;
    CallInput::new(
        input.name.into_owned(),
        &input.datatype,
        &input.shape,
        |dtype, count| match (parameters.region, parameters.binary_data_size, input.data) {
            (Some(slice), None, None) => Ok(Content::Region(slice)),
            (None, Some(byte_size), None) => {
                let left = raw.len();
                let size = usize::try_from(byte_size).ok().filter(|&size| size <= left).ok_or_else(|| {
                    Fault::invalid(format!(
                        "'binary_data_size' is {byte_size}, and {left} bytes of the body are left"
                    ))
                })?;
                let bytes = raw.split_to(size);
                check_bytes(dtype, count, &bytes)?;
                Ok(Content::Message(bytes))
            }
            (None, None, Some(data)) => from_json(data, dtype, count).map(Content::Message),
            (None, None, None) if count == 0 => Ok(Content::Message(Bytes::new())),
            (None, None, None) => Err(Fault::invalid(
                "it has no 'data', no 'binary_data_size' and no 'shared_memory_region'",
            )),
            _ => Err(Fault::invalid(
                "it has more than one of 'data', 'binary_data_size' and 'shared_memory_region'",
            )),
        },
    )
}

fn output(output: Output<'_>, is_binary_by_default: bool) -> Result<CallOutput, Fault> {
    let name = output.name.into_owned();
    check_name("output", &name)?;
    let parameters = TensorParameters::read(output.parameters.iter())
        .map_err(|fault| fault.about("output", &name))?;
    let target = match (parameters.region, parameters.binary_data) {
        // Clients that mean a region say that they want no binary data.
        (Some(_), is_binary) if parameters.classes > 0 || is_binary == Some(true) => {
            return Err(Fault::invalid(format!(
                "output '{name}' has 'shared_memory_region' beside 'binary_data' or 'classification'; it can have one"
            )));
        }
        (Some(slice), _) => Target::Region(slice),
        (None, is_binary) => Target::Message {
            is_binary: is_binary.unwrap_or(is_binary_by_default),
        },
    };
    Ok(CallOutput {
        name,
        target,
        classes: parameters.classes,
    })
}
