//! What users do, against a real server in another process.

#![allow(clippy::cast_precision_loss, reason = "small test values")]

mod batching;
mod control;
mod engines;
mod infer;
mod lifecycle;
mod refusals;
mod versions;
