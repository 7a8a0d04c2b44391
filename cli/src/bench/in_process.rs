//! The same call without a server: the same engine through the same interface.

use std::collections::BTreeMap;
use std::time::Instant;

use adjoin_backend::{Backend, ModelSource};
use adjoin_backend_onnxruntime::OnnxRuntimeBackend;
use adjoin_backend_rten::RtenBackend;

use super::client::Caller;
use super::contents::Contents;
use super::job::{InProcess, Job};
use super::meter::Meter;
use crate::Failure;

/// An instance of the model in this process.
pub(super) struct InProcessCaller {
    engine_version: String,
    model: adjoin_cli_kit::in_process::InProcess,
    contents: Contents,
    is_rewritten: bool,
}

impl InProcessCaller {
    pub(super) fn new(job: &Job, how: &InProcess) -> Result<Self, Failure> {
        let backend: Box<dyn Backend> = match how.engine.as_str() {
            "rten" => Box::new(RtenBackend),
            "onnxruntime" => {
                let library = OnnxRuntimeBackend::find(how.onnxruntime.as_deref())?;
                Box::new(OnnxRuntimeBackend::open(&library)?)
            }
            other => return Err(format!("engine {other:?} is not known here").into()),
        };
        let model = backend.load(&ModelSource {
            name: job.model.clone(),
            version: job.version,
            path: how.path.clone(),
            intra_op_threads: how.threads,
            parameters: BTreeMap::new(),
            placement: Default::default(),
            rows_max: Default::default(),
        })?;
        let instance = model.instance()?;
        let mut caller = Self {
            engine_version: backend.version(),
            model: adjoin_cli_kit::in_process::InProcess::new(instance, &job.inputs, &job.outputs)?,
            contents: Contents::new(&job.inputs)?,
            is_rewritten: job.is_rewritten,
        };
        caller.model.write(caller.contents.turn());
        Ok(caller)
    }

    pub(super) fn engine_version(&self) -> &str {
        &self.engine_version
    }
}

impl Caller for InProcessCaller {
    fn call(&mut self, meter: &mut Meter) -> Result<(), Failure> {
        loop {
            if self.is_rewritten {
                self.model.write(self.contents.turn());
            }
            let began = Instant::now();
            self.model.run()?;
            if !meter.record(began, Instant::now()) {
                return Ok(());
            }
        }
    }
}
