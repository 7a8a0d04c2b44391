//! Calls as gRPC messages.

use std::collections::HashMap;

use adjoin_control_api::inference::infer_parameter::ParameterChoice;
use adjoin_control_api::inference::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use adjoin_control_api::inference::model_infer_response::InferOutputTensor;
use adjoin_control_api::inference::{InferParameter, ModelInferRequest, ModelInferResponse};
use bytes::Bytes;

use crate::call::{check_count, check_name, check_outputs};
use crate::elements::{check_bytes, from_typed};
use crate::parameters::TensorParameters;
use crate::{
    Call, CallInput, CallOutput, CallParameters, Content, Fault, Reply, ReplyContent, Target,
    Value, VersionChoice,
};

/// Reads a message.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn call(message: ModelInferRequest) -> Result<Call, Fault> {
    check_count("input", message.inputs.len())?;
    check_count("output", message.outputs.len())?;
    let mut parameters = CallParameters::default();
    for (name, parameter) in &message.parameters {
        parameters.take(name, value(parameter))?;
    }
    let raw_count = message.raw_input_contents.len();
    let mut raw = message.raw_input_contents.into_iter();
    let mut inputs = Vec::with_capacity(message.inputs.len());
    for tensor in message.inputs {
        inputs.push(input(tensor, &mut raw, raw_count)?);
    }
    if raw.len() > 0 {
        let taken = raw_count - raw.len();
        return Err(Fault::invalid(format!(
            "{raw_count} raw_input_contents came, and {taken} inputs take one each; inputs in shared memory take none"
        )));
    }
    let outputs: Vec<_> = message
        .outputs
        .into_iter()
        .map(output)
        .collect::<Result<_, _>>()?;
    check_outputs(&outputs)?;
    Ok(Call {
        version: VersionChoice::read(&message.model_version)?,
        model: message.model_name,
        id: message.id,
        parameters,
        inputs,
        outputs,
    })
}

fn value(parameter: &InferParameter) -> Value<'_> {
    match &parameter.parameter_choice {
        Some(ParameterChoice::BoolParam(value)) => Value::Bool(*value),
        Some(ParameterChoice::Int64Param(value)) => Value::Int((*value).into()),
        Some(ParameterChoice::Uint64Param(value)) => Value::Int((*value).into()),
        Some(ParameterChoice::DoubleParam(value)) => Value::Float(*value),
        Some(ParameterChoice::StringParam(value)) => Value::Text(value),
        None => Value::Other,
    }
}

fn input(
    tensor: InferInputTensor,
    raw: &mut impl Iterator<Item = Bytes>,
    raw_count: usize,
) -> Result<CallInput, Fault> {
    let parameters = tensor_parameters(&tensor.parameters);
    let parameters = parameters.map_err(|fault| fault.about("input", &tensor.name))?;
    let typed = tensor.contents;
    CallInput::new(
        tensor.name,
        &tensor.datatype,
        &tensor.shape,
        |dtype, count| {
            if let Some(slice) = parameters.region {
                if typed.is_some() {
                    return Err(Fault::invalid(
                        "unexpected 'content' provided when using shared memory; it can have one of them",
                    ));
                }
                return Ok(Content::Region(slice));
            }
            match typed {
                Some(_) if raw_count > 0 => Err(Fault::invalid(
                    "it has typed contents, and the request has raw_input_contents; all inputs take the same way",
                )),
                Some(contents) => from_typed(contents, dtype, count).map(Content::Message),
                None => {
                    let missing = || match (raw_count, count) {
                        // Of no elements nothing needs to be said.
                        (0, 0) => Ok(Bytes::new()),
                        (0, _) => Err(Fault::invalid(
                            "it has no contents and does not lie in shared memory",
                        )),
                        _ => Err(Fault::invalid(format!(
                            "only {raw_count} raw_input_contents came"
                        ))),
                    };
                    let bytes = raw.next().map_or_else(missing, Ok)?;
                    check_bytes(dtype, count, &bytes)?;
                    Ok(Content::Message(bytes))
                }
            }
        },
    )
}

fn tensor_parameters(
    parameters: &HashMap<String, InferParameter>,
) -> Result<TensorParameters, Fault> {
    let named = parameters.iter();
    TensorParameters::read(named.map(|(name, it)| (name.as_str(), value(it))))
}

fn output(tensor: InferRequestedOutputTensor) -> Result<CallOutput, Fault> {
    check_name("output", &tensor.name)?;
    let parameters = tensor_parameters(&tensor.parameters);
    let parameters = parameters.map_err(|fault| fault.about("output", &tensor.name))?;
    if parameters.region.is_some() && parameters.classes > 0 {
        return Err(Fault::invalid(format!(
            "output '{}' has 'shared_memory_region' beside 'classification'; it can have one",
            tensor.name
        )));
    }
    let target = parameters
        .region
        .map_or(Target::Message { is_binary: true }, Target::Region);
    Ok(CallOutput {
        name: tensor.name,
        target,
        classes: parameters.classes,
    })
}

/// Writes an answer.
#[must_use]
pub fn reply(reply: Reply) -> ModelInferResponse {
    let mut message = ModelInferResponse {
        model_name: reply.model,
        model_version: reply.version.to_string(),
        id: reply.id,
        ..ModelInferResponse::default()
    };
    for output in reply.outputs {
        message.outputs.push(InferOutputTensor {
            name: output.name,
            datatype: output.dtype.name().into(),
            shape: output.shape.to_vec(),
            ..InferOutputTensor::default()
        });
        message.raw_output_contents.push(match output.content {
            ReplyContent::Message { bytes, .. } => bytes,
            // Clients take the bytes of an output by its place among the outputs.
            ReplyContent::Region => Bytes::new(),
        });
    }
    message
}
