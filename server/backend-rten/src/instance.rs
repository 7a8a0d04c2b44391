//! A model with threads and buffers of its own, which runs one batch at a time.

use std::fmt;
use std::sync::Arc;

use adjoin_backend::{Copied, ExecuteError, Execution, Input, Instance, Output, OutputSink};
use rten::{RunOptions, ThreadPool, Value};

use crate::NAME;
use crate::convert::{Buffer, Bytes, shape_of};
use crate::model::LoadedGraph;
use crate::panics::caught;

pub(crate) struct RtenInstance {
    graph: Arc<LoadedGraph>,
    pool: Arc<ThreadPool>,
    buffers: Vec<Buffer>,
}

impl fmt::Debug for RtenInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RtenInstance")
            .field("model", &self.graph.model)
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

impl RtenInstance {
    pub(crate) fn new(graph: Arc<LoadedGraph>, pool: ThreadPool) -> Self {
        let elements = graph.inputs.iter().map(|&(_, element)| element);
        Self {
            buffers: elements.map(Buffer::new).collect(),
            graph,
            pool: Arc::new(pool),
        }
    }

    /// Copies all inputs. Returns their bytes.
    fn fill(&mut self, inputs: &[Input<'_>]) -> Result<u64, ExecuteError> {
        let mut copied = 0;
        let tensors = &self.graph.metadata.inputs;
        for ((buffer, input), tensor) in self.buffers.iter_mut().zip(inputs).zip(tensors) {
            let filled = buffer.fill(input.payload);
            filled.map_err(|reason| failed(format!("input {:?}: {reason}", tensor.name)))?;
            copied += input.payload.byte_size() as u64;
        }
        Ok(copied)
    }

    /// Computes the outputs `wanted` of what was filled in.
    fn compute(&self, inputs: &[Input<'_>], wanted: &[usize]) -> Result<Vec<Value>, ExecuteError> {
        let mut values = Vec::with_capacity(inputs.len());
        for ((&(node, _), buffer), input) in self.graph.inputs.iter().zip(&self.buffers).zip(inputs)
        {
            let sizes = input.shape.iter().map(|&size| usize::try_from(size));
            let shape = sizes.collect::<Result<Vec<_>, _>>().map_err(failed)?;
            let view = buffer.view(&shape).map_err(failed)?;
            values.push((node, view.into()));
        }
        let nodes: Vec<_> = wanted
            .iter()
            .map(|&index| self.graph.outputs[index])
            .collect();
        let options = RunOptions::default().with_thread_pool(Some(self.pool.clone()));
        caught(|| self.graph.model.run(values, &nodes, Some(options)))
            .map_err(failed)?
            .map_err(failed)
    }
}

impl Instance for RtenInstance {
    fn run(
        &mut self,
        execution: Execution<'_, '_>,
        sink: &mut dyn OutputSink,
    ) -> Result<Copied, ExecuteError> {
        let graph = self.graph.clone();
        execution.check(&graph.metadata)?;
        let mut copied = Copied {
            input_bytes: self.fill(execution.inputs)?,
            ..Copied::default()
        };
        let is_wanted = |output: &Output<'_>| !matches!(output, Output::Skipped);
        let wanted: Vec<usize> = (0..execution.outputs.len())
            .filter(|&index| is_wanted(&execution.outputs[index]))
            .collect();
        if wanted.is_empty() {
            return Ok(copied);
        }
        let values = self.compute(execution.inputs, &wanted)?;
        let mut result = Ok(());
        for (&index, value) in wanted.iter().zip(values) {
            let tensor = &graph.metadata.outputs[index];
            let shape = shape_of(&value);
            let bytes = Bytes::of(value, tensor.dtype).map_err(failed)?;
            match put(
                index,
                &shape,
                &bytes,
                tensor.dtype,
                &mut execution.outputs[index],
                sink,
            ) {
                Ok(output_bytes) => copied.output_bytes += output_bytes,
                // The first error is reported, and the other outputs get their chance.
                Err(error) => result = result.and(Err(error)),
            }
        }
        result.map(|()| copied)
    }
}

/// Brings a result to where it is wanted. Returns the bytes that were copied for that.
fn put(
    index: usize,
    shape: &[i64],
    bytes: &Bytes,
    dtype: adjoin_schema::DataType,
    output: &mut Output<'_>,
    sink: &mut dyn OutputSink,
) -> Result<u64, ExecuteError> {
    let payload = bytes.payload();
    let byte_size = payload.byte_size() as u64;
    match output {
        Output::Bound {
            shape: wanted,
            payload: room,
            ..
        } => {
            if shape != *wanted || payload.byte_size() != room.byte_size() {
                let reason =
                    format!("output {index} has shape {shape:?}, and {wanted:?} was wanted");
                return Err(failed(reason));
            }
            payload.copy_to(room);
            Ok(byte_size)
        }
        Output::Unbound => {
            sink.accept(index, dtype, shape, payload)?;
            Ok(if bytes.is_converted { byte_size } else { 0 })
        }
        Output::Pieces { .. } => Err(failed(format!("output {index} is wanted in pieces"))),
        Output::Skipped => Ok(0),
    }
}

/// The engine's report of what went wrong.
fn failed(reason: impl ToString) -> ExecuteError {
    ExecuteError::Failed {
        engine: NAME,
        reason: reason.to_string(),
    }
}
