//! Whether runs of a model can be captured as graphs: it is tried.
//!
//! The engine refuses graphs for some models when their session is made, and others fail only when a run is captured, such as
//! those that look at a value of the device on their way. Where a model does not say whether it wants graphs it gets them if
//! one run of one row, on zeros, is captured and replayed.

use adjoin_backend::{
    Dimension, Execution, Input, Instance, ModelMetadata, Output, OutputSink, SinkError,
    TensorMetadata,
};
use adjoin_schema::{DataType, Shape};
use adjoin_shm::{AlignedBuffer, Payload};

use super::instance::DeviceInstance;

/// Runs that are captured, and replayed.
const RUNS: usize = 2;

/// Tries it.
///
/// # Errors
/// Why there are no graphs for this model.
pub(crate) fn capture(
    instance: &mut DeviceInstance,
    metadata: &ModelMetadata,
) -> Result<(), String> {
    let inputs = one_row_of_each(&metadata.inputs)?;
    let mut outputs = one_row_of_each(&metadata.outputs)?;
    for _ in 0..RUNS {
        let inputs: Vec<_> = inputs.iter().map(Row::input).collect();
        let mut outputs: Vec<_> = outputs.iter_mut().map(Row::output).collect();
        let execution = Execution {
            key: None,
            inputs: &inputs,
            outputs: &mut outputs,
        };
        let ran = instance.run(execution, &mut Nowhere);
        ran.map_err(|error| error.to_string())?;
    }
    if instance.has_graph() {
        return Ok(());
    }
    Err("the engine could not capture a run".to_owned())
}

/// One row of a tensor.
struct Row {
    dtype: DataType,
    shape: Shape,
    byte_size: usize,
    values: AlignedBuffer,
}

fn one_row_of_each(tensors: &[TensorMetadata]) -> Result<Vec<Row>, String> {
    tensors.iter().map(Row::zeros).collect()
}

impl Row {
    fn zeros(tensor: &TensorMetadata) -> Result<Self, String> {
        let size = |(index, dimension): (usize, &Dimension)| match dimension {
            Dimension::Fixed(size) => Some(*size),
            _ => (index == 0).then_some(1),
        };
        let shape: Option<Shape> = tensor.dimensions.iter().enumerate().map(size).collect();
        let shape = shape.ok_or_else(|| {
            let (name, open) = (&tensor.name, tensor.open_shape());
            format!(
                "{name:?} has shape {:?}, which leaves more open than its rows",
                open.as_slice()
            )
        })?;
        let byte_size = tensor.dtype.byte_size(&shape).ok().flatten();
        let byte_size = byte_size.and_then(|byte_size| usize::try_from(byte_size).ok());
        let byte_size = byte_size.ok_or_else(|| format!("{:?} has no fixed size", tensor.name))?;
        Ok(Self {
            dtype: tensor.dtype,
            shape,
            byte_size,
            values: AlignedBuffer::new(byte_size).map_err(|error| error.to_string())?,
        })
    }

    fn input(&self) -> Input<'_> {
        Input::whole(self.dtype, &self.shape, self.values.payload(self.byte_size))
    }

    fn output(&mut self) -> Output<'_> {
        Output::Bound {
            dtype: self.dtype,
            shape: &self.shape,
            payload: self.values.payload_mut(self.byte_size),
        }
    }
}

/// All outputs have their place.
struct Nowhere;

impl OutputSink for Nowhere {
    fn accept(
        &mut self,
        _: usize,
        _: DataType,
        _: &[i64],
        _: Payload<'_>,
    ) -> Result<(), SinkError> {
        Ok(())
    }
}
