//! The Open Inference Protocol, whichever transport a call came by: the same models, the same check, the same batches as
//! for sessions. Payload travels in the messages, or lies in named regions that are read and written but never mapped.
//!
//! Names no transport: `control` turns messages into the calls and answers of `adjoin_oip` and back.

pub mod cache;
mod describe;
mod infer;
mod refusal;
pub mod regions;
mod repository;
mod settings;
mod shared_memory;
mod statistics;

pub use infer::Arrival;
pub use settings::{LogSettings, SetLevel};

use std::sync::Arc;

use adjoin_oip::VersionChoice;
use adjoin_schema::attach::ModelInfo;
use adjoin_schema::descriptor::Rejection;

use crate::engine::Engine;
use crate::model::{ModelEntry, ModelVersion};
use crate::repository::Manager;

use cache::ResponseCache;
pub(crate) use refusal::of_manager;
use regions::{Owner, Regions};

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Number of its connection, which no session has: requests of one connection wait behind each other, not before
    /// others'.
    pub flow: u64,
    /// Whose regions it may use.
    pub owner: Owner,
}

/// Answers calls of the protocol.
#[derive(Clone, Debug)]
pub struct Oip {
    engine: Arc<Engine>,
    manager: Arc<Manager>,
    regions: Arc<Regions>,
    cache: Arc<ResponseCache>,
    log: LogSettings,
}

impl Oip {
    /// Calls to these models.
    #[must_use]
    pub fn new(
        engine: Arc<Engine>,
        manager: Arc<Manager>,
        regions: Regions,
        cache: ResponseCache,
        log: LogSettings,
    ) -> Self {
        Self {
            engine,
            manager,
            regions: Arc::new(regions),
            cache: Arc::new(cache),
            log,
        }
    }

    /// A version that is ready, as a call names it.
    fn find(&self, model: &str, version: &VersionChoice) -> Result<Arc<ModelVersion>, Rejection> {
        let (number, label) = (version.number(), version.label());
        self.engine.models().find(model, number, label)
    }

    /// A version's description, with the numbers of the model's versions that are ready.
    fn info(&self, version: &ModelVersion) -> ModelInfo {
        let models = self.engine.models().snapshot();
        let entry = models.get(version.name().as_ref());
        let ready = entry.map(ModelEntry::ready_versions).unwrap_or_default();
        version.info(0, ready)
    }
}
