//! Where a client meets a scripted server.

use adjoin_client::{Client, ClientOptions, Model, Request};

use crate::fake::{self, Watchdog};

/// A directory, and a watchdog that ends a test that hangs.
pub(crate) struct Ground {
    pub(crate) dir: tempfile::TempDir,
    _watchdog: Watchdog,
}

impl Ground {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            _watchdog: Watchdog::new(),
        }
    }

    pub(crate) fn fake(&self) -> fake::Fake {
        fake::Fake::bind(self.dir.path())
    }

    pub(crate) fn client(&self) -> Client {
        self.connect(options())
    }

    pub(crate) fn connect(&self, options: ClientOptions) -> Client {
        options.connect(self.dir.path()).unwrap()
    }
}

/// Small regions, so that tests are fast.
pub(crate) fn options() -> ClientOptions {
    Client::builder()
        .request_bytes(256 << 10)
        .response_bytes(256 << 10)
        .ring_entries(8)
        .name("test")
}

pub(crate) fn request(model: &Model, rows: u64) -> Request {
    model.request_batch(rows).unwrap().build().unwrap()
}
