//! Requests of the short forms, kept from one call to the next: prepared, and in their place.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::core::Core;

/// Most idle requests of one model: as many as a session has in flight unless it asks for more.
const IDLE_MAX: usize = 256;

/// Idle requests of one model; nobody has arrays over them.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: Mutex<Vec<Arc<Core>>>,
}

impl Pool {
    /// A request with these shapes and wanted outputs; the one that was used last.
    pub(crate) fn take(&self, shapes: &[&[i64]], outputs: &[String]) -> Option<Arc<Core>> {
        let mut idle = self.idle.lock();
        let is_alike = |core: &Arc<Core>| {
            let is_alike = core.with_plan(|plan| plan.is_alike(shapes, outputs));
            is_alike.unwrap_or(false)
        };
        let index = idle.iter().rposition(is_alike)?;
        Some(idle.remove(index))
    }

    pub(crate) fn give(&self, core: Arc<Core>) {
        if core.connection.is_closed() {
            return;
        }
        let mut idle = self.idle.lock();
        let oldest = (idle.len() >= IDLE_MAX).then(|| idle.remove(0));
        idle.push(core);
        drop(idle);
        drop(oldest);
    }

    /// Gives all of their memory back; whether there was any.
    pub(crate) fn clear(&self) -> bool {
        let idle = std::mem::take(&mut *self.idle.lock());
        !idle.is_empty()
    }
}
