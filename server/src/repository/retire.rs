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
/// How often somebody who waits for the leader looks whether the server ends, and the leader with it.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

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
        waiting.retain(|version| !retire(engine, version, stopping));
    }
}

/// Unloads a version if it is time; false if it still drains.
fn retire(engine: &Engine, version: &Arc<ModelVersion>, stopping: &AtomicBool) -> bool {
    // The leader is asked only when there is a chance.
    if !version.is_idle() || version.is_claimed() {
        return false;
    }
    let answer = engine.retire(version);
    let retired = loop {
        match answer.recv_timeout(STOP_INTERVAL) {
            Ok(retired) => break retired,
            // The leader runs a batch. An answer that nobody takes would have him drop the model.
            Err(RecvTimeoutError::Timeout) if !stopping.load(Ordering::Acquire) => {}
            Err(_) => break None,
        }
    };
    let Some(retired) = retired else {
        return false;
    };
    drop(retired);
    engine.models().forget(version);
    tracing::info!(
        model = %version.name(),
        version = version.version(),
        "model unloaded"
    );
    true
}
