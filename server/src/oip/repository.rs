//! The model repository, in the protocol's words.

use adjoin_control_api::inference as api;
use adjoin_oip::{Fault, Kind, VersionChoice};

use super::Oip;

impl Oip {
    /// The configuration of a model.
    ///
    /// # Errors
    /// If it is not there.
    pub fn model_config(
        &self,
        model: &str,
        version: &VersionChoice,
    ) -> Result<api::ModelConfigResponse, Fault> {
        let found = self.find(model, version);
        let found =
            found.map_err(|rejection| super::refusal::of_model(rejection, model, version))?;
        let max_batch_size = i32::try_from(found.settings().max_batch_size).unwrap_or(i32::MAX);
        let config = api::ModelConfig {
            name: model.to_owned(),
            max_batch_size,
            ..Default::default()
        };
        Ok(api::ModelConfigResponse {
            config: Some(config),
        })
    }

    /// The models of the repository, and their states.
    ///
    /// # Errors
    /// If a repository is named that is not there.
    pub fn repository_index(
        &self,
        _request: &api::RepositoryIndexRequest,
    ) -> Result<api::RepositoryIndexResponse, Fault> {
        Err(Fault::new(Kind::Unsupported, "not yet"))
    }

    /// Loads a model, or loads it again.
    ///
    /// # Errors
    /// Why it is not served.
    pub async fn load(
        &self,
        _request: api::RepositoryModelLoadRequest,
    ) -> Result<api::RepositoryModelLoadResponse, Fault> {
        Err(Fault::new(Kind::Unsupported, "not yet"))
    }

    /// Unloads a model.
    ///
    /// # Errors
    /// If models cannot be unloaded by calls.
    pub async fn unload(
        &self,
        _request: api::RepositoryModelUnloadRequest,
    ) -> Result<api::RepositoryModelUnloadResponse, Fault> {
        Err(Fault::new(Kind::Unsupported, "not yet"))
    }
}
