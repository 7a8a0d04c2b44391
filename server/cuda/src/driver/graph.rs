//! Work that is captured once and launched many times.

use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{CUgraph, CUgraphExec, CUstreamCaptureMode};

use super::context::Context;
use super::hold::Hold;
use super::stream::Stream;
use crate::error::CudaError;

/// An executable graph and all that its work touches.
#[derive(Debug)]
pub(crate) struct GraphParts {
    context: Arc<Context>,
    raw: CUgraphExec,
    #[expect(dead_code, reason = "there to be dropped with the graph")]
    holds: Vec<Hold>,
}

// SAFETY: a graph belongs to no thread.
unsafe impl Send for GraphParts {}
// SAFETY: launches from several threads are serialised by the streams that they go to; nothing changes the graph.
unsafe impl Sync for GraphParts {}

/// Work of a stream as one unit: one launch in place of many, with the addresses that it had when it was captured.
#[derive(Clone, Debug)]
pub struct Graph {
    pub(super) parts: Arc<GraphParts>,
}

impl Graph {
    /// Generation of the device's context that this belongs to.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.parts.context.generation()
    }
}

/// Starts to record instead of to run what this thread enqueues in `stream`.
pub(super) fn begin_capture(stream: &Stream) -> Result<(), CudaError> {
    let entered = stream.context().enter()?;
    // Of this thread only: others may allocate meanwhile, which a global capture would make an error.
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    // SAFETY: the stream belongs to the context that was entered.
    let status = unsafe { (entered.table().cuStreamBeginCapture_v2)(stream.raw(), mode) };
    entered.check("cuStreamBeginCapture_v2", status)
}

/// Ends a capture, and makes what was recorded executable. `holds` is what the recorded work touches.
pub(super) fn end_capture(stream: &Stream, holds: Vec<Hold>) -> Result<Graph, CudaError> {
    let context = stream.context();
    let entered = context.enter()?;
    let mut recorded: CUgraph = ptr::null_mut();
    // SAFETY: the stream belongs to the context that was entered; the graph goes where it is told.
    let status = unsafe { (entered.table().cuStreamEndCapture)(stream.raw(), &raw mut recorded) };
    entered.check("cuStreamEndCapture", status)?;
    let mut raw: CUgraphExec = ptr::null_mut();
    // SAFETY: the graph was recorded just now; the executable one goes where it is told.
    let status =
        unsafe { (entered.table().cuGraphInstantiateWithFlags)(&raw mut raw, recorded, 0) };
    let made = entered.check("cuGraphInstantiateWithFlags", status);
    // SAFETY: the recorded graph is not needed beside the executable one.
    let _ = unsafe { (entered.table().cuGraphDestroy)(recorded) };
    made?;
    drop(entered);
    Ok(Graph {
        parts: Arc::new(GraphParts {
            context: context.clone(),
            raw,
            holds,
        }),
    })
}

/// Gives up a capture after an error.
pub(super) fn abandon_capture(stream: &Stream) {
    let Ok(entered) = stream.context().enter() else {
        return;
    };
    let mut recorded: CUgraph = ptr::null_mut();
    // SAFETY: as in `end_capture`.
    let status = unsafe { (entered.table().cuStreamEndCapture)(stream.raw(), &raw mut recorded) };
    if status == 0 && !recorded.is_null() {
        // SAFETY: the graph is not used.
        let _ = unsafe { (entered.table().cuGraphDestroy)(recorded) };
    }
}

/// Enqueues all work of `graph`. The caller holds the graph until the work is done.
pub(super) fn launch(graph: &Graph, stream: &Stream) -> Result<(), CudaError> {
    let entered = stream.context().enter()?;
    // SAFETY: graph and stream are alive, and of one context: the lane has compared them.
    let status = unsafe { (entered.table().cuGraphLaunch)(graph.parts.raw, stream.raw()) };
    entered.check("cuGraphLaunch", status)
}

impl Drop for GraphParts {
    fn drop(&mut self) {
        if let Ok(entered) = self.context.enter() {
            // SAFETY: the graph is this value's own; each launch holds it until its event.
            let _ = unsafe { (entered.table().cuGraphExecDestroy)(self.raw) };
        }
    }
}
