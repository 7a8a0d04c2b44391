//! What all built-in models share: loading, the way of inputs into private memory and of results out of it.

use std::fmt::Debug;
use std::sync::Arc;

use adjoin_backend::{
    Copied, Dimension, ExecuteError, Execution, InputAccess, Instance, LoadError, Model,
    ModelMetadata, ModelSource, Output, OutputSink, TensorMetadata,
};
use adjoin_schema::DataType;
use adjoin_shm::{Payload, PayloadMut};

use crate::parameters::Parameters;
use crate::value::{Tensor, Value};

/// What one built-in model computes. Each instance has a clone of its own.
pub(crate) trait Step: Clone + Debug + Send + Sync + 'static {
    /// Name of the engine.
    const NAME: &'static str;
    /// Names of its parameters; others are refused.
    const PARAMETERS: &'static [&'static str];

    /// Makes it by the parameters of a configuration.
    fn new(parameters: &Parameters<'_>) -> Result<Self, LoadError>;

    /// What it takes and gives.
    fn metadata(&self) -> ModelMetadata;

    /// Whether inputs of zeros are inputs.
    fn runs_on_zeros(&self) -> bool {
        true
    }

    /// The results of one batch, one for each output. Types and shapes of the inputs were checked.
    ///
    /// # Errors
    /// What the client has to know of its values.
    fn compute(&mut self, inputs: &[Tensor<'_>]) -> Result<Vec<Value>, String>;
}

/// A tensor of the metadata.
pub(crate) fn tensor(name: &str, dtype: DataType, dimensions: &[Dimension]) -> TensorMetadata {
    TensorMetadata {
        name: name.to_owned(),
        dtype,
        dimensions: dimensions.to_vec(),
        // Copied here before a value is looked at, so a copy of the server's would be one too many.
        access: InputAccess::InPlace,
    }
}

/// The dimension along which requests are joined.
pub(crate) fn batch() -> Dimension {
    Dimension::Named("batch".to_owned())
}

#[derive(Debug)]
pub(crate) struct BuiltinModel<S> {
    metadata: Arc<ModelMetadata>,
    step: S,
}

impl<S: Step> BuiltinModel<S> {
    pub(crate) fn load(source: &ModelSource) -> Result<Self, LoadError> {
        let step = S::new(&Parameters::new(source, S::NAME, S::PARAMETERS)?)?;
        Ok(Self {
            metadata: Arc::new(step.metadata()),
            step,
        })
    }
}

impl<S: Step> Model for BuiltinModel<S> {
    fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    fn runs_on_zeros(&self) -> bool {
        self.step.runs_on_zeros()
    }

    fn instance(&self) -> Result<Box<dyn Instance>, LoadError> {
        Ok(Box::new(BuiltinInstance {
            metadata: Arc::clone(&self.metadata),
            step: self.step.clone(),
            inputs: vec![Vec::new(); self.metadata.inputs.len()],
        }))
    }
}

#[derive(Debug)]
struct BuiltinInstance<S> {
    metadata: Arc<ModelMetadata>,
    step: S,
    /// Private memory for each input, used again for every run.
    inputs: Vec<Vec<u8>>,
}

impl<S: Step> Instance for BuiltinInstance<S> {
    fn run(
        &mut self,
        execution: Execution<'_, '_>,
        sink: &mut dyn OutputSink,
    ) -> Result<Copied, ExecuteError> {
        execution.check(&self.metadata)?;
        let mut copied = Copied::default();
        for (room, input) in self.inputs.iter_mut().zip(execution.inputs) {
            room.resize(input.payload.byte_size(), 0);
            input.payload.copy_to(&mut PayloadMut::from_slice(room));
            copied.input_bytes += room.len() as u64;
        }
        let tensor = |(input, bytes)| {
            let input: &adjoin_backend::Input<'_> = input;
            let bytes: &Vec<u8> = bytes;
            Tensor {
                dtype: input.dtype,
                shape: input.shape,
                bytes,
            }
        };
        let inputs: Vec<Tensor<'_>> = execution
            .inputs
            .iter()
            .zip(&self.inputs)
            .map(tensor)
            .collect();
        let results = self.step.compute(&inputs);
        let results = results.map_err(|reason| ExecuteError::Refused { reason })?;
        let mut outcome = Ok(());
        for (index, (output, result)) in execution.outputs.iter_mut().zip(&results).enumerate() {
            let dtype = self.metadata.outputs[index].dtype;
            match put::<S>(index, dtype, result, output, sink) {
                Ok(byte_size) => copied.output_bytes += byte_size,
                // The first error is reported, and the other outputs get their chance.
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome.map(|()| copied)
    }
}

/// Brings a result to where it is wanted. Returns the bytes that were copied for that.
fn put<S: Step>(
    index: usize,
    dtype: DataType,
    result: &Value,
    output: &mut Output<'_>,
    sink: &mut dyn OutputSink,
) -> Result<u64, ExecuteError> {
    let payload = Payload::from_slice(result.elements.bytes());
    match output {
        Output::Bound {
            shape,
            payload: room,
            ..
        } => {
            if result.shape != *shape || payload.byte_size() != room.byte_size() {
                let given = &result.shape;
                return Err(ExecuteError::Failed {
                    engine: S::NAME,
                    reason: format!("output {index} has shape {given:?}, and {shape:?} was wanted"),
                });
            }
            payload.copy_to(room);
            Ok(payload.byte_size() as u64)
        }
        Output::Unbound => {
            sink.accept(index, dtype, &result.shape, payload)?;
            Ok(0)
        }
        Output::Pieces { .. } => Err(ExecuteError::Mismatch {
            reason: format!("output {index} is wanted in pieces"),
        }),
        Output::Skipped => Ok(0),
    }
}
