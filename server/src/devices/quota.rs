//! How much memory of the device clients may share with the server. It is theirs, but as long as the server has it mapped
//! it is not given back when they free it, or end.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{DeviceError, DeviceSettings};

/// Who shares memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sharer {
    /// The user.
    pub uid: u32,
    /// Number of the session.
    pub session: u64,
}

/// What is shared.
#[derive(Debug, Default)]
struct Held {
    user_bytes: HashMap<u32, u64>,
    /// Regions and bytes of each session.
    sessions: HashMap<u64, (usize, u64)>,
}

/// What all share; clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct DeviceQuota(Arc<Mutex<Held>>);

/// A region's share of the quota; given back on drop.
#[derive(Debug)]
pub(super) struct Share {
    quota: DeviceQuota,
    sharer: Sharer,
    byte_size: u64,
}

impl DeviceQuota {
    /// Takes the share of a region.
    ///
    /// # Errors
    /// If the session has as many regions as it may, or it or its user as many bytes.
    pub(super) fn take(
        &self,
        settings: &DeviceSettings,
        sharer: Sharer,
        byte_size: u64,
    ) -> Result<Share, DeviceError> {
        let mut held = self.0.lock();
        let users = held.user_bytes.get(&sharer.uid).copied().unwrap_or(0);
        let (regions, bytes) = (held.sessions.get(&sharer.session))
            .copied()
            .unwrap_or_default();
        let limit = settings.shared_regions;
        if regions >= limit as usize {
            return Err(DeviceError::TooManyRegions { limit });
        }
        let left = (settings.shared_user_bytes.saturating_sub(users))
            .min(settings.shared_session_bytes.saturating_sub(bytes));
        if byte_size > left {
            let wanted = byte_size;
            return Err(DeviceError::Quota { wanted, left });
        }
        held.user_bytes.insert(sharer.uid, users + byte_size);
        let sessions = (regions + 1, bytes + byte_size);
        held.sessions.insert(sharer.session, sessions);
        Ok(Share {
            quota: self.clone(),
            sharer,
            byte_size,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Sharer { uid, session } = self.sharer;
        let mut held = self.quota.0.lock();
        if let Some(bytes) = held.user_bytes.get_mut(&uid) {
            *bytes -= self.byte_size;
            if *bytes == 0 {
                held.user_bytes.remove(&uid);
            }
        }
        if let Some((regions, bytes)) = held.sessions.get_mut(&session) {
            (*regions, *bytes) = (*regions - 1, *bytes - self.byte_size);
            if *regions == 0 {
                held.sessions.remove(&session);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SETTINGS: DeviceSettings = DeviceSettings {
        device: 0,
        registered_bytes: 0,
        staging_bytes: 0,
        recovery_attempts: 0,
        spin: Duration::ZERO,
        shared_regions: 2,
        shared_session_bytes: 100,
        shared_user_bytes: 150,
    };

    fn sharer(uid: u32, session: u64) -> Sharer {
        Sharer { uid, session }
    }

    #[test]
    fn each_limit_says_what_is_left_and_comes_back() {
        let quota = DeviceQuota::default();
        let take = |sharer, byte_size| quota.take(&SETTINGS, sharer, byte_size);
        let refused = |sharer, byte_size| take(sharer, byte_size).unwrap_err().to_string();
        assert!(refused(sharer(1, 1), 101).contains("101 bytes"));
        let first = take(sharer(1, 1), 90).unwrap();
        assert!(refused(sharer(1, 1), 11).contains("10 are left"));
        let second = take(sharer(1, 2), 50).unwrap();
        // The user's, though the session has more.
        assert!(refused(sharer(1, 2), 11).contains("10 are left"));
        let third = take(sharer(1, 1), 10).unwrap();
        assert!(refused(sharer(1, 1), 0).contains("2 regions"));
        assert!(take(sharer(2, 3), 100).is_ok());
        drop((first, second, third));
        assert!(take(sharer(1, 1), 100).is_ok());
        let held = quota.0.lock();
        assert!(held.user_bytes.is_empty() && held.sessions.is_empty());
    }
}
