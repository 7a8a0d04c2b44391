//! The library that the tests run with.

#![allow(dead_code, reason = "no test uses all of it")]

use std::path::{Path, PathBuf};

use adjoin_backend_onnxruntime::OnnxRuntimeBackend;

/// The path of the library.
///
/// # Panics
/// With what to do, if no library was named: a suite that passes because it did not run is worse.
pub(crate) fn path() -> PathBuf {
    let named = std::env::var_os("ADJOIN_ONNXRUNTIME").unwrap_or_else(|| {
        panic!(
            "ADJOIN_ONNXRUNTIME does not name libonnxruntime.so; `make test` fetches one and names it, \
             or take the one in the Python package `onnxruntime`, under onnxruntime/capi"
        )
    });
    OnnxRuntimeBackend::find(Some(Path::new(&named))).expect("ADJOIN_ONNXRUNTIME names a library")
}

/// The engine.
pub(crate) fn backend() -> OnnxRuntimeBackend {
    OnnxRuntimeBackend::open(&path()).expect("the library is a usable one")
}
