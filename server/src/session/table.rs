//! All sessions, and how much memory each user's may hold.
//!
//! The server touches a session's pages first, so they are charged to it; the quota is what keeps one
//! user from filling the server's memory. A share is given back when the session's memory is gone, which
//! is when the last run that touches it has ended.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use adjoin_schema::descriptor::Rejection;
use adjoin_schema::status::Status;
use parking_lot::{Mutex, RwLock};

use super::Session;

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
    held: Arc<Mutex<Held>>,
    sessions: RwLock<BTreeMap<u64, Arc<Session>>>,
    next_id: AtomicU64,
}

impl SessionTable {
    /// No sessions.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Self {
        let next_id = AtomicU64::new(1);
        Self {
            limits,
            held: Arc::default(),
            sessions: RwLock::default(),
            next_id,
        }
    }

    /// A fresh session number.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Reserves a session's share of the quota.
    ///
    /// # Errors
    /// `TooManySessions` or `MemoryQuotaExceeded` with what is left.
    pub fn grant(&self, uid: u32, byte_size: u64) -> Result<QuotaGrant, Rejection> {
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

    fn table() -> SessionTable {
        SessionTable::new(SessionLimits {
            session_count_max: 3,
            session_bytes_max: 100,
            user_bytes_max: 150,
            total_bytes_max: 220,
        })
    }

    #[test]
    fn a_full_quota_says_what_is_left_and_comes_back() {
        let table = table();
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
}
