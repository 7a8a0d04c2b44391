//! Whether the models of an ensemble's steps are there, and fit one another.

use std::collections::HashMap;
use std::sync::Arc;

use adjoin_model_config::{Checked, ConfigError};

use crate::model::{ModelVersion, Models};

/// Whether a version can run what it takes: the models of all its steps are ready, and of theirs, if it has steps.
#[must_use]
pub fn is_ready(models: &Models, version: &ModelVersion) -> bool {
    let mut seen = Vec::new();
    are_steps_ready(models, version, &mut seen)
}

fn are_steps_ready(models: &Models, version: &ModelVersion, seen: &mut Vec<u64>) -> bool {
    let Some(plan) = version.plan() else {
        return true;
    };
    // One that is among its own steps never comes to an end; its requests say so.
    if seen.contains(&version.load_id()) {
        return false;
    }
    seen.push(version.load_id());
    let is_there = plan.steps.iter().all(|step| {
        let model = models.find(&step.model, step.version, "");
        model.is_ok_and(|model| are_steps_ready(models, &model, seen))
    });
    seen.pop();
    is_there
}

/// Says in the log which ensembles have steps whose models are not there or do not fit, of those that have to do with
/// `changed`, or of all. They are served all the same: the models may come, and requests that need them are told.
pub fn warn_of_misfits(models: &Models, changed: Option<&str>) {
    for version in models.all() {
        let concerns = |name: &str| {
            let plan = version.plan();
            &**version.name() == name
                || plan.is_some_and(|plan| plan.steps.iter().any(|step| step.model == name))
        };
        if version.plan().is_none() || !changed.is_none_or(concerns) {
            continue;
        }
        if let Err(error) = steps_fit(models, &version) {
            tracing::warn!(model = %version.name(), version = version.version(), %error, "the steps of an ensemble do not fit");
        }
    }
}

fn steps_fit(models: &Models, version: &Arc<ModelVersion>) -> Result<(), ConfigError> {
    let checked = |version: &ModelVersion| {
        let checked = Checked::new(version.name(), version.model_config());
        checked.map(|(checked, _)| checked)
    };
    let Some(plan) = version.plan() else {
        return Ok(());
    };
    let mut steps = HashMap::new();
    for step in &plan.steps {
        if let Ok(model) = models.find(&step.model, step.version, "") {
            steps.insert((step.model.clone(), step.version), checked(&model)?);
        }
    }
    checked(version)?.steps_fit(|step| steps.get(&(step.model.clone(), step.version.unwrap_or(0))))
}
