//! What server and models are, in the protocol's words.

use std::sync::Arc;

use adjoin_control_api::inference as api;
use adjoin_control_api::inference::model_metadata_response::TensorMetadata;
use adjoin_oip::{Fault, VersionChoice};
use adjoin_schema::attach::TensorSpec;

use super::Oip;
use super::refusal::of_model;
use crate::ensemble;

/// Extensions of the protocol that this server speaks.
const EXTENSIONS: [&str; 11] = [
    "classification",
    "model_repository",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "cuda_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
];

impl Oip {
    /// Whether a model, or one version of it, takes requests. An ensemble does while the models of its steps do.
    pub fn is_model_ready(&self, model: &str, version: &VersionChoice) -> bool {
        let is_ready = |version: Arc<_>| ensemble::is_ready(self.engine.models(), &version);
        !self.engine.is_draining() && self.find(model, version).is_ok_and(is_ready)
    }

    /// The server's name, release and extensions.
    #[must_use]
    pub fn server_metadata() -> api::ServerMetadataResponse {
        api::ServerMetadataResponse {
            name: "adjoin".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            extensions: EXTENSIONS.map(str::to_owned).into(),
        }
    }

    /// Inputs and outputs of a model.
    ///
    /// # Errors
    /// If it is not there, or has no version that is ready.
    pub fn model_metadata(
        &self,
        model: &str,
        version: &VersionChoice,
    ) -> Result<api::ModelMetadataResponse, Fault> {
        let found = self.find(model, version);
        let found = found.map_err(|rejection| of_model(rejection, model, version))?;
        let info = self.info(&found);
        let tensor = |spec: TensorSpec| TensorMetadata {
            name: spec.name,
            datatype: spec.dtype.name().into(),
            shape: spec.shape.to_vec(),
        };
        Ok(api::ModelMetadataResponse {
            inputs: info.inputs.into_iter().map(tensor).collect(),
            outputs: info.outputs.into_iter().map(tensor).collect(),
            name: info.model,
            versions: info.ready_versions.iter().map(u64::to_string).collect(),
            platform: platform(found.model_config()),
        })
    }
}

/// What clients know the kind of a model by; one that is built in has no platform, and says its backend.
fn platform(config: &api::ModelConfig) -> String {
    let (platform, backend) = (&config.platform, &config.backend);
    if platform.is_empty() {
        backend.clone()
    } else {
        platform.clone()
    }
}
