//! ONNX Runtime in the client: the anchor.

use std::collections::BTreeMap;
use std::path::Path;

use adjoin_backend::{Backend, Model, ModelSource};
use adjoin_backend_onnxruntime::OnnxRuntimeBackend;
use adjoin_cli_kit::Failure;
use adjoin_cli_kit::in_process::InProcess;
use adjoin_cli_kit::tensor::Tensor;

use super::{Answer, CallError, Lane};
use crate::job::Job;

/// A model in this process, with inputs and outputs at fixed places.
#[derive(Debug)]
pub(super) struct InProcessLane {
    model: InProcess,
    outputs: Vec<Tensor>,
}

/// The lane of a client: an instance runs one request at a time.
pub(super) async fn lane(job: &Job, path: &Path) -> Result<Vec<InProcessLane>, Failure> {
    let model = load(job.onnxruntime.as_deref(), path, job.engine_threads)?;
    check_order(&*model, &job.inputs)?;
    let (model, outputs) =
        InProcess::with_shown_outputs(model.instance()?, model.metadata(), &job.inputs)?;
    Ok(vec![InProcessLane { model, outputs }])
}

/// Loads a model from a file.
pub(crate) fn load(
    onnxruntime: Option<&Path>,
    path: &Path,
    threads: u32,
) -> Result<Box<dyn Model>, Failure> {
    let library = OnnxRuntimeBackend::find(onnxruntime);
    let library = library.map_err(|error| format!("{error}; name it by --onnxruntime"))?;
    Ok(OnnxRuntimeBackend::open(&library)?.load(&ModelSource {
        name: path.display().to_string(),
        version: 1,
        path: path.to_owned(),
        intra_op_threads: usize::try_from(threads)?,
        parameters: BTreeMap::new(),
        placement: Default::default(),
        rows_max: Default::default(),
    })?)
}

/// The inputs must be named in the order of the model's.
pub(crate) fn check_order(model: &dyn Model, given: &[Tensor]) -> Result<(), Failure> {
    let wanted = &model.metadata().inputs;
    let is_same = wanted.len() == given.len()
        && wanted
            .iter()
            .zip(given)
            .all(|(wanted, given)| wanted.name == given.name);
    if !is_same {
        let names: Vec<_> = wanted.iter().map(|input| input.name.as_str()).collect();
        return Err(format!(
            "the model's inputs are {}; name them all by --input, in this order",
            names.join(", ")
        )
        .into());
    }
    Ok(())
}

impl Lane for InProcessLane {
    fn write(&mut self, contents: &[Vec<u8>]) -> Result<(), Failure> {
        self.model.write(contents);
        Ok(())
    }

    async fn call(&mut self, _: Option<u64>) -> Result<(), CallError> {
        self.model.run().map_err(CallError::failed)
    }

    async fn ask(&mut self) -> Result<Vec<Answer>, CallError> {
        self.call(None).await?;
        let answer = |(index, tensor): (usize, &Tensor)| Answer {
            tensor: tensor.clone(),
            bytes: self.model.output(index),
        };
        Ok(self.outputs.iter().enumerate().map(answer).collect())
    }
}
