//! The first runs of an instance, before any client waits for one: memory gets its pages, execution
//! times become known, and outputs whose shape is not what the model's file says are found out.

use adjoin_backend::{Dimension, Execution, Input, Output, OutputSink, SinkError, TensorMetadata};
use adjoin_schema::{DataType, Shape};
use adjoin_shm::clock::now_ns;
use adjoin_shm::{AlignedBuffer, Payload};

use crate::model::{InputFacts, InstanceSlot, Resolved, Signature, Timing};

/// Runs at one row and at the most rows, on zeros, and at the sizes that the engine `prepares`. Dimensions other than the
/// batch that the request would decide are 1; if the model cannot run with that, warm-up is skipped, and only then.
pub(super) fn run(
    signature: &mut Signature,
    instance: &mut InstanceSlot,
    timing: &Timing,
    prepared: &[u32],
) -> Result<(), String> {
    let is_guess = signature.metadata().inputs.iter().any(|input| {
        let rest = usize::from(signature.max_batch_size() > 0);
        input
            .dimensions
            .iter()
            .skip(rest)
            .any(|dimension| dimension.or_open() < 0)
    });
    match run_sizes(signature, instance, timing, prepared) {
        Err(reason) if is_guess => {
            tracing::debug!(
                reason,
                "warm-up with dimensions of 1 failed; the first requests will be slower"
            );
            Ok(())
        }
        other => other,
    }
}

fn run_sizes(
    signature: &mut Signature,
    instance: &mut InstanceSlot,
    timing: &Timing,
    prepared: &[u32],
) -> Result<(), String> {
    let most = signature.max_batch_size();
    for output in find_surprises(signature, instance, 1.max(most.min(2)))? {
        tracing::warn!(
            output = signature.metadata().outputs[output].name,
            "the model's file is wrong about the shape of this output; it is copied once per request"
        );
        signature.mark_unpredictable(output);
    }
    // The first run of a size allocates in the engine, and chooses how to compute; the second shows its time.
    for &rows in prepared {
        run_bound(signature, instance, rows)?;
    }
    run_bound(signature, instance, 1)?;
    for rows in [1, most.max(1)] {
        run_bound(signature, instance, rows)?.observe(timing);
    }
    Ok(())
}

fn shapes(signature: &Signature, rows: u32) -> Vec<Shape> {
    let shape = |tensor: &TensorMetadata| {
        let size = |(index, dimension): (usize, &Dimension)| match dimension {
            Dimension::Fixed(size) => *size,
            _ if index == 0 && signature.max_batch_size() > 0 => i64::from(rows),
            Dimension::Named(_) | Dimension::Unknown => 1,
        };
        tensor.dimensions.iter().enumerate().map(size).collect()
    };
    signature.metadata().inputs.iter().map(shape).collect()
}

/// Bytes of zeros for an input: strings get an empty one for each element.
fn zero_bytes(dtype: DataType, shape: &[i64]) -> Result<usize, String> {
    let bytes = match dtype.byte_size(shape).map_err(|error| error.to_string())? {
        Some(bytes) => bytes,
        None => 4 * adjoin_schema::element_count(shape).map_err(|error| error.to_string())?,
    };
    usize::try_from(bytes).map_err(|error| error.to_string())
}

fn reserve_inputs(
    signature: &Signature,
    instance: &mut InstanceSlot,
    shapes: &[Shape],
) -> Result<Vec<usize>, String> {
    let mut sizes = Vec::new();
    for ((input, shape), buffer) in signature
        .metadata()
        .inputs
        .iter()
        .zip(shapes)
        .zip(&mut instance.inputs)
    {
        let bytes = zero_bytes(input.dtype, shape)?;
        buffer.reserve(bytes).map_err(|error| error.to_string())?;
        sizes.push(bytes);
    }
    Ok(sizes)
}

fn inputs<'a>(
    signature: &Signature,
    buffers: &'a [AlignedBuffer],
    shapes: &'a [Shape],
    sizes: &[usize],
) -> Vec<Input<'a>> {
    let specs = signature.metadata().inputs.iter();
    let zipped = specs.zip(shapes).zip(buffers).zip(sizes);
    zipped
        .map(|(((spec, shape), buffer), &bytes)| {
            Input::whole(spec.dtype, shape, buffer.payload(bytes))
        })
        .collect()
}

fn resolve(signature: &Signature, shapes: &[Shape], sizes: &[usize]) -> Result<Resolved, String> {
    let zipped = signature.metadata().inputs.iter().zip(shapes).zip(sizes);
    let facts: Vec<InputFacts<'_>> = zipped
        .map(|((spec, shape), &bytes)| InputFacts {
            name: &spec.name,
            dtype: spec.dtype,
            shape,
            byte_size: bytes as u64,
        })
        .collect();
    signature
        .resolve(&facts, &[])
        .map_err(|rejection| rejection.to_string())
}

/// Collects the shapes that outputs turn out to have.
#[derive(Default)]
struct Shapes(Vec<(usize, Shape)>);

impl OutputSink for Shapes {
    fn accept(
        &mut self,
        index: usize,
        _: DataType,
        shape: &[i64],
        _: Payload<'_>,
    ) -> Result<(), SinkError> {
        self.0.push((index, shape.into()));
        Ok(())
    }
}

