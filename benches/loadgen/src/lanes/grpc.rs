//! The Open Inference Protocol over gRPC: tensors in the messages, or in a segment of shared memory.

use std::collections::HashMap;

use adjoin_cli_kit::Failure;
use adjoin_cli_kit::control::{for_tensors, inference_client_on};
use adjoin_cli_kit::tensor::Tensor;
use adjoin_control_api::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use adjoin_control_api::inference::infer_parameter::ParameterChoice;
use adjoin_control_api::inference::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use adjoin_control_api::inference::{InferParameter, ModelInferRequest, ModelInferResponse};
use adjoin_shm::clock::now_ns;
use bytes::Bytes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::segment::{Place, Segment};
use super::{Answer, CallError, Lane, shared};
use crate::job::Job;

/// Calls over a connection that the lanes of a client share.
#[derive(Debug)]
pub(super) struct GrpcLane {
    channel: Channel,
    client: GrpcInferenceServiceClient<Channel>,
    /// Without payload.
    frame: ModelInferRequest,
    tensors: Tensors,
}

/// Where the inputs lie.
#[derive(Debug)]
enum Tensors {
    Message(Vec<Bytes>),
    /// The outputs, too.
    Shared(Segment),
}

/// The lanes of a client.
pub(super) async fn lanes(
    job: &Job,
    address: &str,
    is_shared: bool,
) -> Result<Vec<GrpcLane>, Failure> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    let channel = for_tensors(endpoint).connect().await;
    let channel = channel.map_err(|error| {
        let reason = innermost(&error);
        format!("no gRPC server at {address}: {reason}")
    })?;
    let mut lanes = Vec::new();
    for _ in 0..job.lanes {
        let mut frame = frame(job);
        // How large outputs are shows in the first answer, which therefore comes in a message.
        let tensors = if is_shared && !job.outputs.is_empty() {
            let mut segment = Segment::new(&job.inputs, &job.outputs)?;
            shared::register(&channel, &mut segment).await?;
            refer(&mut frame, &segment, &job.outputs)?;
            Tensors::Shared(segment)
        } else {
            Tensors::Message(vec![Bytes::new(); job.inputs.len()])
        };
        lanes.push(GrpcLane {
            channel: channel.clone(),
            client: inference_client_on(channel.clone()),
            frame,
            tensors,
        });
    }
    Ok(lanes)
}

/// Says where in the segment the tensors lie.
fn refer(
    frame: &mut ModelInferRequest,
    segment: &Segment,
    outputs: &[Tensor],
) -> Result<(), Failure> {
    for (input, place) in frame.inputs.iter_mut().zip(&segment.inputs) {
        input.parameters = reference(segment, *place)?;
    }
    frame.outputs.clear();
    for (output, place) in outputs.iter().zip(&segment.outputs) {
        frame.outputs.push(InferRequestedOutputTensor {
            name: output.name.clone(),
            parameters: reference(segment, *place)?,
        });
    }
    Ok(())
}

fn reference(segment: &Segment, place: Place) -> Result<HashMap<String, InferParameter>, Failure> {
    let parameter = |choice| InferParameter {
        parameter_choice: Some(choice),
    };
    let number = |number: u64| i64::try_from(number).map(ParameterChoice::Int64Param);
    let region = ParameterChoice::StringParam(segment.name().into());
    Ok(HashMap::from([
        ("shared_memory_region".into(), parameter(region)),
        (
            "shared_memory_offset".into(),
            parameter(number(place.offset)?),
        ),
        (
            "shared_memory_byte_size".into(),
            parameter(number(place.byte_size)?),
        ),
    ]))
}

/// A request without its payload.
fn frame(job: &Job) -> ModelInferRequest {
    let input = |tensor: &Tensor| InferInputTensor {
        name: tensor.name.clone(),
        datatype: tensor.data_type.clone(),
        shape: tensor.shape.clone(),
        ..InferInputTensor::default()
    };
    let output = |name: &String| InferRequestedOutputTensor {
        name: name.clone(),
        ..InferRequestedOutputTensor::default()
    };
    ModelInferRequest {
        model_name: job.model.clone(),
        inputs: job.inputs.iter().map(input).collect(),
        outputs: job.wanted.iter().map(output).collect(),
        ..ModelInferRequest::default()
    }
}

