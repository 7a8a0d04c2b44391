//! All sessions, and how much memory each user's may hold.
//!
//! The server touches a session's pages first, so they are charged to it; the quota is what keeps one
//! user from filling the server's memory. A share is given back when the session's memory is gone, which
//! is when the last run that touches it has ended. Beside the quotas, which are numbers that somebody chose, the memory budget
//! looks at what the control group has left.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use adjoin_schema::descriptor::Rejection;
use adjoin_schema::status::Status;
use parking_lot::{Mutex, RwLock};

use super::Session;
use super::budget::{MemoryAccount, MemoryBudget};
use crate::log_limit::LogLimit;

/// What all sessions together, and those of one user, may hold.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// Sessions at once.
    pub session_count_max: usize,
    /// Region bytes of one session.
    pub session_bytes_max: u64,
    /// Region bytes of one user's sessions.
    pub user_bytes_max: u64,
    /// Region bytes of all sessions.
    pub total_bytes_max: u64,
}

#[derive(Debug, Default)]
struct Held {
    by_user: HashMap<u32, u64>,
    total_bytes: u64,
    sessions: usize,
}

/// A session's share of the quota; given back on drop.
#[derive(Debug)]
pub struct QuotaGrant {
    held: Arc<Mutex<Held>>,
    uid: u32,
    byte_size: u64,
}

impl Drop for QuotaGrant {
    fn drop(&mut self) {
        let mut held = self.held.lock();
        held.total_bytes -= self.byte_size;
        held.sessions -= 1;
        if let Some(bytes) = held.by_user.get_mut(&self.uid) {
            *bytes -= self.byte_size;
            if *bytes == 0 {
                held.by_user.remove(&self.uid);
            }
        }
    }
}

/// All sessions by number.
#[derive(Debug)]
pub struct SessionTable {
    limits: SessionLimits,
    budget: MemoryBudget,
    held: Arc<Mutex<Held>>,
    sessions: RwLock<BTreeMap<u64, Arc<Session>>>,
    next_id: AtomicU64,
}

impl SessionTable {
    /// No sessions.
    #[must_use]
    pub fn new(limits: SessionLimits, budget: MemoryBudget) -> Self {
        let next_id = AtomicU64::new(1);
        Self {
            limits,
            budget,
            held: Arc::default(),
            sessions: RwLock::default(),
            next_id,
        }
    }

    /// A fresh session number.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Reserves a session's share of the quota, and sees whether the control group has its memory.
    ///
    /// # Errors
    /// `TooManySessions`; `MemoryQuotaExceeded` or `MemoryBudgetExceeded` with what is left.
    pub fn grant(&self, uid: u32, byte_size: u64) -> Result<QuotaGrant, Rejection> {
        let grant = self.grant_quota(uid, byte_size)?;
        // Without the lock, as files are read. Sessions are opened by one thread, so nobody takes meanwhile what is left.
        self.check_budget(byte_size)?;
        Ok(grant)
    }

    fn grant_quota(&self, uid: u32, byte_size: u64) -> Result<QuotaGrant, Rejection> {
        let limits = &self.limits;
        let mut held = self.held.lock();
        if held.sessions >= limits.session_count_max {
            return Err(Rejection::new(
                Status::TooManySessions,
                [limits.session_count_max as u64, 0],
            ));
        }
        let users = held.by_user.get(&uid).copied().unwrap_or(0);
        let left = limits
            .session_bytes_max
            .min(limits.user_bytes_max.saturating_sub(users))
            .min(limits.total_bytes_max.saturating_sub(held.total_bytes));
        if byte_size > left {
            return Err(Rejection::new(
                Status::MemoryQuotaExceeded,
                [byte_size, left],
            ));
        }
        held.sessions += 1;
        held.total_bytes += byte_size;
        *held.by_user.entry(uid).or_insert(0) += byte_size;
        Ok(QuotaGrant {
            held: Arc::clone(&self.held),
            uid,
            byte_size,
        })
    }

