//! A loaded model version; its instances share it.

use std::sync::Arc;

use adjoin_backend::{
    InputAccess, Instance, LoadError, Model, ModelMetadata, ModelSource, TensorMetadata,
};
use adjoin_onnx_graph::OnnxFile;
use rten::{ModelOptions, NodeId, ThreadPool, ValueType};

use crate::NAME;
use crate::convert::Element;
use crate::instance::RtenInstance;
use crate::panics::caught;

#[derive(Debug)]
pub(crate) struct RtenModel {
    metadata: ModelMetadata,
    graph: Arc<LoadedGraph>,
    threads: usize,
}

/// What instances need of a model.
#[derive(Debug)]
pub(crate) struct LoadedGraph {
    pub(crate) model: rten::Model,
    pub(crate) metadata: ModelMetadata,
    pub(crate) inputs: Vec<(NodeId, Element)>,
    pub(crate) outputs: Vec<NodeId>,
}

impl RtenModel {
    pub(crate) fn load(source: &ModelSource) -> Result<Self, LoadError> {
        let mut metadata = OnnxFile::read(NAME, source)?.model.metadata;
        for input in &mut metadata.inputs {
            // Copied here before the engine sees it, so a copy of the server's would be one too many.
            input.access = InputAccess::InPlace;
        }
        let inputs = elements(source, "input", &metadata.inputs)?;
        elements(source, "output", &metadata.outputs)?;

        let refused = |reason: String| LoadError::Refused {
            engine: NAME,
            path: source.path.clone(),
            reason,
        };
        let model = caught(|| ModelOptions::with_all_ops().load_file(&source.path))
            .map_err(refused)?
            .map_err(|error| refused(error.to_string()))?;
        let node = |tensor: &TensorMetadata| {
            let node = model.node_id(&tensor.name);
            node.map_err(|error| refused(error.to_string()))
        };
        let input_nodes = metadata.inputs.iter().map(node);
        let input_nodes = input_nodes.collect::<Result<Vec<_>, _>>()?;
        let outputs = metadata.outputs.iter().map(node);
        let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        for (&id, &element) in input_nodes.iter().zip(&inputs) {
            let dtype = model.node_info(id).and_then(|info| info.dtype());
            if dtype.is_some_and(|dtype| dtype != ValueType::Tensor(element.engine_type())) {
                return Err(refused(
                    "it takes other types than the file says".to_owned(),
                ));
            }
        }
        let graph = Arc::new(LoadedGraph {
            model,
            metadata: metadata.clone(),
            inputs: input_nodes.into_iter().zip(inputs).collect(),
            outputs,
        });
        Ok(Self {
            metadata,
            graph,
            threads: source.intra_op_threads.max(1),
        })
    }
}

fn elements(
    source: &ModelSource,
    kind: &'static str,
    tensors: &[TensorMetadata],
) -> Result<Vec<Element>, LoadError> {
    let element = |tensor: &TensorMetadata| {
        Element::of(tensor.dtype).ok_or_else(|| LoadError::Unsupported {
            model: source.name.clone(),
            kind,
            name: tensor.name.clone(),
            what: format!("has type {}, which {NAME} does not have", tensor.dtype),
        })
    };
    tensors.iter().map(element).collect()
}

impl Model for RtenModel {
    fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        let pool = ThreadPool::with_num_threads(self.threads);
        Ok(Box::new(RtenInstance::new(self.graph.clone(), pool)))
    }
}
