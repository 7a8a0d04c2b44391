//! A call without a server: an engine through its own interface, with inputs and outputs at fixed places,
//! so that it keeps its binding as it does for a prepared request.

use adjoin_backend::{
    BindingKey, Execution, Input, Instance, ModelMetadata, Output, OutputSink, SinkError,
};
use adjoin_schema::DataType;
use adjoin_shm::{AlignedBuffer, Payload, PayloadMut};
use smallvec::SmallVec;

use crate::Failure;
use crate::tensor::Tensor;

/// Room for an output whose size nobody knows, at first.
const UNKNOWN_BYTES: usize = 1 << 16;

/// An instance of a model in this process.
#[derive(Debug)]
pub struct InProcess {
    instance: Box<dyn Instance>,
    inputs: Vec<Place>,
    outputs: Vec<Place>,
}

/// A tensor and its memory.
#[derive(Debug)]
struct Place {
    dtype: DataType,
    shape: Vec<i64>,
    /// Bytes that are known before the run; `None` where the run shows them.
    byte_size: Option<usize>,
    /// Bytes of the last run.
    filled: usize,
    buffer: AlignedBuffer,
}

impl Place {
    fn new(tensor: &Tensor) -> Result<Self, Failure> {
        let byte_size = tensor.byte_size.map(|_| tensor.bytes());
        Ok(Self {
            dtype: tensor.dtype()?,
            shape: tensor.shape.clone(),
            byte_size,
            filled: byte_size.unwrap_or(0),
            buffer: AlignedBuffer::new(byte_size.unwrap_or(UNKNOWN_BYTES))?,
        })
    }

    fn input(&self) -> Input<'_> {
        let payload = self.buffer.payload(self.byte_size.unwrap_or(0));
        Input::whole(self.dtype, &self.shape, payload)
    }

    fn output(&mut self) -> Output<'_> {
        match self.byte_size {
            Some(byte_size) => {
                let payload = self.buffer.payload_mut(byte_size);
                Output::Bound {
                    dtype: self.dtype,
                    shape: &self.shape,
                    payload,
                }
            }
            None => Output::Unbound,
        }
    }
}

impl InProcess {
    /// Places for all inputs and outputs of a model, in its order. Outputs without a size get theirs in
    /// each run, by one copy, as in the server.
    ///
    /// # Errors
    /// If a data type is unknown, or there is no memory.
    pub fn new(
        instance: Box<dyn Instance>,
        inputs: &[Tensor],
        outputs: &[Tensor],
    ) -> Result<Self, Failure> {
        Ok(Self {
            instance,
            inputs: inputs.iter().map(Place::new).collect::<Result<_, _>>()?,
            outputs: outputs.iter().map(Place::new).collect::<Result<_, _>>()?,
        })
    }

    /// As [`InProcess::new`], with the outputs that a first run shows.
    ///
    /// # Errors
    /// As [`InProcess::new`], and if the run fails.
    pub fn with_shown_outputs(
        instance: Box<dyn Instance>,
        metadata: &ModelMetadata,
        inputs: &[Tensor],
    ) -> Result<(Self, Vec<Tensor>), Failure> {
        let unknown = metadata.outputs.iter().map(|output| Tensor {
            name: output.name.clone(),
            data_type: output.dtype.name().into(),
            shape: Vec::new(),
            byte_size: None,
        });
        let mut outputs: Vec<Tensor> = unknown.collect();
        let mut first = Self::new(instance, inputs, &outputs)?;
        first.run()?;
        for (tensor, place) in outputs.iter_mut().zip(&first.outputs) {
            tensor.shape.clone_from(&place.shape);
            tensor.byte_size = Some(place.filled as u64);
        }
        let known = Self::new(first.instance, inputs, &outputs)?;
        Ok((known, outputs))
    }

    /// Writes all inputs.
    pub fn write(&mut self, contents: &[Vec<u8>]) {
        for (place, bytes) in self.inputs.iter_mut().zip(contents) {
            Payload::from_slice(bytes).copy_to(&mut place.buffer.payload_mut(bytes.len()));
        }
    }

    /// The bytes of an output of the last run; empty past the last one.
    #[must_use]
    pub fn output(&self, index: usize) -> Vec<u8> {
        let place = self.outputs.get(index);
        place.map_or_else(Vec::new, |place| {
            place.buffer.payload(place.filled).to_vec()
        })
    }

    /// Runs the model.
    ///
    /// # Errors
    /// If the engine fails.
    pub fn run(&mut self) -> Result<(), Failure> {
        let inputs: SmallVec<[Input<'_>; 4]> = self.inputs.iter().map(Place::input).collect();
        let mut unbound = Unbound { places: Vec::new() };
        let mut outputs: SmallVec<[Output<'_>; 4]> = SmallVec::new();
        for (index, place) in self.outputs.iter_mut().enumerate() {
            if place.byte_size.is_none() {
                let buffer = std::mem::take(&mut place.buffer);
                unbound.places.push(Shown {
                    index,
                    shape: Vec::new(),
                    filled: 0,
                    buffer,
                });
            }
            outputs.push(place.output());
        }
        let execution = Execution {
            key: Some(BindingKey(1)),
            inputs: &inputs,
            outputs: &mut outputs,
        };
        let outcome = self.instance.run(execution, &mut unbound);
        drop(outputs);
        for shown in unbound.places {
            let place = &mut self.outputs[shown.index];
            place.buffer = shown.buffer;
            place.shape = shown.shape;
            place.filled = shown.filled;
        }
        outcome?;
        Ok(())
    }
}

/// Takes outputs of unknown size where a user would keep them: one copy, as in the server.
struct Unbound {
    places: Vec<Shown>,
}

/// An output that a run showed.
struct Shown {
    index: usize,
    shape: Vec<i64>,
    filled: usize,
    buffer: AlignedBuffer,
}

impl OutputSink for Unbound {
    fn accept(
        &mut self,
        index: usize,
        _: DataType,
        shape: &[i64],
        payload: Payload<'_>,
    ) -> Result<(), SinkError> {
        let byte_size = payload.byte_size();
        let room = self.places.iter_mut().find(|place| place.index == index);
        let error = SinkError {
            byte_size: byte_size as u64,
        };
        let Some(place) = room else {
            return Err(error);
        };
        place.buffer.reserve(byte_size).map_err(|_| error)?;
        let mut room: PayloadMut<'_> = place.buffer.payload_mut(byte_size);
        payload.copy_to(&mut room);
        place.shape = shape.to_vec();
        place.filled = byte_size;
        Ok(())
    }
}
