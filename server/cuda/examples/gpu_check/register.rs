//! What registering a session's memory costs, and giving it back.

use std::time::Duration;

use serde_json::{Value, json};

use crate::Failure;
use crate::setup::{COPIES, median, microseconds, session, transfers};

pub(crate) fn run(is_quick: bool) -> Result<Value, Failure> {
    let transfers = transfers(Some(COPIES), 0)?;
    let registry = transfers.registry();
    let (sizes, turns): (&[u64], usize) = if is_quick {
        (&[1], 1)
    } else {
        (&[1, 4, 16, 64, 256], 5)
    };
    let mut rows = Vec::new();
    for &mebibytes in sizes {
        let memory = session(mebibytes << 20)?;
        let mut given_back = Vec::new();
        let registered = median(turns, || {
            let key = registry.register(memory.request());
            registry.settle();
            let start = std::time::Instant::now();
            registry.retire(key, ());
            registry.settle();
            given_back.push(start.elapsed());
            Ok(())
        })?;
        given_back.sort_unstable();
        let given_back = given_back[given_back.len() / 2];
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let each = |time: Duration| microseconds(time) / mebibytes as f64;
        rows.push(json!({
            "mebibytes": mebibytes,
            "register_us_per_mib": each(registered.saturating_sub(given_back)),
            "unregister_us_per_mib": each(given_back),
        }));
    }
    Ok(json!({ "sizes": rows }))
}
