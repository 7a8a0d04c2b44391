//! What the objects of one client share: whether it is closed, and who has what of its memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::core::Core;
use crate::fault::Fault;
use crate::future::Run;
use crate::pool::Pool;

/// See the module's documentation. Its locks are held for moments, and nothing of Python's runs meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    is_closed: AtomicBool,
    cores: Mutex<Members<Core>>,
    pools: Mutex<Members<Pool>>,
    /// Runs that were submitted, oldest first.
    runs: Mutex<VecDeque<Weak<Run>>>,
}

/// Those that live, and some that do not any more.
#[derive(Debug)]
struct Members<T> {
    all: Vec<Weak<T>>,
    /// How many there may be before the dead are taken out.
    room: usize,
}

impl<T> Default for Members<T> {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            room: 16,
        }
    }
}

impl<T> Members<T> {
    fn add(&mut self, member: &Arc<T>) {
        if self.all.len() >= self.room {
            self.all.retain(|member| member.strong_count() > 0);
            self.room = 16 + 2 * self.all.len();
        }
        self.all.push(Arc::downgrade(member));
    }

    fn living(&self) -> Vec<Arc<T>> {
        self.all.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Connection {
    /// Refuses once the client is closed.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if self.is_closed() {
            return Err(Fault::ClientClosed);
        }
        Ok(())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    pub(crate) fn enter(&self, core: &Arc<Core>) {
        self.cores.lock().add(core);
    }

    pub(crate) fn enter_pool(&self, pool: &Arc<Pool>) {
        self.pools.lock().add(pool);
    }

    pub(crate) fn enter_run(&self, run: &Arc<Run>) {
        let mut runs = self.runs.lock();
        while runs
            .front()
            .is_some_and(|run| run.upgrade().is_none_or(|run| run.is_settled()))
        {
            runs.pop_front();
        }
        runs.push_back(Arc::downgrade(run));
    }

    /// Closes the client: everything goes back that nobody has a view of.
    pub(crate) fn close(&self) {
        if self.is_closed.swap(true, Ordering::Relaxed) {
            return;
        }
        let pools = self.pools.lock().living();
        pools.iter().for_each(|pool| _ = pool.clear());
        let cores = self.cores.lock().living();
        cores.iter().for_each(|core| core.close());
    }

    /// Whether the server or a thread has one of the runs.
    pub(crate) fn is_any_under_way(&self) -> bool {
        let runs: Vec<Arc<Run>> = self.runs.lock().iter().filter_map(Weak::upgrade).collect();
        runs.iter().any(|run| run.is_under_way())
    }

    /// Has others give back what they do not need, or waits for one of them; false if there is nothing to
    /// be had that way.
    pub(crate) fn make_room(&self, py: Python<'_>, may_wait: bool) -> PyResult<bool> {
        let runs: Vec<Arc<Run>> = {
            let mut runs = self.runs.lock();
            runs.retain(|run| run.upgrade().is_some_and(|run| !run.is_settled()));
            runs.iter().filter_map(Weak::upgrade).collect()
        };
        let mut is_any_settled = false;
        for run in &runs {
            is_any_settled |= run.try_settle(py);
        }
        if is_any_settled {
            return Ok(true);
        }
        let pools = self.pools.lock().living();
        if pools.iter().filter(|pool| pool.clear()).count() > 0 {
            return Ok(true);
        }
        match runs.iter().find(|run| run.is_under_way()) {
            Some(oldest) if may_wait => oldest.wait(py, None),
            _ => Ok(false),
        }
    }
}
