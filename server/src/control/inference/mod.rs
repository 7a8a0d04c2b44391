//! The Open Inference Protocol over gRPC: messages in, calls to [`crate::oip`], messages out.

mod context;
mod stream;

use adjoin_control_api::inference as api;
use adjoin_control_api::inference::grpc_inference_service_server::GrpcInferenceService;
use adjoin_oip::{Fault, VersionChoice, grpc};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::Shared;
use super::status::fault as status;
use crate::oip::Oip;
use crate::oip::regions::RegionKind;
use context::{arrival, caller, charge};

/// Answers clients of the protocol.
#[derive(Debug)]
pub(super) struct Inference {
    shared: Shared,
    oip: Oip,
}

impl Inference {
    pub(super) fn new(shared: Shared) -> Self {
        let oip = shared.oip.clone();
        Self { shared, oip }
    }
}

/// A result as the transport wants it.
fn answer<T>(result: Result<T, Fault>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(status)
}

fn version(text: &str) -> Result<VersionChoice, Status> {
    VersionChoice::read(text).map_err(status)
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
        let ready = self.shared.is_ready();
        Ok(Response::new(api::ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<api::ModelReadyRequest>,
    ) -> Result<Response<api::ModelReadyResponse>, Status> {
        let asked = request.into_inner();
        let ready = self
            .oip
            .is_model_ready(&asked.name, &version(&asked.version)?);
        Ok(Response::new(api::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<api::ServerMetadataRequest>,
    ) -> Result<Response<api::ServerMetadataResponse>, Status> {
        Ok(Response::new(Oip::server_metadata()))
    }

    async fn model_metadata(
        &self,
        request: Request<api::ModelMetadataRequest>,
    ) -> Result<Response<api::ModelMetadataResponse>, Status> {
        let asked = request.into_inner();
        answer(
            self.oip
                .model_metadata(&asked.name, &version(&asked.version)?),
        )
    }

    async fn model_infer(
        &self,
        request: Request<api::ModelInferRequest>,
    ) -> Result<Response<api::ModelInferResponse>, Status> {
        let caller = caller(&request)?;
        let (metadata, extensions, message) = request.into_parts();
        if metadata.contains_key("grpc-encoding") {
            charge(&extensions)?.at_least(message.encoded_len() as u64)?;
        }
        let call = grpc::call(message).map_err(status)?;
        let reply = self.oip.infer(&caller, call, arrival(&metadata)).await;
        answer(reply.map(grpc::reply))
    }

    type ModelStreamInferStream = stream::Answers;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<api::ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let caller = caller(&request)?;
        let charge = charge(request.extensions())?;
        let traceparent = arrival(request.metadata()).traceparent.map(str::to_owned);
        let requests = request.into_inner();
        let answers = stream::answers(self.oip.clone(), caller, traceparent, charge, requests);
        Ok(Response::new(answers))
    }

    async fn model_config(
        &self,
        request: Request<api::ModelConfigRequest>,
    ) -> Result<Response<api::ModelConfigResponse>, Status> {
        let asked = request.into_inner();
        answer(
            self.oip
                .model_config(&asked.name, &version(&asked.version)?),
        )
    }

    async fn model_statistics(
        &self,
        request: Request<api::ModelStatisticsRequest>,
    ) -> Result<Response<api::ModelStatisticsResponse>, Status> {
        let asked = request.into_inner();
        answer(self.oip.statistics(&asked.name, &version(&asked.version)?))
    }

    async fn repository_index(
        &self,
        request: Request<api::RepositoryIndexRequest>,
    ) -> Result<Response<api::RepositoryIndexResponse>, Status> {
        answer(self.oip.repository_index(&request.into_inner()).await)
    }

    async fn repository_model_load(
        &self,
        request: Request<api::RepositoryModelLoadRequest>,
    ) -> Result<Response<api::RepositoryModelLoadResponse>, Status> {
        answer(self.oip.load(request.into_inner()).await)
    }

    async fn repository_model_unload(
        &self,
        request: Request<api::RepositoryModelUnloadRequest>,
    ) -> Result<Response<api::RepositoryModelUnloadResponse>, Status> {
        answer(self.oip.unload(request.into_inner()).await)
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<api::SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<api::SystemSharedMemoryStatusResponse>, Status> {
        let caller = caller(&request)?;
        answer(self.oip.region_status(&caller, &request.get_ref().name))
    }

    async fn system_shared_memory_register(
        &self,
        request: Request<api::SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<api::SystemSharedMemoryRegisterResponse>, Status> {
        let caller = caller(&request)?;
        answer(self.oip.register_region(&caller, request.get_ref()))
    }

    async fn system_shared_memory_unregister(
        &self,
        request: Request<api::SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<api::SystemSharedMemoryUnregisterResponse>, Status> {
        let caller = caller(&request)?;
        let name = &request.get_ref().name;
        self.oip
            .unregister_region(&caller, RegionKind::System, name);
        Ok(Response::new(api::SystemSharedMemoryUnregisterResponse {}))
    }

    async fn cuda_shared_memory_status(
        &self,
        request: Request<api::CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<api::CudaSharedMemoryStatusResponse>, Status> {
        let caller = caller(&request)?;
        answer(
            self.oip
                .cuda_region_status(&caller, &request.get_ref().name),
        )
    }

    async fn cuda_shared_memory_register(
        &self,
        request: Request<api::CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<api::CudaSharedMemoryRegisterResponse>, Status> {
        let caller = caller(&request)?;
        answer(self.oip.register_cuda_region(&caller, request.get_ref()))
    }

    async fn cuda_shared_memory_unregister(
        &self,
        request: Request<api::CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<api::CudaSharedMemoryUnregisterResponse>, Status> {
        let caller = caller(&request)?;
        let name = &request.get_ref().name;
        self.oip.unregister_region(&caller, RegionKind::Cuda, name);
        Ok(Response::new(api::CudaSharedMemoryUnregisterResponse {}))
    }

    async fn trace_setting(
        &self,
        request: Request<api::TraceSettingRequest>,
    ) -> Result<Response<api::TraceSettingResponse>, Status> {
        answer(self.oip.trace_setting(&request.into_inner()))
    }

    async fn log_settings(
        &self,
        request: Request<api::LogSettingsRequest>,
    ) -> Result<Response<api::LogSettingsResponse>, Status> {
        answer(self.oip.log_settings(&request.into_inner()))
    }
}
