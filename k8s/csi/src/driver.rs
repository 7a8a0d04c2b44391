//! The two services of a CSI driver.

use std::path::Path;

use tonic::{Code, Request, Response, Status};

use crate::DRIVER;
use crate::api::csi;
use crate::api::csi::identity_server::Identity;
use crate::api::csi::node_server::Node;
use crate::api::csi::volume_capability::AccessType;
use crate::publish::{PublishError, Publisher};

/// Key of a volume's context: whether it is inline in a pod.
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";
const POD_NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";
const POD_NAME: &str = "csi.storage.k8s.io/pod.name";

/// Answers the kubelet.
#[derive(Clone, Debug)]
pub(crate) struct Driver {
    pub(crate) publisher: Publisher,
    pub(crate) node_name: String,
}

#[tonic::async_trait]
impl Identity for Driver {
    async fn get_plugin_info(
        &self,
        _: Request<csi::GetPluginInfoRequest>,
    ) -> Result<Response<csi::GetPluginInfoResponse>, Status> {
        Ok(Response::new(csi::GetPluginInfoResponse {
            name: DRIVER.into(),
            vendor_version: env!("CARGO_PKG_VERSION").into(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<csi::GetPluginCapabilitiesRequest>,
    ) -> Result<Response<csi::GetPluginCapabilitiesResponse>, Status> {
        Ok(Response::new(csi::GetPluginCapabilitiesResponse {}))
    }

    async fn probe(
        &self,
        _: Request<csi::ProbeRequest>,
    ) -> Result<Response<csi::ProbeResponse>, Status> {
        // Not whether a server runs: a pod may be given the directory before.
        Ok(Response::new(csi::ProbeResponse { ready: Some(true) }))
    }
}

#[tonic::async_trait]
impl Node for Driver {
    async fn node_publish_volume(
        &self,
        request: Request<csi::NodePublishVolumeRequest>,
    ) -> Result<Response<csi::NodePublishVolumeResponse>, Status> {
        let asked = request.into_inner();
        check(&asked)?;
        let published = self.publisher.publish(Path::new(&asked.target_path));
        published.map_err(|error| refused("publish", &error))?;
        let context = |key| asked.volume_context.get(key).map_or("?", String::as_str);
        tracing::info!(
            volume = ?asked.volume_id,
            namespace = ?context(POD_NAMESPACE),
            pod = ?context(POD_NAME),
            "published"
        );
        Ok(Response::new(csi::NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<csi::NodeUnpublishVolumeRequest>,
    ) -> Result<Response<csi::NodeUnpublishVolumeResponse>, Status> {
        let asked = request.into_inner();
        check_id(&asked.volume_id)?;
        let taken = self.publisher.unpublish(Path::new(&asked.target_path));
        taken.map_err(|error| refused("unpublish", &error))?;
        tracing::info!(volume = ?asked.volume_id, "unpublished");
        Ok(Response::new(csi::NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<csi::NodeGetCapabilitiesRequest>,
    ) -> Result<Response<csi::NodeGetCapabilitiesResponse>, Status> {
        Ok(Response::new(csi::NodeGetCapabilitiesResponse {}))
    }

    async fn node_get_info(
        &self,
        _: Request<csi::NodeGetInfoRequest>,
    ) -> Result<Response<csi::NodeGetInfoResponse>, Status> {
        Ok(Response::new(csi::NodeGetInfoResponse {
            node_id: self.node_name.clone(),
        }))
    }
}

fn check_id(volume_id: &str) -> Result<(), Status> {
    if volume_id.is_empty() {
        return Err(Status::invalid_argument("the volume has no id"));
    }
    Ok(())
}

/// What a pod may ask for: an inline volume, mounted read-only.
fn check(asked: &csi::NodePublishVolumeRequest) -> Result<(), Status> {
    check_id(&asked.volume_id)?;
    let capability = asked.volume_capability.as_ref();
    match capability.and_then(|capability| capability.access_type.as_ref()) {
        Some(AccessType::Mount(_)) => {}
        Some(AccessType::Block(_)) => {
            return Err(Status::invalid_argument("sockets are no block device"));
        }
        None => return Err(Status::invalid_argument("the volume has no capability")),
    }
    if asked.volume_context.get(EPHEMERAL).map(String::as_str) != Some("true") {
        return Err(Status::invalid_argument(
            "only inline volumes: write csi: {driver: csi.adjoin, readOnly: true} into the pod's volumes",
        ));
    }
    if !asked.readonly {
        return Err(Status::invalid_argument(
            "the volume is read-only, and the pod has to say so: write readOnly: true beside the driver",
        ));
    }
    Ok(())
}

fn refused(what: &'static str, error: &PublishError) -> Status {
    tracing::warn!(%error, what, "refused");
    let code = match error {
        PublishError::Target { .. } | PublishError::Outside { .. } => Code::InvalidArgument,
        PublishError::Taken { .. } => Code::FailedPrecondition,
        // The kubelet asks again; the server may come.
        PublishError::NoServer { .. } => Code::Unavailable,
        PublishError::System { .. } => Code::Internal,
    };
    Status::new(code, error.to_string())
}
