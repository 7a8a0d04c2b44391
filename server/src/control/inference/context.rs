//! What a gRPC call says beside its message: who calls and until when.

use std::sync::Arc;

use adjoin_shm::clock::now_ns;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Status};

use crate::control::deadline::timeout;
use crate::control::listen::Caller as Arrived;
use crate::control::message_budget::Charge;
use crate::oip::{Arrival, Caller};
use crate::trace::Transport;

/// Who calls.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let arrived = request.extensions().get::<Arrived>();
    let arrived = arrived.ok_or_else(|| Status::internal("the caller is not known"))?;
    Ok(arrived.of_protocol())
}

/// What the call is charged for its message.
pub(super) fn charge(extensions: &Extensions) -> Result<Arc<Charge>, Status> {
    let charge = extensions.get::<Arc<Charge>>().cloned();
    charge.ok_or_else(|| Status::internal("the call is not charged"))
}

/// How the call came.
pub(super) fn arrival(metadata: &MetadataMap) -> Arrival<'_> {
    let traceparent = metadata.get("traceparent");
    Arrival {
        transport: Transport::Grpc,
        deadline_ns: deadline_ns(metadata),
        traceparent: traceparent.and_then(|value| value.to_str().ok()),
    }
}

/// When the caller stops waiting, on the clock of deadlines; 0 for never. The call is ended then; the batcher knows
/// early what is not worth starting.
fn deadline_ns(metadata: &MetadataMap) -> u64 {
    timeout(metadata.as_ref()).map_or(0, |timeout| {
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        now_ns().saturating_add(timeout_ns)
    })
}
