//! The health service's word on each model: SERVING while a version of it takes requests.

use std::collections::BTreeSet;

use adjoin_oip::VersionChoice;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::{Phase, Shared};

/// Keeps the health of all models as it is until the server drains.
pub(super) async fn tell(health: HealthReporter, shared: Shared) {
    let mut changes = shared.manager.changes();
    let mut known = BTreeSet::new();
    loop {
        changes.borrow_and_update();
        let models = shared.engine.models().snapshot();
        let is_ready = |name: &String| shared.oip.is_model_ready(name, &VersionChoice::Any);
        let ready: BTreeSet<String> = models
            .keys()
            .filter(|name| is_ready(name))
            .cloned()
            .collect();
        for name in ready.difference(&known) {
            health
                .set_service_status(name, ServingStatus::Serving)
                .await;
        }
        for name in known.difference(&ready) {
            health
                .set_service_status(name, ServingStatus::NotServing)
                .await;
        }
        known = ready;
        tokio::select! {
            () = shared.reached(Phase::Draining) => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}
