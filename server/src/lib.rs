//! The adjoin inference server, as a library; the `adjoin` binary is a thin shell around it.
//!
//! Two planes that share nothing but the tables of models and sessions:
//!
//! * the *data plane* ([`engine`]): plain threads that drain the sessions' rings, join requests
//!   ([`batch`]) and run them on [`model`] instances;
//! * the *control plane* ([`control`]): one thread with an async runtime for attach handshakes, gRPC and
//!   metrics. No tensor of a session passes through it. Calls of the Open Inference Protocol ([`oip`]) enter here.

pub mod batch;
pub mod cgroup;
pub mod config;
pub mod control;
pub mod devices;
pub mod engine;
pub mod ensemble;
mod log_limit;
pub mod metrics;
pub mod model;
pub mod oip;
pub mod repository;
mod run;
pub mod session;
#[cfg(test)]
mod testing;
pub mod trace;

pub use run::{RunError, run};
