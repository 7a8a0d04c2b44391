//! Libraries that are none, and the one that a process may have.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of a test is a failed test"
)]

mod library;

use std::path::Path;

use adjoin_backend::{Backend, BackendError};
use adjoin_backend_onnxruntime::OnnxRuntimeBackend;

fn reason(path: &Path) -> String {
    match OnnxRuntimeBackend::open(path).unwrap_err() {
        BackendError::LibraryUnusable { reason, .. } => reason,
        error => panic!("{error}"),
    }
}

/// One test, because the order matters: what is unusable must not take the place of what is usable.
#[test]
fn process_has_one_library_and_it_is_a_good_one() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("libonnxruntime.so");
    let error = OnnxRuntimeBackend::open(&missing).unwrap_err();
    assert!(
        matches!(error, BackendError::LibraryMissing { .. }),
        "{error}"
    );

    let text = directory.path().join("text.so");
    std::fs::write(&text, b"not a library").unwrap();
    assert!(!reason(&text).is_empty());
    assert!(!reason(directory.path()).is_empty());
    // A library, and another one: the tests themselves are linked with it.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let other = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5));
    let other = other
        .into_iter()
        .find(|path| path.contains("libc.so"))
        .unwrap();
    assert_eq!(reason(Path::new(other)), "it is not ONNX Runtime");

    let path = library::path();
    let backend = OnnxRuntimeBackend::open(&path).unwrap();
    assert!(backend.version().starts_with("1."), "{}", backend.version());
    let link = directory.path().join("link.so");
    std::os::unix::fs::symlink(path.canonicalize().unwrap(), &link).unwrap();
    assert_eq!(
        OnnxRuntimeBackend::open(&link).unwrap().version(),
        backend.version()
    );
    let copy = directory.path().join("copy.so");
    std::fs::write(&copy, b"").unwrap();
    assert!(reason(&copy).contains("already uses"));
}
