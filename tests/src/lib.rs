//! Harness of the whole-system tests: a real server in its own process, over a repository and a socket
//! directory of its own; clients in other processes; waiting for conditions with a watchdog, never by
//! sleeping and hoping.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test harness: a failure here is a failed test"
)]

pub mod control;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod http;
pub mod memory_group;
pub mod process;
pub mod raw;
pub mod server;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest wait for anything. Machines may be slow and busy; nothing here measures time.
pub const WATCHDOG: Duration = Duration::from_secs(30);

/// Waits until `condition` gives a value.
///
/// # Panics
/// If it gives none before the watchdog's time.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + WATCHDOG;
    for looks in 0u32.. {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "{what}: not within {WATCHDOG:?}");
        // Most of what is waited for takes microseconds.
        if looks < 1000 {
            std::thread::yield_now()
        } else {
            std::thread::sleep(Duration::from_millis(2))
        }
    }
    unreachable!("the watchdog ends the loop")
}

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// A binary of this workspace, built beside the running test.
///
/// # Panics
/// If it is not there.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let directory = test.parent().and_then(Path::parent).unwrap();
    let path = directory.join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build -p adjoin -p adjoin-tests` first",
        path.display()
    );
    path
}

/// The library of ONNX Runtime that tests run with.
///
/// # Panics
/// If the environment does not name it.
#[must_use]
pub fn onnxruntime() -> PathBuf {
    let path = std::env::var_os("ADJOIN_ONNXRUNTIME").map(PathBuf::from);
    path.expect(
        "ADJOIN_ONNXRUNTIME must name ONNX Runtime's library; `make test` fetches it and sets this",
    )
}

/// A request of the model `add`: inputs `a` and `b`, output `sum`, four columns.
///
/// # Panics
/// If the session has no room for it.
#[must_use]
pub fn add_request(model: &adjoin_client::Model, rows: i64) -> adjoin_client::Request {
    let builder = model.request().input("a", &[rows, 4]).unwrap();
    builder.input("b", &[rows, 4]).unwrap().build().unwrap()
}
