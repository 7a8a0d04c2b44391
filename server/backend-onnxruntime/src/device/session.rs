//! A session on the device, with the stream that all its work goes to.

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use adjoin_cuda::{Stream, Transfers};
use adjoin_shm::SpinBudget;

use super::launcher::{Launcher, budget};
use crate::raw::device::DeviceRunner;

/// Most graphs of a session, if its usual ones are not more. Each holds memory of the driver.
const GRAPHS_MAX: usize = 64;
/// Further ones: for outputs that not everybody wants, and the one of the trial.
const SPARE_GRAPHS: usize = 16;

/// A session that the slots of an instance share.
#[derive(Debug)]
pub(crate) struct DeviceSession {
    // The session comes first: it is dropped before the stream that it enqueues in.
    launcher: Launcher,
    stream: Stream,
    /// Held while a batch is enqueued; for its wait for the launcher.
    turn: Mutex<SpinBudget>,
    /// For each output, the input that it is.
    handed_out: Vec<Option<usize>>,
    /// Graphs that may still be made.
    graphs_left: AtomicI32,
}

impl DeviceSession {
    /// A session that enqueues in `stream`, and captures graphs if `usual_graphs` says how many there will be at least.
    ///
    /// # Errors
    /// The system's, when it cannot start a thread.
    pub(crate) fn new(
        runner: DeviceRunner,
        stream: Stream,
        transfers: &Transfers,
        usual_graphs: Option<usize>,
    ) -> io::Result<Self> {
        let graphs = usual_graphs.map_or(0, |usual| GRAPHS_MAX.max(usual + SPARE_GRAPHS));
        Ok(Self {
            handed_out: runner.handed_out().into(),
            launcher: Launcher::start(runner, transfers.device().clone(), transfers.spin())?,
            stream,
            turn: Mutex::new(budget(transfers.spin())),
            graphs_left: AtomicI32::new(i32::try_from(graphs).unwrap_or(i32::MAX)),
        })
    }

    /// The session, for as long as a batch is enqueued: what waits for its inputs, its run, and the event behind it belong
    /// together in the stream.
    pub(crate) fn take_turn(&self) -> (MutexGuard<'_, SpinBudget>, &Launcher) {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        (turn, &self.launcher)
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The input that an output is, by their name.
    pub(crate) fn handed_out(&self, output: usize) -> Option<usize> {
        self.handed_out.get(output).copied().flatten()
    }

    /// The number of a graph that no batch has had, if there may be a further one. Numbers count from 1: at 0 the engine
    /// captures runs that name none.
    pub(crate) fn further_graph(&self) -> Option<i32> {
        let left = self
            .graphs_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                (left > 0).then(|| left - 1)
            });
        left.ok()
    }
}
