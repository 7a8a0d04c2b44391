//! The client against a scripted server in a thread.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_wrap,
    reason = "tests fail by panicking, and their sizes are small"
)]

mod allocations;
#[cfg(feature = "tokio")]
mod asynchronous;
mod cancel;
mod death;
mod fake;
mod fork;
mod handshake;
mod hot_path;
mod infer;
mod lying;
mod pipeline;
mod reconnect;
mod threads;

use adjoin_client::{Client, ClientOptions, Model, Request};
use adjoin_schema::layout::{SubmissionEntry, SubmissionKind};

use fake::{COLUMNS, Watchdog};

/// A directory, and a watchdog that ends a test that hangs.
struct Ground {
    dir: tempfile::TempDir,
    _watchdog: Watchdog,
}

impl Ground {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            _watchdog: Watchdog::new(),
        }
    }

    fn fake(&self) -> fake::Fake {
        fake::Fake::bind(self.dir.path())
    }

    fn client(&self) -> Client {
        self.connect(options())
    }

    fn connect(&self, options: ClientOptions) -> Client {
        options.connect(self.dir.path()).unwrap()
    }
}

/// Small regions, so that tests are fast.
fn options() -> ClientOptions {
    Client::builder()
        .request_bytes(256 << 10)
        .response_bytes(256 << 10)
        .ring_entries(8)
        .name("test")
}

fn request(model: &Model, rows: u64) -> Request {
    model.request_batch(rows).unwrap().build().unwrap()
}

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
