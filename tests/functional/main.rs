//! What users do, against a real server in another process.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    reason = "small values, and helpers where a failure is a failed test"
)]

mod access;
mod batching;
mod cache;
mod control;
mod documents;
mod engines;
mod infer;
mod input_transforms;
mod lifecycle;
mod memory_limit;
mod model_config;
mod pipelines;
mod refusals;
mod repository;
mod routing;
mod traces;
mod versions;
