//! Runs that can be cancelled from outside: a request that waits in no queue may be between two steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::Run;

/// Whether anybody waits for a run; shared with the runs within it.
#[derive(Debug, Default)]
pub(super) struct Origin {
    has_gone: AtomicBool,
}

impl Origin {
    /// Whether nobody waits for the outcome.
    pub(super) fn has_gone(&self) -> bool {
        self.has_gone.load(Ordering::Relaxed)
    }

    fn leave(&self) {
        self.has_gone.store(true, Ordering::Relaxed);
    }
}

/// The runs that are on their way, by flow and number of their requests.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    on_their_way: Mutex<FxHashMap<(u64, u64), Arc<Origin>>>,
}

impl Runs {
    /// Takes a run in, unless it is a step of another one.
    pub(crate) fn insert(&self, run: &Run) {
        if let Some((ticket, origin)) = run.outermost() {
            let key = (ticket.flow, ticket.request_id);
            self.on_their_way.lock().insert(key, Arc::clone(origin));
        }
    }

    /// Lets a run go.
    pub(crate) fn remove(&self, flow: u64, request_id: u64) {
        self.on_their_way.lock().remove(&(flow, request_id));
    }

    /// Ends a run before its next step.
    pub(crate) fn cancel(&self, flow: u64, request_id: u64) {
        if let Some(origin) = self.on_their_way.lock().get(&(flow, request_id)) {
            origin.leave();
        }
    }

    /// Ends all runs of a flow before their next steps.
    pub(crate) fn cancel_flow(&self, flow: u64) {
        let on_their_way = self.on_their_way.lock();
        let of_flow = on_their_way.iter().filter(|((of, _), _)| *of == flow);
        of_flow.for_each(|(_, origin)| origin.leave());
    }
}
