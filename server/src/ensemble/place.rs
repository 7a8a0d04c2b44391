//! An ensemble as a model version. What takes the part of instances is the places of those requests that are on their
//! way at once: its queue, its fairness and its limits are those of every other model.

use std::sync::Arc;

use adjoin_backend::{
    Copied, ExecuteError, Execution, Instance, LoadError, Model, ModelMetadata, OutputSink,
};

use super::EnsemblePlan;
use crate::batch::policy::BatchPolicy;
use crate::metrics::ModelMetrics;
use crate::model::version::VersionParts;
use crate::model::{InstanceSlot, ModelSettings, ModelVersion, Signature, Timing};

/// Name of the engine in descriptions, logs and metrics.
const NAME: &str = "ensemble";

/// A version that runs by the plan. Of the settings, those of the queue hold; an ensemble has no instances that need a
/// thread, and joins nothing itself: its steps do.
#[must_use]
pub fn version(
    name: &str,
    number: u64,
    plan: EnsemblePlan,
    settings: ModelSettings,
    metrics: ModelMetrics,
) -> ModelVersion {
    let metadata = plan.metadata().clone();
    let place = |_| InstanceSlot::new(Box::new(Place), &ModelMetadata::default());
    let parts = VersionParts {
        name: name.into(),
        version: number,
        engine: NAME,
        signature: Signature::new(metadata.clone(), settings.max_batch_size),
        settings: ModelSettings {
            policy: BatchPolicy::single(),
            instances: 0,
            ..settings
        },
        metrics,
        model: Box::new(Steps(metadata)),
        instances: (0..plan.in_flight_max).map(place).collect(),
        timing: Timing::default(),
    };
    ModelVersion::new(parts).with_plan(Arc::new(plan))
}

/// What stands where other versions have their engine's model.
#[derive(Debug)]
struct Steps(ModelMetadata);

impl Model for Steps {
    fn metadata(&self) -> &ModelMetadata {
        &self.0
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(Place))
    }
}

/// The place of one request.
#[derive(Debug)]
struct Place;

impl Instance for Place {
    fn run(
        &mut self,
        _: Execution<'_, '_>,
        _: &mut dyn OutputSink,
    ) -> Result<Copied, ExecuteError> {
        Err(ExecuteError::Failed {
            engine: NAME,
            reason: "an ensemble runs by its steps".into(),
        })
    }
}
