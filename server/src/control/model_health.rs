//! The health service's word on each model: SERVING while a version of it takes requests. And on the server as a whole,
//! as long as it serves: NOT_SERVING once it has given up the device of its models.

use std::collections::BTreeSet;

use adjoin_oip::VersionChoice;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::{OVERALL, Phase, READY, Shared};

/// Keeps the health of all models as it is until the server drains.
pub(super) async fn tell(health: HealthReporter, shared: Shared) {
    let mut changes = shared.manager.changes();
    let mut known = BTreeSet::new();
    let mut was_ready = true;
    loop {
        changes.borrow_and_update();
        let is_ready = shared.is_ready();
        if is_ready != was_ready && *shared.phase.borrow() == Phase::Serving {
            was_ready = is_ready;
            let status = match is_ready {
                true => ServingStatus::Serving,
                false => ServingStatus::NotServing,
            };
            for service in [OVERALL, READY] {
                health.set_service_status(service, status).await;
            }
        }
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