impl GrpcLane {
    async fn infer(&mut self, until_ns: Option<u64>) -> Result<ModelInferResponse, CallError> {
        let mut message = self.frame.clone();
        if let Tensors::Message(payload) = &self.tensors {
            message.raw_input_contents.clone_from(payload);
        }
        if let Some(until_ns) = until_ns {
            message
                .parameters
                .insert("timeout".into(), timeout(until_ns));
        }
        let answer = self.client.model_infer(message).await;
        let answer = answer.map_err(|status| call_error(&status))?.into_inner();
        let is_in_message = matches!(self.tensors, Tensors::Message(_));
        if is_in_message && answer.raw_output_contents.len() != answer.outputs.len() {
            return Err(CallError::Failed(format!(
                "{} raw contents for {} outputs",
                answer.raw_output_contents.len(),
                answer.outputs.len()
            )));
        }
        Ok(answer)
    }
}

/// The rest of the time as the protocol's extension has it: microseconds.
fn timeout(until_ns: u64) -> InferParameter {
    let rest_us = until_ns.saturating_sub(now_ns()) / 1000;
    let rest_us = i64::try_from(rest_us).unwrap_or(i64::MAX).max(1);
    InferParameter {
        parameter_choice: Some(ParameterChoice::Int64Param(rest_us)),
    }
}

/// Tells refusals from failures; what this side found out by itself is no refusal.
fn call_error(status: &Status) -> CallError {
    let text = match status.message() {
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    };
    let is_the_servers = std::error::Error::source(status).is_none();
    match status.code() {
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded if is_the_servers => {
            CallError::Refused(text)
        }
        _ => CallError::Failed(text),
    }
}

/// The cause behind all others.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Writes into the buffer that held the last request's bytes, if nobody else has it.
pub(super) fn rewrite(payload: &mut Bytes, content: &[u8]) {
    *payload = match std::mem::take(payload).try_into_mut() {
        Ok(mut own) if own.len() == content.len() => {
            own.copy_from_slice(content);
            own.freeze()
        }
        _ => Bytes::copy_from_slice(content),
    };
}

impl Lane for GrpcLane {
    fn write(&mut self, contents: &[Vec<u8>]) -> Result<(), Failure> {
        match &mut self.tensors {
            Tensors::Message(payload) => {
                for (payload, content) in payload.iter_mut().zip(contents) {
                    rewrite(payload, content);
                }
            }
            Tensors::Shared(segment) => segment.write(contents)?,
        }
        Ok(())
    }

    async fn call(&mut self, until_ns: Option<u64>) -> Result<(), CallError> {
        self.infer(until_ns).await.map(drop)
    }

    async fn ask(&mut self) -> Result<Vec<Answer>, CallError> {
        let answer = self.infer(None).await?;
        let bytes = match &self.tensors {
            Tensors::Message(_) => {
                let contents = answer.raw_output_contents.iter();
                contents.map(|bytes| bytes.to_vec()).collect()
            }
            Tensors::Shared(segment) => segment.outputs().map_err(CallError::failed)?,
        };
        let pairs = answer.outputs.into_iter().zip(bytes);
        let answer = pairs.map(|(output, bytes)| Answer {
            tensor: Tensor {
                name: output.name,
                data_type: output.datatype,
                shape: output.shape,
                byte_size: Some(bytes.len() as u64),
            },
            bytes,
        });
        Ok(answer.collect())
    }

    async fn close(&mut self) -> Result<(), Failure> {
        match &self.tensors {
            Tensors::Message(_) => Ok(()),
            Tensors::Shared(segment) => shared::unregister(&self.channel, segment).await,
        }
    }
}
