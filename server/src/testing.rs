//! Models and requests for tests of what lies between a request and an engine.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use adjoin_backend::{
    Copied, Dimension, ExecuteError, Execution, InputAccess, Instance, LoadError, Model,
    ModelMetadata, OutputSink, TensorMetadata,
};
use adjoin_control_api::inference::ModelConfig;
use adjoin_schema::DataType;
use adjoin_schema::descriptor::Rejection;
use tokio::sync::oneshot::{Receiver, channel};

use crate::batch::policy::BatchPolicy;
use crate::batch::queue_policy::QueuePolicies;
use crate::engine::{Engine, EngineOptions};
use crate::metrics::Metrics;
use crate::model::request::{InputPlace, Job, Outcome, Request, Sink, Source};
use crate::model::version::VersionParts;
use crate::model::{
    InputFacts, InstanceSlot, ModelEntry, ModelSettings, ModelVersion, Models, Signature, Timing,
};
use crate::session::budget::MemoryBudget;
use crate::session::response::ResponseBlock;
use crate::session::table::SessionLimits;

/// A data plane without workers, which takes no sessions and never spins.
pub(crate) fn engine(models: &Arc<Models>, metrics: &Arc<Metrics>) -> Arc<Engine> {
    let options = EngineOptions {
        spin_ns: 0,
        limits: SessionLimits {
            session_count_max: 0,
            session_bytes_max: 0,
            user_bytes_max: 0,
            total_bytes_max: 0,
        },
        memory: MemoryBudget::default(),
    };
    Engine::new(Arc::clone(models), Arc::clone(metrics), options).unwrap()
}

/// What a fake engine does with a batch.
pub(crate) type Run =
    dyn Fn(Execution<'_, '_>, &mut dyn OutputSink) -> Result<Copied, ExecuteError> + Send + Sync;

/// A model that runs a function of the test's.
#[derive(Clone)]
pub(crate) struct Fake {
    metadata: ModelMetadata,
    run: Arc<Run>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fake").finish_non_exhaustive()
    }
}

impl Fake {
    pub(crate) fn boxed(
        inputs: Vec<TensorMetadata>,
        outputs: Vec<TensorMetadata>,
        run: impl Fn(Execution<'_, '_>, &mut dyn OutputSink) -> Result<Copied, ExecuteError>
        + Send
        + Sync
        + 'static,
    ) -> Box<dyn Model> {
        let metadata = ModelMetadata { inputs, outputs };
        let run = Arc::new(run);
        Box::new(Self { metadata, run })
    }
}

impl Model for Fake {
    fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(self.clone()))
    }
}

impl Instance for Fake {
    fn run(
        &mut self,
        execution: Execution<'_, '_>,
        sink: &mut dyn OutputSink,
    ) -> Result<Copied, ExecuteError> {
        (self.run)(execution, sink)
    }
}

/// A tensor of rows: -1 is any size.
pub(crate) fn tensor(name: &str, dtype: DataType, row: &[i64]) -> TensorMetadata {
    let size = |&size: &i64| match size {
        -1 => Dimension::Unknown,
        size => Dimension::Fixed(size),
    };
    TensorMetadata {
        name: name.into(),
        dtype,
        dimensions: [Dimension::Named("batch".into())]
            .into_iter()
            .chain(row.iter().map(size))
            .collect(),
        access: InputAccess::InPlace,
    }
}

/// Settings with batches of so many rows and one instance.
pub(crate) fn settings(max_batch_size: u32) -> ModelSettings {
    let policy = BatchPolicy {
        max_batch_size,
        ..BatchPolicy::single()
    };
    ModelSettings {
        policy,
        max_batch_size,
        queue_count_max: 64,
        instances: 1,
        priority_levels: 1,
        default_priority: 1,
        queue: QueuePolicies::default(),
        response_cache: false,
    }
}

/// A model version with one instance.
pub(crate) fn version(
    metrics: &Metrics,
    name: &str,
    model: Box<dyn Model>,
    settings: ModelSettings,
) -> Arc<ModelVersion> {
    let instance = InstanceSlot::new(model.instance().unwrap(), model.metadata());
    let parts = parts(metrics, name, model, settings, vec![instance]);
    Arc::new(ModelVersion::new(parts))
}

/// The parts of version 1 of a model.
pub(crate) fn parts(
    metrics: &Metrics,
    name: &str,
    model: Box<dyn Model>,
    settings: ModelSettings,
    instances: Vec<InstanceSlot>,
) -> VersionParts {
    let metadata = model.metadata().clone();
    VersionParts {
        name: name.into(),
        version: 1,
        engine: "fake",
        signature: Signature::new(metadata, settings.max_batch_size),
        settings,
        config: ModelConfig::default(),
        labels: Vec::new(),
        metrics: metrics.model(name, 1),
        model,
        instances,
        timing: Timing::default(),
    }
}

/// Serves a version as the only one of its model.
pub(crate) fn serve(models: &Models, version: Arc<ModelVersion>) {
    let name = Arc::clone(version.name());
    let mut entry = ModelEntry::default();
    entry.versions.insert(version.version(), version);
    let put = |served: &mut ModelEntry| {
        *served = entry;
        Ok::<(), Infallible>(())
    };
    let Ok(()) = models.change(&name, put);
}

/// An input of a request: name, type, shape, bytes.
pub(crate) type Given<'a> = (&'a str, DataType, &'a [i64], &'a [u8]);

/// A job for the newest version of a model, and where its outcome comes.
pub(crate) fn job(
    models: &Models,
    model: &str,
    inputs: &[Given<'_>],
    wanted: &[&str],
) -> Result<(Job, Receiver<Outcome>), Rejection> {
    let facts: Vec<InputFacts<'_>> = inputs
        .iter()
        .map(|&(name, dtype, shape, bytes)| InputFacts {
            name,
            dtype,
            shape,
            byte_size: bytes.len() as u64,
        })
        .collect();
    let (version, claim) = models.claim(model, 0, "")?;
    let resolved = version.signature().resolve(&facts, wanted)?;
    let place = |&index: &usize| InputPlace {
        dtype: facts[index].dtype,
        shape: facts[index].shape.into(),
        offset: 0,
        byte_size: facts[index].byte_size,
    };
    let buffer = |&index: &usize| bytes::Bytes::copy_from_slice(inputs[index].3);
    let request = Arc::new(Request {
        version,
        source: Source::Owned(resolved.inputs.iter().map(buffer).collect()),
        inputs: resolved.inputs.iter().map(place).collect(),
        outputs: resolved.outputs,
        device: None,
        rows: resolved.rows,
        compatibility: resolved.compatibility,
        key: None,
        claim: Some(claim),
    });
    let (sender, receiver) = channel();
    let response = Box::new(ResponseBlock::private(&request, 1 << 20)?);
    let job = Job {
        request,
        request_id: 0,
        sink: Sink::Reply(Some(sender)),
        response,
    };
    Ok((job, receiver))
}
