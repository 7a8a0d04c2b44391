//! What the objects of one client share: whether it is closed, and who has what of its memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use adjoin_client::Pending;
use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::core::Core;
use crate::fault::Fault;
use crate::future::Run;
use crate::options::Patience;
use crate::pool::Pool;

/// See the module's documentation. Its locks are held for moments, and nothing of Python's runs meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    is_closed: AtomicBool,
    cores: Mutex<Members<Core>>,
    pools: Mutex<Members<Pool>>,
    /// Runs that were submitted, oldest first.
    runs: Mutex<Members<Run>>,
    /// What requests that are gone still have with the server, oldest first: their memory comes back with the answers.
    orphans: Mutex<Vec<Pending>>,
}

/// Those that are of interest, oldest first, and some that are not any more.
#[derive(Debug)]
struct Members<T> {
    all: Vec<Weak<T>>,
    /// How many there may be before the others are taken out.
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

impl<T: Member> Members<T> {
    fn add(&mut self, member: &Arc<T>) {
        if self.all.len() >= self.room {
            self.all.retain(|member| {
                member
                    .upgrade()
                    .is_some_and(|member| member.is_of_interest())
            });
            self.room = 16 + 2 * self.all.len();
        }
        self.all.push(Arc::downgrade(member));
    }

    fn living(&self) -> Vec<Arc<T>> {
        let living = self.all.iter().filter_map(Weak::upgrade);
        living.filter(|member| member.is_of_interest()).collect()
    }
}

/// What came of making room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Others gave something back.
    Made,
    /// There is nothing to be had from the runs and requests of this program.
    None,
    /// Nobody gave anything back in time.
    TooLate,
}

trait Member {
    /// Whether a connection has still something to do with it.
    fn is_of_interest(&self) -> bool {
        true
    }
}

impl Member for Core {}
impl Member for Pool {}
impl Member for Run {
    fn is_of_interest(&self) -> bool {
        !self.is_settled()
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
        self.runs.lock().add(run);
    }

    /// Remembers what a request that is gone has with the server.
    pub(crate) fn enter_orphan(&self, orphan: Pending) {
        self.orphans.lock().push(orphan);
        self.bury_orphans();
    }

    /// Gives the memory of those back that were answered; whether there were any.
    pub(crate) fn bury_orphans(&self) -> bool {
        let mut orphans = self.orphans.lock();
        if orphans.is_empty() {
            return false;
        }
        let count = orphans.len();
        orphans.retain_mut(|orphan| !orphan.is_done());
        orphans.len() < count
    }

    /// Whether anything is with the server that nobody has any more.
    pub(crate) fn has_orphans(&self) -> bool {
        !self.orphans.lock().is_empty()
    }

    /// Closes the client: everything goes back that nobody has a view of.
    pub(crate) fn close(&self) {
        if self.is_closed.swap(true, Ordering::Relaxed) {
            return;
        }
        let pools = self.pools.lock().living();
        pools.iter().for_each(|pool| _ = pool.clear());
        self.orphans.lock().clear();
        let cores = self.cores.lock().living();
        cores.iter().for_each(|core| core.close());
    }

    /// Whether the server or a thread has one of the runs.
    pub(crate) fn is_any_under_way(&self) -> bool {
        let runs = self.runs.lock().living();
        runs.iter().any(|run| run.is_under_way())
    }

    /// Has others give back what they do not need, or waits for one of them.
    pub(crate) fn make_room(&self, py: Python<'_>, patience: Patience) -> PyResult<Room> {
        let runs = self.runs.lock().living();
        let mut is_any_settled = self.bury_orphans();
        for run in &runs {
            is_any_settled |= run.try_settle(py);
        }
        if is_any_settled {
            return Ok(Room::Made);
        }
        let pools = self.pools.lock().living();
        if pools.iter().filter(|pool| pool.clear()).count() > 0 {
            return Ok(Room::Made);
        }
        let until = match patience {
            Patience::None => return Ok(Room::None),
            other => other.end(),
        };
        match runs.iter().find(|run| run.is_under_way()) {
            Some(oldest) if oldest.wait(py, until)? => Ok(Room::Made),
            Some(_) => Ok(Room::TooLate),
            None => Ok(Room::None),
        }
    }
}
