//! Sends traces to a collector, by OTLP over gRPC: a second after a second, what has gathered. Whatever the collector
//! does, requests do not notice; what it does not take in time is dropped and counted.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

use super::spans;
use crate::control::{Phase, Shared};
use crate::log_limit::LogLimit;

/// How long traces gather.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the collector may take for one message.
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests of one message: five spans each, so it stays well below the 4 MiB that collectors take.
const TRACES_PER_MESSAGE: usize = 512;

static FAILED_LINES: LogLimit = LogLimit::per_second(1);

/// The collector of an address, or `None` if it cannot be one.
fn collector(address: &str) -> Option<Endpoint> {
    // Without TLS features the transport would find out only when it connects.
    let is_plain = address.starts_with("http://");
    let endpoint = Endpoint::from_shared(address.to_owned()).ok();
    let endpoint = endpoint.filter(|endpoint| is_plain && endpoint.uri().host().is_some());
    endpoint.map(|endpoint| endpoint.connect_timeout(PATIENCE).timeout(PATIENCE))
}

/// Whether traces can be sent to an address.
pub(in crate::control) fn is_collector(address: &str) -> bool {
    collector(address).is_some()
}

/// Sends until the server ends, and once more then, if the configuration names a collector.
pub(in crate::control) fn spawn(shared: &Shared) -> Option<JoinHandle<()>> {
    let config = shared.config.trace.as_ref()?;
    let collector = collector(&config.otlp_endpoint)?;
    shared.engine.traces().switch_on(config.rate);
    tracing::info!(
        endpoint = config.otlp_endpoint,
        rate = config.rate,
        "sending traces"
    );
    Some(tokio::spawn(send_all(shared.clone(), collector)))
}

async fn send_all(shared: Shared, collector: Endpoint) {
    let mut client = TraceServiceClient::new(collector.connect_lazy());
    loop {
        let is_last = tokio::select! {
            () = shared.reached(Phase::Ending) => true,
            () = tokio::time::sleep(INTERVAL) => false,
        };
        send_waiting(&shared, &mut client).await;
        if is_last {
            return;
        }
    }
}

async fn send_waiting(shared: &Shared, client: &mut TraceServiceClient<Channel>) {
    let metrics = shared.engine.metrics();
    let (traces, dropped) = shared.engine.traces().take();
    metrics.traces_dropped.inc_by(dropped);
    for traces in traces.chunks(TRACES_PER_MESSAGE) {
        let count = traces.len() as u64;
        match client.export(spans::message(traces)).await {
            Ok(_) => drop(metrics.traces_sent.inc_by(count)),
            Err(status) => {
                metrics.traces_dropped.inc_by(count);
                if FAILED_LINES.admits() {
                    tracing::warn!(
                        traces = count,
                        reason = status.message(),
                        "the collector took no traces"
                    );
                }
            }
        }
    }
}
