//! The Open Inference Protocol over gRPC: the same models, the same check, the same batches. Payload travels in
//! the messages here, which is what the native client saves.

use adjoin_control_api::inference as api;
use adjoin_control_api::inference::grpc_inference_service_server::GrpcInferenceService;
use adjoin_schema::attach::ModelInfo;
use adjoin_schema::descriptor::{Rejection, RequestDescriptor, TensorDescriptor};
use adjoin_schema::limits::TENSORS_MAX;
use adjoin_schema::status::Status as Outcome;
use adjoin_schema::{DataType, Shape};
use adjoin_shm::clock::now_ns;
use bytes::Bytes;
use smallvec::SmallVec;
use std::sync::Arc;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use super::{Phase, Shared, status};
use crate::engine::{owned_request, ticket};
use crate::model::InputFacts;
use crate::model::request::{Job, Sink};
use crate::session::response::ResponseBlock;

/// Most bytes of the outputs of one reply: what a message may have.
const REPLY_BYTES_MAX: u64 = super::MESSAGE_BYTES_MAX as u64;

/// Answers clients of the protocol.
#[derive(Debug)]
pub(super) struct Inference {
    shared: Shared,
}

impl Inference {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared }
    }

    fn info(&self, model: &str, version: u64) -> Result<ModelInfo, Rejection> {
        let models = self.shared.engine.models();
        let found = models.find(model, version, "")?;
        let ready = models
            .snapshot()
            .get(model)
            .map(crate::model::ModelEntry::ready_versions);
        Ok(found.info(0, ready.unwrap_or_default()))
    }
}

/// A version as the protocol writes it: empty for none in particular.
fn version_number(version: &str) -> Result<u64, Status> {
    if version.is_empty() {
        return Ok(0);
    }
    match version.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(Status::invalid_argument(format!(
            "version {version:?} is no number from 1"
        ))),
    }
}

