//! The operators' API, on a socket that only the server's own user may reach.

use adjoin_control_api::control::admin_server::Admin as AdminApi;
use adjoin_control_api::control::{DrainRequest, DrainResponse};
use tonic::{Request, Response, Status};

use super::{Phase, Shared};

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
    async fn drain(&self, _: Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        let requests_in_flight = self.shared.engine.in_flight();
        tracing::info!(requests_in_flight, "an operator asked to drain");
        self.shared.advance(Phase::Draining);
        Ok(Response::new(DrainResponse { requests_in_flight }))
    }
}
