//! What a gRPC call says beside its message: who calls and until when.

use adjoin_shm::clock::now_ns;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use crate::control::listen::Caller as Arrived;
use crate::oip::{Arrival, Caller};
use crate::trace::Transport;

/// Who calls.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let arrived = request.extensions().get::<Arrived>();
    let arrived = arrived.ok_or_else(|| Status::internal("the caller is not known"))?;
    Ok(arrived.of_protocol())
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

/// When the caller stops waiting, on the clock of deadlines; 0 for never. The transport itself ends the call then; the
/// batcher knows early what is not worth starting.
fn deadline_ns(metadata: &MetadataMap) -> u64 {
    let timeout = metadata
        .get("grpc-timeout")
        .and_then(|value| value.to_str().ok());
    timeout
        .and_then(timeout_ns)
        .map_or(0, |timeout| now_ns().saturating_add(timeout))
}

/// At most eight digits and a unit, says the protocol of gRPC.
fn timeout_ns(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let ns: u64 = match unit {
        "H" => 3_600_000_000_000,
        "M" => 60_000_000_000,
        "S" => 1_000_000_000,
        "m" => 1_000_000,
        "u" => 1_000,
        "n" => 1,
        _ => return None,
    };
    Some(digits.parse::<u64>().ok()?.saturating_mul(ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_digits_and_a_unit() {
        assert_eq!(timeout_ns("100m"), Some(100_000_000));
        assert_eq!(timeout_ns("2S"), Some(2_000_000_000));
        assert_eq!(timeout_ns("99999999H"), Some(u64::MAX));
        for wrong in ["", "m", "1", "1x", "-1S", "123456789S", "1ü"] {
            assert_eq!(timeout_ns(wrong), None, "{wrong}");
        }
    }
}
