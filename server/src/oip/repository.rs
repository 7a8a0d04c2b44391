//! The model repository, in the protocol's words.

use std::collections::HashMap;

use adjoin_control_api::inference as api;
use adjoin_control_api::inference::model_repository_parameter::ParameterChoice;
use adjoin_control_api::inference::repository_index_response::ModelIndex;
use adjoin_oip::{Fault, Kind, VersionChoice};

use super::Oip;
use super::refusal::of_manager;
use crate::repository::IndexEntry;

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
        Ok(api::ModelConfigResponse {
            config: Some(found.model_config().clone()),
        })
    }

    /// The models of the repository, and their states.
    ///
    /// # Errors
    /// If a repository is named: there is one, without a name. If it cannot be read.
    pub async fn repository_index(
        &self,
        request: &api::RepositoryIndexRequest,
    ) -> Result<api::RepositoryIndexResponse, Fault> {
        check_repository(&request.repository_name)?;
        let index = self.manager.index(request.ready).await;
        let index = index.map_err(|error| of_manager(&error))?;
        let line = |entry: IndexEntry| ModelIndex {
            name: entry.name,
            version: entry.version,
            state: entry.state.as_str().to_owned(),
            reason: entry.reason,
        };
        let models = index.into_iter().map(line).collect();
        Ok(api::RepositoryIndexResponse { models })
    }

    /// Loads a model, or loads it again.
    ///
    /// # Errors
    /// Why it is not served; what was served before is.
    pub async fn load(
        &self,
        request: api::RepositoryModelLoadRequest,
    ) -> Result<api::RepositoryModelLoadResponse, Fault> {
        check_repository(&request.repository_name)?;
        let config = override_of(request.parameters)?;
        if let Some(json) = &config {
            // What is wrong by itself is the caller's fault; a load that fails is the model's.
            let wrong =
                |error| Fault::invalid(format!("the configuration of the load request: {error}"));
            adjoin_model_config::parse_json(json).map_err(wrong)?;
        }
        let loaded = self.manager.load(&request.model_name, config).await;
        loaded.map_err(|error| of_manager(&error))?;
        Ok(api::RepositoryModelLoadResponse {})
    }

    /// Unloads a model. What runs of it is finished.
    ///
    /// # Errors
    /// If it is not loaded, or models cannot be unloaded by calls.
    pub async fn unload(
        &self,
        request: api::RepositoryModelUnloadRequest,
    ) -> Result<api::RepositoryModelUnloadResponse, Fault> {
        check_repository(&request.repository_name)?;
        let unloaded = self.manager.unload(&request.model_name).await;
        unloaded.map_err(|error| of_manager(&error))?;
        Ok(api::RepositoryModelUnloadResponse {})
    }
}

fn check_repository(name: &str) -> Result<(), Fault> {
    if name.is_empty() {
        return Ok(());
    }
    let text = format!("there is no repository '{name}'; the one there is has no name");
    Err(Fault::new(Kind::NotFound, text))
}

/// The configuration that a load brings, as JSON. Files cannot be brought: no call sets a path of the server.
fn override_of(
    parameters: HashMap<String, api::ModelRepositoryParameter>,
) -> Result<Option<String>, Fault> {
    let mut config = None;
    for (name, parameter) in parameters {
        match (name.as_str(), parameter.parameter_choice) {
            ("config", Some(ParameterChoice::StringParam(text))) => config = Some(text),
            ("config", _) => {
                return Err(Fault::invalid(
                    "parameter 'config' of a load takes a text of JSON",
                ));
            }
            (name, _) if name.starts_with("file:") => {
                let text = format!(
                    "parameter '{name}' of a load: files of the repository are not set by calls"
                );
                return Err(Fault::new(Kind::Unsupported, text));
            }
            (name, _) => {
                return Err(Fault::invalid(format!(
                    "unknown parameter '{name}' of a load; it takes 'config'"
                )));
            }
        }
    }
    Ok(config)
}