    fn check_budget(&self, byte_size: u64) -> Result<(), Rejection> {
        static LIMIT: LogLimit = LogLimit::per_second(1);
        let Some((account, left)) = self.budget() else {
            return Ok(());
        };
        if byte_size <= left {
            return Ok(());
        }
        if LIMIT.admits() {
            tracing::warn!(
                byte_size,
                left,
                used = account.limit.used,
                budget = account.budget,
                limit = account.limit.bytes,
                "refused a session: the memory limit of the control group has no room for it"
            );
        }
        Err(Rejection::new(
            Status::MemoryBudgetExceeded,
            [byte_size, left],
        ))
    }

    /// What the memory budget comes to now, and the bytes of it that a new session may take; `None` without a limit.
    pub fn budget(&self) -> Option<(MemoryAccount, u64)> {
        let account = self.budget.account()?;
        // Pages that sessions do not have yet, or whose holes a client has punched, are charged when they are touched.
        let untouched: u64 = (self.sessions.read().values())
            .map(|session| session.memory().untouched_bytes())
            .sum();
        Some((account, account.left().saturating_sub(untouched)))
    }

    /// Adds a session to the list.
    pub fn insert(&self, session: Arc<Session>) {
        self.sessions.write().insert(session.id(), session);
    }

    /// Takes a session off the list.
    pub fn remove(&self, id: u64) -> Option<Arc<Session>> {
        self.sessions.write().remove(&id)
    }

    /// The session of that number.
    pub fn get(&self, id: u64) -> Option<Arc<Session>> {
        self.sessions.read().get(&id).cloned()
    }

    /// All sessions.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.sessions.read().values().cloned().collect()
    }

    /// Sessions whose memory is held, and its bytes: also those that ended and still run something.
    pub fn held(&self) -> (usize, u64) {
        let held = self.held.lock();
        (held.sessions, held.total_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::tests::Groups;

    fn table(budget: MemoryBudget) -> SessionTable {
        let limits = SessionLimits {
            session_count_max: 3,
            session_bytes_max: 100,
            user_bytes_max: 150,
            total_bytes_max: 220,
        };
        SessionTable::new(limits, budget)
    }

    #[test]
    fn a_full_quota_says_what_is_left_and_comes_back() {
        let table = table(MemoryBudget::default());
        let refused = |uid, bytes| table.grant(uid, bytes).unwrap_err();
        let first = table.grant(1, 100).unwrap();
        assert_eq!(
            refused(1, 60),
            Rejection::new(Status::MemoryQuotaExceeded, [60, 50])
        );
        assert_eq!(
            refused(2, 101),
            Rejection::new(Status::MemoryQuotaExceeded, [101, 100])
        );
        let second = table.grant(2, 100).unwrap();
        assert_eq!(
            refused(3, 30),
            Rejection::new(Status::MemoryQuotaExceeded, [30, 20])
        );
        let third = table.grant(3, 20).unwrap();
        assert_eq!(
            refused(3, 0),
            Rejection::new(Status::TooManySessions, [3, 0])
        );
        drop((first, second, third));
        assert_eq!(table.held(), (0, 0));
        assert_eq!(table.grant(1, 100).map(|grant| grant.byte_size), Ok(100));
    }

    #[test]
    fn what_the_control_group_lacks_is_refused_and_leaves_the_quota_as_it_was() {
        let groups = Groups::new(&[("memory.max", "1000"), ("memory.current", "860")]);
        let table = table(MemoryBudget::new(groups.version_2("/"), 90));
        assert_eq!(
            table.grant(1, 41).unwrap_err(),
            Rejection::new(Status::MemoryBudgetExceeded, [41, 40])
        );
        assert_eq!(table.held(), (0, 0));
        let granted = table.grant(1, 40).unwrap();
        // As it would be when the pages are touched.
        groups.put(&[("memory.current", "900")]);
        assert_eq!(
            table.grant(2, 1).unwrap_err(),
            Rejection::new(Status::MemoryBudgetExceeded, [1, 0])
        );
        // A quota is told first: it is the operator's word, and holds whatever the group has left.
        assert_eq!(
            table.grant(1, 101).unwrap_err().status,
            Status::MemoryQuotaExceeded
        );
        groups.put(&[("memory.current", "860")]);
        drop(granted);
        assert!(table.grant(2, 40).is_ok());
    }
}
