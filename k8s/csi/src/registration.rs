//! Tells the kubelet of the driver.

use tonic::{Request, Response, Status};

use crate::DRIVER;
use crate::api::registration as api;
use crate::api::registration::registration_server::Registration;

/// Answers the kubelet's watcher of drivers.
#[derive(Clone, Debug)]
pub(crate) struct Registrar {
    /// The driver's socket as the kubelet sees it.
    pub(crate) endpoint: String,
}

#[tonic::async_trait]
impl Registration for Registrar {
    async fn get_info(
        &self,
        _: Request<api::InfoRequest>,
    ) -> Result<Response<api::PluginInfo>, Status> {
        Ok(Response::new(api::PluginInfo {
            r#type: "CSIPlugin".into(),
            name: DRIVER.into(),
            endpoint: self.endpoint.clone(),
            supported_versions: vec!["1.0.0".into()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<api::RegistrationStatus>,
    ) -> Result<Response<api::RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            tracing::info!("registered with the kubelet");
        } else {
            tracing::error!(reason = ?status.error, "the kubelet did not register the driver");
        }
        Ok(Response::new(api::RegistrationStatusResponse {}))
    }
}