/// Outputs whose shape in a run differs from what follows from the model's file.
fn find_surprises(
    signature: &Signature,
    instance: &mut InstanceSlot,
    rows: u32,
) -> Result<Vec<usize>, String> {
    let shapes = shapes(signature, rows);
    let sizes = reserve_inputs(signature, instance, &shapes)?;
    let resolved = resolve(signature, &shapes, &sizes)?;
    let inputs = inputs(signature, &instance.inputs, &shapes, &sizes);
    let mut outputs: Vec<Output<'_>> = resolved.outputs.iter().map(|_| Output::Unbound).collect();
    let mut seen = Shapes::default();
    let execution = Execution {
        key: None,
        inputs: &inputs,
        outputs: &mut outputs,
    };
    instance
        .engine
        .run(execution, &mut seen)
        .map_err(|error| error.to_string())?;
    let differs = |(index, shape): &(usize, Shape)| {
        resolved.outputs[*index]
            .known
            .as_ref()
            .is_some_and(|(known, _)| known != shape)
    };
    Ok(seen
        .0
        .iter()
        .filter(|seen| differs(seen))
        .map(|(index, _)| *index)
        .collect())
}

/// A run that was made.
pub(super) struct Ran {
    rows: u32,
    execute_ns: u64,
    input_bytes: u64,
}

impl Ran {
    /// Takes its time as one that others will take.
    pub(super) fn observe(&self, timing: &Timing) {
        timing.observe(self.rows, self.execute_ns);
        timing.observe_inputs(self.rows, self.input_bytes);
    }
}

fn run_bound(signature: &Signature, instance: &mut InstanceSlot, rows: u32) -> Result<Ran, String> {
    let shapes = shapes(signature, rows);
    let sizes = reserve_inputs(signature, instance, &shapes)?;
    run_filled(signature, instance, &shapes, &sizes)
}

/// Runs on what the input buffers of the instance hold, `sizes` bytes each.
pub(super) fn run_filled(
    signature: &Signature,
    instance: &mut InstanceSlot,
    shapes: &[Shape],
    sizes: &[usize],
) -> Result<Ran, String> {
    let resolved = resolve(signature, shapes, sizes)?;
    for (output, buffer) in resolved.outputs.iter().zip(&mut instance.outputs) {
        if let Some((_, bytes)) = &output.known {
            let bytes = usize::try_from(*bytes).map_err(|error| error.to_string())?;
            buffer.reserve(bytes).map_err(|error| error.to_string())?;
        }
    }
    let inputs = inputs(signature, &instance.inputs, shapes, sizes);
    let mut outputs: Vec<Output<'_>> = (resolved.outputs.iter().zip(&mut instance.outputs))
        .map(|(output, buffer)| match &output.known {
            Some((shape, bytes)) => {
                let payload = buffer.payload_mut(usize::try_from(*bytes).unwrap_or(0));
                Output::Bound {
                    dtype: output.dtype,
                    shape,
                    payload,
                }
            }
            None => Output::Unbound,
        })
        .collect();
    let start_ns = now_ns();
    let execution = Execution {
        key: None,
        inputs: &inputs,
        outputs: &mut outputs,
    };
    instance
        .engine
        .run(execution, &mut Shapes::default())
        .map_err(|error| error.to_string())?;
    Ok(Ran {
        rows: resolved.rows,
        execute_ns: now_ns() - start_ns,
        input_bytes: sizes.iter().map(|&size| size as u64).sum(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use adjoin_backend::{Copied, ExecuteError, InputAccess, Instance, ModelMetadata};

    use super::*;

    /// Notes the rows of each run.
    #[derive(Debug, Default)]
    struct Noting(Arc<Mutex<Vec<i64>>>);

    impl Instance for Noting {
        fn run(
            &mut self,
            execution: Execution<'_, '_>,
            _: &mut dyn OutputSink,
        ) -> Result<Copied, ExecuteError> {
            self.0.lock().unwrap().push(execution.inputs[0].shape[0]);
            Ok(Copied::default())
        }
    }

    fn rows_of_warm_up(max_batch_size: u32, prepared: &[u32]) -> Vec<i64> {
        let tensor = |name: &str| TensorMetadata {
            name: name.into(),
            dtype: DataType::Fp32,
            dimensions: vec![Dimension::Unknown, Dimension::Fixed(4)],
            access: InputAccess::InPlace,
        };
        let metadata = ModelMetadata {
            inputs: vec![tensor("x")],
            outputs: vec![tensor("y")],
        };
        let mut signature = Signature::new(metadata.clone(), max_batch_size);
        let noted = Noting::default();
        let rows = Arc::clone(&noted.0);
        let mut instance = InstanceSlot::new(Box::new(noted), &metadata);
        run(&mut signature, &mut instance, &Timing::new(true), prepared).unwrap();
        rows.lock().unwrap().clone()
    }

    #[test]
    fn what_an_engine_prepares_for_is_run_before_times_are_taken() {
        // The first run looks for outputs of other shapes.
        assert_eq!(rows_of_warm_up(8, &[]), [2, 1, 1, 8]);
        assert_eq!(rows_of_warm_up(8, &[1, 4, 8]), [2, 1, 4, 8, 1, 1, 8]);
    }
}
