//! Unloads versions once the last of their requests is over. On a thread of its own: an engine may take its time to
//! give memory back, and neither requests nor loading should wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::engine::Engine;
use crate::model::ModelVersion;

/// How often versions that drain are looked at.
const INTERVAL: Duration = Duration::from_millis(2);
/// Longest wait for the leader, who is in a short batch or about to stop.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(100);

/// Takes versions that drain until nobody sends any more, or `stopping` is set.
pub(super) fn work(engine: &Engine, draining: &Receiver<Arc<ModelVersion>>, stopping: &AtomicBool) {
    let mut waiting: Vec<Arc<ModelVersion>> = Vec::new();
    while !stopping.load(Ordering::Acquire) {
        // Without a version there is nothing to look at until one comes.
        let next = if waiting.is_empty() {
            draining.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            draining.recv_timeout(INTERVAL)
        };
        match next {
            Ok(version) => waiting.push(version),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        waiting.retain(|version| !retire(engine, version));
    }
}

/// Unloads a version if it is time; false if it still drains.
fn retire(engine: &Engine, version: &Arc<ModelVersion>) -> bool {
    // The leader is asked only when there is a chance.
    if !version.is_idle() || version.is_claimed() {
        return false;
    }
    match engine.retire(version).recv_timeout(ANSWER_TIMEOUT) {
        Ok(Some(retired)) => {
            drop(retired);
            engine.models().forget(version);
            tracing::info!(
                model = %version.name(),
                version = version.version(),
                "model unloaded"
            );
            true
        }
        Ok(None) | Err(_) => false,
    }
}