/// A request for messages: names and shapes, no places.
fn named(model: &str) -> RequestDescriptor<'_> {
    RequestDescriptor {
        model,
        version: 0,
        label: "",
        inputs: SmallVec::new(),
        outputs: SmallVec::new(),
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(
        &self,
        _: Request<api::ServerLiveRequest>,
    ) -> Result<Response<api::ServerLiveResponse>, Status> {
        Ok(Response::new(api::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<api::ServerReadyRequest>,
    ) -> Result<Response<api::ServerReadyResponse>, Status> {
        let ready = *self.shared.phase.borrow() == Phase::Serving;
        Ok(Response::new(api::ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<api::ModelReadyRequest>,
    ) -> Result<Response<api::ModelReadyResponse>, Status> {
        let asked = request.into_inner();
        let found =
            self.shared
                .engine
                .models()
                .find(&asked.name, version_number(&asked.version)?, "");
        let ready = found.is_ok() && *self.shared.phase.borrow() == Phase::Serving;
        Ok(Response::new(api::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<api::ServerMetadataRequest>,
    ) -> Result<Response<api::ServerMetadataResponse>, Status> {
        let version = env!("CARGO_PKG_VERSION").into();
        Ok(Response::new(api::ServerMetadataResponse {
            name: "adjoin".into(),
            version,
            extensions: Vec::new(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<api::ModelMetadataRequest>,
    ) -> Result<Response<api::ModelMetadataResponse>, Status> {
        let asked = request.into_inner();
        let info = self.info(&asked.name, version_number(&asked.version)?);
        let info =
            info.map_err(|rejection| status::error(rejection, Some(&named(&asked.name)), None))?;
        let tensors = |specs: &[adjoin_schema::attach::TensorSpec]| {
            let tensor = |spec: &adjoin_schema::attach::TensorSpec| {
                api::model_metadata_response::TensorMetadata {
                    name: spec.name.clone(),
                    datatype: spec.dtype.name().into(),
                    shape: spec.shape.to_vec(),
                }
            };
            specs.iter().map(tensor).collect()
        };
        Ok(Response::new(api::ModelMetadataResponse {
            inputs: tensors(&info.inputs),
            outputs: tensors(&info.outputs),
            name: info.model,
            versions: info.ready_versions.iter().map(u64::to_string).collect(),
            platform: format!("{}_onnx", info.engine),
        }))
    }

    async fn model_infer(
        &self,
        request: Request<api::ModelInferRequest>,
    ) -> Result<Response<api::ModelInferResponse>, Status> {
        let message = request.into_inner();
        let version = version_number(&message.model_version)?;
        let inputs = read_inputs(&message)?;
        let wanted: Vec<&str> = message
            .outputs
            .iter()
            .map(|output| output.name.as_str())
            .collect();
        let explain = |rejection: Rejection| {
            let info = self.info(&message.model_name, version).ok();
            let mut request = named(&message.model_name);
            request.outputs = wanted.iter().copied().collect();
            let tensor = |(facts, _): &(InputFacts<'_>, Bytes)| TensorDescriptor {
                name: "",
                dtype: facts.dtype,
                shape: facts.shape.into(),
                offset: 0,
                byte_size: facts.byte_size,
            };
            request.inputs = inputs.iter().map(tensor).collect();
            for (tensor, input) in request.inputs.iter_mut().zip(&message.inputs) {
                tensor.name = &input.name;
            }
            status::error(rejection, Some(&request), info.as_ref())
        };
        let engine = &self.shared.engine;
        if engine.is_draining() {
            return Err(explain(Outcome::NotExecuted.into()));
        }
        let request = owned_request(
            engine.models(),
            (&message.model_name, version),
            &inputs,
            &wanted,
        );
        let request = Arc::new(request.map_err(explain)?);
        let response = ResponseBlock::private(&request, REPLY_BYTES_MAX).map_err(explain)?;
        let (sender, receiver) = oneshot::channel();
        let job = Job {
            request: Arc::clone(&request),
            request_id: 0,
            sink: Sink::Reply(Some(sender)),
            response: Box::new(response),
        };
        let ticket = ticket(&job, 0, 0, 0, now_ns());
        engine.submit(ticket, job);
        let outcome = receiver
            .await
            .map_err(|_| explain(Outcome::NotExecuted.into()))?;
        if outcome.status != Outcome::Ok {
            return Err(explain(Rejection::new(outcome.status, outcome.detail)));
        }
        let block = outcome
            .response
            .ok_or_else(|| Status::internal("a reply without outputs"))?;
        let mut answer = api::ModelInferResponse {
            model_name: message.model_name.clone(),
            model_version: request.version.version().to_string(),
            id: message.id.clone(),
            ..api::ModelInferResponse::default()
        };
        let specs = &request.version.signature().metadata().outputs;
        for output in block.reply(&request) {
            answer
                .outputs
                .push(api::model_infer_response::InferOutputTensor {
                    name: specs[output.index].name.clone(),
                    datatype: output.dtype.name().into(),
                    shape: output.shape.to_vec(),
                    ..Default::default()
                });
            answer
                .raw_output_contents
                .push(Bytes::copy_from_slice(output.bytes));
        }
        Ok(Response::new(answer))
    }

    type ModelStreamInferStream =
        tokio_stream::Empty<Result<api::ModelStreamInferResponse, Status>>;

    async fn model_stream_infer(
        &self,
        _: Request<tonic::Streaming<api::ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        Err(Status::unimplemented("streams"))
    }

    async fn model_config(
        &self,
        _: Request<api::ModelConfigRequest>,
    ) -> Result<Response<api::ModelConfigResponse>, Status> {
        Err(Status::unimplemented("ModelConfig"))
    }

    async fn model_statistics(
        &self,
        _: Request<api::ModelStatisticsRequest>,
    ) -> Result<Response<api::ModelStatisticsResponse>, Status> {
        Err(Status::unimplemented("ModelStatistics"))
    }

    async fn repository_index(
        &self,
        _: Request<api::RepositoryIndexRequest>,
    ) -> Result<Response<api::RepositoryIndexResponse>, Status> {
        Err(Status::unimplemented("RepositoryIndex"))
    }

    async fn repository_model_load(
        &self,
        _: Request<api::RepositoryModelLoadRequest>,
    ) -> Result<Response<api::RepositoryModelLoadResponse>, Status> {
        Err(Status::unimplemented("RepositoryModelLoad"))
    }

    async fn repository_model_unload(
        &self,
        _: Request<api::RepositoryModelUnloadRequest>,
    ) -> Result<Response<api::RepositoryModelUnloadResponse>, Status> {
        Err(Status::unimplemented("RepositoryModelUnload"))
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<api::SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<api::SystemSharedMemoryStatusResponse>, Status> {
        Err(Status::unimplemented("SystemSharedMemoryStatus"))
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<api::SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<api::SystemSharedMemoryRegisterResponse>, Status> {
        Err(Status::unimplemented("SystemSharedMemoryRegister"))
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<api::SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<api::SystemSharedMemoryUnregisterResponse>, Status> {
        Err(Status::unimplemented("SystemSharedMemoryUnregister"))
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<api::CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<api::CudaSharedMemoryStatusResponse>, Status> {
        Err(Status::unimplemented("CudaSharedMemoryStatus"))
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<api::CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<api::CudaSharedMemoryRegisterResponse>, Status> {
        Err(Status::unimplemented("CudaSharedMemoryRegister"))
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<api::CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<api::CudaSharedMemoryUnregisterResponse>, Status> {
        Err(Status::unimplemented("CudaSharedMemoryUnregister"))
    }

    async fn trace_setting(
        &self,
        _: Request<api::TraceSettingRequest>,
    ) -> Result<Response<api::TraceSettingResponse>, Status> {
        Err(Status::unimplemented("TraceSetting"))
    }

    async fn log_settings(
        &self,
        _: Request<api::LogSettingsRequest>,
    ) -> Result<Response<api::LogSettingsResponse>, Status> {
        Err(Status::unimplemented("LogSettings"))
    }
}

/// What the message says of its inputs, with views of their bytes.
fn read_inputs(message: &api::ModelInferRequest) -> Result<Vec<(InputFacts<'_>, Bytes)>, Status> {
    let invalid = |text: String| Err(Status::invalid_argument(text));
    if message.outputs.len() > TENSORS_MAX {
        return invalid(format!(
            "{} outputs; the most is {TENSORS_MAX}",
            message.outputs.len()
        ));
    }
    if message.inputs.len() > TENSORS_MAX {
        return invalid(format!(
            "{} inputs; the most is {TENSORS_MAX}",
            message.inputs.len()
        ));
    }
    if message.inputs.iter().any(|input| input.contents.is_some()) {
        return invalid(
            "typed contents are not supported yet; put the bytes into raw_input_contents".into(),
        );
    }
    if message.raw_input_contents.len() != message.inputs.len() {
        let (raw, inputs) = (message.raw_input_contents.len(), message.inputs.len());
        return invalid(format!("{raw} raw_input_contents for {inputs} inputs"));
    }
    let mut inputs = Vec::new();
    for (input, bytes) in message.inputs.iter().zip(&message.raw_input_contents) {
        let Some(dtype) = DataType::from_name(&input.datatype) else {
            return invalid(format!(
                "input {:?} has unknown data type {:?}",
                input.name, input.datatype
            ));
        };
        if Shape::from_slice(&input.shape).spilled() {
            return invalid(format!(
                "input {:?} has rank {}; the most is 8",
                input.name,
                input.shape.len()
            ));
        }
        let facts = InputFacts {
            name: &input.name,
            dtype,
            shape: &input.shape,
            byte_size: bytes.len() as u64,
        };
        inputs.push((facts, bytes.clone()));
    }
    Ok(inputs)
}
