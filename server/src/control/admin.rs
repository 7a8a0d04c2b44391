//! The operators' API, on a socket that only the server's own user may reach.

use adjoin_control_api::control as api;
use adjoin_control_api::control::admin_server::Admin as AdminApi;
use tonic::{Request, Response, Status};

use super::{Phase, Shared, status};

/// Answers operators.
#[derive(Debug)]
pub(super) struct Admin {
    shared: Shared,
}

impl Admin {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared }
    }
}

#[tonic::async_trait]
impl AdminApi for Admin {
    async fn drain(
        &self,
        _: Request<api::DrainRequest>,
    ) -> Result<Response<api::DrainResponse>, Status> {
        let requests_in_flight = self.shared.engine.in_flight();
        tracing::info!(requests_in_flight, "an operator asked to drain");
        self.shared.advance(Phase::Draining);
        Ok(Response::new(api::DrainResponse { requests_in_flight }))
    }

    async fn hand_over(
        &self,
        _: Request<api::HandOverRequest>,
    ) -> Result<Response<api::HandOverResponse>, Status> {
        let engine = &self.shared.engine;
        let sessions = u32::try_from(engine.sessions().all().len()).unwrap_or(u32::MAX);
        let requests_in_flight = engine.in_flight();
        tracing::info!(sessions, requests_in_flight, "another server takes over");
        engine.hand_over();
        self.shared.advance(Phase::HandedOver);
        Ok(Response::new(api::HandOverResponse {
            sessions,
            requests_in_flight,
        }))
    }

    async fn load_model(
        &self,
        request: Request<api::LoadModelRequest>,
    ) -> Result<Response<api::LoadModelResponse>, Status> {
        let asked = request.into_inner();
        let config = Some(asked.config).filter(|config| !config.is_empty());
        let loaded = self.shared.manager.load(&asked.name, config).await;
        loaded.map_err(status::manage_error)?;
        Ok(Response::new(api::LoadModelResponse {}))
    }

    async fn unload_model(
        &self,
        request: Request<api::UnloadModelRequest>,
    ) -> Result<Response<api::UnloadModelResponse>, Status> {
        let asked = request.into_inner();
        let unloaded = self.shared.manager.unload(&asked.name).await;
        unloaded.map_err(status::manage_error)?;
        Ok(Response::new(api::UnloadModelResponse {}))
    }

    async fn set_label(
        &self,
        request: Request<api::SetLabelRequest>,
    ) -> Result<Response<api::SetLabelResponse>, Status> {
        let asked = request.into_inner();
        let manager = &self.shared.manager;
        let set = manager.set_label(&asked.name, &asked.label, asked.version);
        set.map_err(status::manage_error)?;
        Ok(Response::new(api::SetLabelResponse {}))
    }

    async fn set_split(
        &self,
        request: Request<api::SetSplitRequest>,
    ) -> Result<Response<api::SetSplitResponse>, Status> {
        let asked = request.into_inner();
        let weights = asked.weights.into_iter().collect();
        let set = self.shared.manager.set_split(&asked.name, weights);
        set.map_err(status::manage_error)?;
        Ok(Response::new(api::SetSplitResponse {}))
    }
}
