//! Which sizes of a batch have a graph.
//!
//! A graph is gather, the making of inputs of pixels, plan and scatter in one launch, captured for one set of shapes: no row
//! of it is without a request. TensorRT asks for a run of the shapes before a capture, and a capture takes as long as some
//! runs, so a size gets its graph when it comes for the second time, and only if it is small: a large batch is bound by its
//! copies, which the copy engine does better than the graph's kernel.

use std::collections::HashMap;

use adjoin_cuda::{BatchGraph, BatchSlot, CudaError, DeviceBuffer, Lane, NormalizeInput};
use adjoin_schema::Shape;
use smallvec::SmallVec;

use crate::instance::EnqueueError;

/// The shapes of all inputs.
pub(crate) type Shapes = SmallVec<[Shape; 4]>;

/// Most sizes with a graph, each of which holds memory of the driver.
const GRAPHS_MAX: usize = 64;
/// Bytes of all inputs and outputs up to which a batch is captured.
const GRAPH_BYTES_MAX: usize = 1 << 20;

/// What is known of a size.
#[derive(Debug)]
enum Known {
    /// It ran once.
    Once,
    Captured(BatchGraph),
    /// It cannot be captured.
    Never,
}

#[derive(Debug, Default)]
pub(crate) struct Graphs {
    sizes: HashMap<Shapes, Known>,
}

/// How to run a batch.
#[derive(Debug)]
pub(crate) enum Step {
    Replay(BatchGraph),
    Enqueue,
}

impl Graphs {
    /// How to run a batch of these shapes, `byte_size` bytes of inputs and outputs, which makes the inputs in `made` of
    /// pixels; captures it if it is time.
    pub(crate) fn step(
        &mut self,
        shapes: Shapes,
        byte_size: usize,
        slot: &mut BatchSlot,
        made: &[NormalizeInput],
        enqueue: &mut impl FnMut(
            &mut Lane,
            &[DeviceBuffer],
            &[DeviceBuffer],
        ) -> Result<(), EnqueueError>,
    ) -> Result<Step, CudaError> {
        let is_full = self.sizes.len() >= GRAPHS_MAX && !self.sizes.contains_key(&shapes);
        if byte_size > GRAPH_BYTES_MAX || is_full {
            return Ok(Step::Enqueue);
        }
        match self.sizes.get_mut(&shapes) {
            None => {
                self.sizes.insert(shapes, Known::Once);
                Ok(Step::Enqueue)
            }
            Some(Known::Captured(graph)) => Ok(Step::Replay(graph.clone())),
            Some(Known::Never) => Ok(Step::Enqueue),
            Some(known @ Known::Once) => match slot.capture(made, enqueue) {
                Ok(graph) => {
                    *known = Known::Captured(graph.clone());
                    Ok(Step::Replay(graph))
                }
                Err(EnqueueError::Cuda(error)) if error.is_sticky() => Err(error),
                Err(_) => {
                    // A plan may do what cannot be recorded.
                    *known = Known::Never;
                    Ok(Step::Enqueue)
                }
            },
        }
    }
}
