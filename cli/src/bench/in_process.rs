//! The same call without a server: the same engine through the same interface, with inputs and outputs
//! at fixed places, so that the engine keeps its binding as it does for a prepared request.

use std::time::Instant;

use adjoin_backend::{
    Backend, BindingKey, Execution, Input, Instance, ModelSource, Output, OutputSink, SinkError,
};
use adjoin_backend_onnxruntime::OnnxRuntimeBackend;
use adjoin_backend_rten::RtenBackend;
use adjoin_schema::DataType;
use adjoin_shm::{AlignedBuffer, Payload, PayloadMut};
use smallvec::SmallVec;

use super::client::Caller;
use super::contents::Contents;
use super::job::{InProcess, Job, Tensor};
use super::meter::Meter;
use crate::Failure;

/// Room for an output whose size nobody knows, at first.
const UNKNOWN_BYTES: usize = 1 << 16;

/// An instance of the model in this process.
pub(super) struct InProcessCaller {
    engine_version: String,
    instance: Box<dyn Instance>,
    inputs: Vec<Place>,
    outputs: Vec<Place>,
    contents: Contents,
    is_rewritten: bool,
}

/// A tensor and its memory.
struct Place {
    dtype: DataType,
    shape: Vec<i64>,
    /// Bytes that are known before the run; `None` where the run shows them.
    byte_size: Option<usize>,
    buffer: AlignedBuffer,
}

impl Place {
    fn new(tensor: &Tensor) -> Result<Self, Failure> {
        let byte_size = tensor.byte_size.map(|_| tensor.bytes());
        Ok(Self {
            dtype: tensor.dtype()?,
            shape: tensor.shape.clone(),
            byte_size,
            buffer: AlignedBuffer::new(byte_size.unwrap_or(UNKNOWN_BYTES))?,
        })
    }

    fn input(&self) -> Input<'_> {
        let payload = self.buffer.payload(self.byte_size.unwrap_or(0));
        Input {
            dtype: self.dtype,
            shape: &self.shape,
            payload,
        }
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
        })?;
        let mut caller = Self {
            engine_version: backend.version(),
            instance: model.instance()?,
            inputs: job
                .inputs
                .iter()
                .map(Place::new)
                .collect::<Result<_, _>>()?,
            outputs: job
                .outputs
                .iter()
                .map(Place::new)
                .collect::<Result<_, _>>()?,
            contents: Contents::new(&job.inputs)?,
            is_rewritten: job.is_rewritten,
        };
        caller.write();
        Ok(caller)
    }

    pub(super) fn engine_version(&self) -> &str {
        &self.engine_version
    }

    fn write(&mut self) {
        for (place, bytes) in self.inputs.iter_mut().zip(self.contents.next()) {
            Payload::from_slice(bytes).copy_to(&mut place.buffer.payload_mut(bytes.len()));
        }
    }

    fn run(&mut self) -> Result<(), Failure> {
        let inputs: SmallVec<[Input<'_>; 4]> = self.inputs.iter().map(Place::input).collect();
        let mut unbound = Unbound { places: Vec::new() };
        let mut outputs: SmallVec<[Output<'_>; 4]> = SmallVec::new();
        for (index, place) in self.outputs.iter_mut().enumerate() {
            if place.byte_size.is_none() {
                unbound
                    .places
                    .push((index, std::mem::take(&mut place.buffer)));
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
        for (index, buffer) in unbound.places {
            self.outputs[index].buffer = buffer;
        }
        outcome?;
        Ok(())
    }
}

impl Caller for InProcessCaller {
    fn call(&mut self, meter: &mut Meter) -> Result<(), Failure> {
        loop {
            if self.is_rewritten {
                self.write();
            }
            let began = Instant::now();
            self.run()?;
            if !meter.record(began, Instant::now()) {
                return Ok(());
            }
        }
    }
}

/// Takes outputs of unknown size where a user would keep them: one copy, as in the server.
struct Unbound {
    places: Vec<(usize, AlignedBuffer)>,
}

impl OutputSink for Unbound {
    fn accept(
        &mut self,
        index: usize,
        _: DataType,
        _: &[i64],
        payload: Payload<'_>,
    ) -> Result<(), SinkError> {
        let byte_size = payload.byte_size();
        let room = self.places.iter_mut().find(|(of, _)| *of == index);
        let error = SinkError {
            byte_size: byte_size as u64,
        };
        let Some((_, buffer)) = room else {
            return Err(error);
        };
        buffer.reserve(byte_size).map_err(|_| error)?;
        let mut room: PayloadMut<'_> = buffer.payload_mut(byte_size);
        payload.copy_to(&mut room);
        Ok(())
    }
}
