//! An ensemble as a model version. What takes the part of instances is the places of those requests that are on their
//! way at once: its queue, its fairness and its limits are those of every other model.

use adjoin_backend::{
    Copied, ExecuteError, Execution, Instance, LoadError, Model, ModelMetadata, OutputSink,
};

use super::EnsemblePlan;
use crate::batch::policy::BatchPolicy;
use crate::model::{InstanceSlot, ModelSettings};

/// Name of the engine in descriptions, logs and metrics.
pub const ENGINE: &str = "ensemble";

impl EnsemblePlan {
    /// The settings that hold of those that are configured: an ensemble has no instances that need a thread, and joins
    /// nothing itself. Its steps do.
    #[must_use]
    pub fn settings(&self, configured: ModelSettings) -> ModelSettings {
        ModelSettings {
            policy: BatchPolicy::single(),
            instances: 0,
            ..configured
        }
    }

    /// What stands where other versions have their engine's model.
    #[must_use]
    pub fn model(&self) -> Box<dyn Model> {
        Box::new(Steps(self.metadata().clone()))
    }

    /// A place for each request that may be on its way.
    #[must_use]
    pub fn places(&self) -> Vec<InstanceSlot> {
        let place = |_| InstanceSlot::new(Box::new(Place), &ModelMetadata::default());
        (0..self.in_flight_max).map(place).collect()
    }
}

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
            engine: ENGINE,
            reason: "an ensemble runs by its steps".into(),
        })
    }
}
