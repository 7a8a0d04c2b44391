//! A session that runs one batch at a time.

use std::sync::Arc;

use adjoin_backend::{Copied, ExecuteError, Execution, Instance, ModelMetadata, OutputSink};
use ort::session::Session;

use crate::NAME;
use crate::cache::Cache;
use crate::raw::{Binding, Runner};

#[derive(Debug)]
pub(crate) struct OnnxRuntimeInstance {
    metadata: Arc<ModelMetadata>,
    runner: Runner,
    bindings: Cache<Binding>,
}

impl OnnxRuntimeInstance {
    pub(crate) fn new(session: Session, metadata: Arc<ModelMetadata>) -> ort::Result<Self> {
        Ok(Self {
            runner: Runner::new(session, &metadata)?,
            metadata,
            bindings: Cache::new(),
        })
    }
}

impl Instance for OnnxRuntimeInstance {
    fn run(
        &mut self,
        mut execution: Execution<'_, '_>,
        sink: &mut dyn OutputSink,
    ) -> Result<Copied, ExecuteError> {
        let key = execution.key;
        if let Some(binding) = key.and_then(|key| self.bindings.get_mut(key)) {
            match binding.ready(execution) {
                Ok(ready) => return self.runner.run(ready, sink),
                Err(given_back) => execution = given_back,
            }
        }
        execution.check(&self.metadata)?;
        let mut binding = Binding::new(&self.runner, &mut execution)?;
        let Ok(ready) = binding.ready(execution) else {
            return Err(failed("values do not fit what they were made of"));
        };
        let copied = self.runner.run(ready, sink)?;
        if let Some(key) = key.filter(|_| binding.can_be_kept()) {
            self.bindings.insert(key, binding);
        }
        Ok(copied)
    }
}

/// The engine's report of what went wrong.
pub(crate) fn failed(reason: impl ToString) -> ExecuteError {
    ExecuteError::Failed {
        engine: NAME,
        reason: reason.to_string(),
    }
}
