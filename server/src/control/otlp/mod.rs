//! Traces of requests, sent to a collector of OpenTelemetry; in builds without the feature `otlp` there is none.

#[cfg(not(feature = "otlp"))]
mod absent;
#[cfg(feature = "otlp")]
mod sender;
#[cfg(feature = "otlp")]
mod spans;

#[cfg(not(feature = "otlp"))]
pub(super) use absent::{is_collector, spawn};
#[cfg(feature = "otlp")]
pub(super) use sender::{is_collector, spawn};
