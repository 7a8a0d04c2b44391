//! The client against a scripted server in a thread.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_wrap,
    reason = "tests fail by panicking, and their sizes are small"
)]

mod allocations;
#[cfg(feature = "tokio")]
mod asynchronous;
mod binding;
mod cancel;
mod death;
mod device;
mod fake;
mod fork;
mod ground;
mod handshake;
mod infer;
mod lying;
mod patience;
mod pipeline;
mod reconnect;
mod threads;

use adjoin_client::Request;
use adjoin_schema::layout::{SubmissionEntry, SubmissionKind};

use fake::COLUMNS;
use ground::{Ground, options, request};

fn fill(request: &mut Request, value: f32) {
    request.input_mut::<f32>("x").unwrap().fill(value);
}

fn kinds(log: &[SubmissionEntry], kind: SubmissionKind) -> Vec<SubmissionEntry> {
    log.iter()
        .filter(|entry| entry.kind == kind as u8)
        .copied()
        .collect()
}

fn row(value: f32) -> [f32; COLUMNS] {
    [value; COLUMNS]
}
