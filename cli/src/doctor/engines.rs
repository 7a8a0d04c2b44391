//! The engines that a server on this machine would have.

use std::path::Path;

use adjoin_backend::BackendError;
use adjoin_backend_onnxruntime::OnnxRuntimeBackend;
use adjoin_server::devices::Devices;
use adjoin_server::repository::{EngineLibraries, engines};

use super::Finding;

const ONNX_RUNTIME: &str = "ONNX Runtime";
const BUILT_IN: &str = "built-in engine";

pub(super) fn findings(onnxruntime: Option<&Path>) -> Vec<Finding> {
    let libraries = EngineLibraries {
        onnxruntime: onnxruntime.map(Path::to_owned),
        ..EngineLibraries::default()
    };
    match engines(&libraries, &Devices::default()) {
        Ok((engines, missing)) => {
            let mut findings = Vec::new();
            // TensorRT is a finding of its own, with its device.
            for engine in engines.iter().filter(|engine| engine.name() != "tensorrt") {
                let name = if engine.name() == "onnxruntime" {
                    ONNX_RUNTIME
                } else {
                    BUILT_IN
                };
                let library = OnnxRuntimeBackend::find(onnxruntime)
                    .ok()
                    .filter(|_| name == ONNX_RUNTIME);
                let place = library.map(|path| format!(", {}", path.display()));
                let found = format!(
                    "{} {}{}",
                    engine.name(),
                    engine.version(),
                    place.unwrap_or_default()
                );
                findings.push(Finding::ok(name, found));
            }
            findings.extend(missing.map(|error| absent(&error)));
            findings
        }
        // The one that was named must be there: a server would not start.
        Err(error) => vec![Finding::fail(
            ONNX_RUNTIME,
            error.to_string(),
            advice(&error),
        )],
    }
}

fn absent(error: &BackendError) -> Finding {
    let found = match error {
        BackendError::LibraryMissing { searched, .. } => {
            format!(
                "not found in {} directories; models run on rten, which is slower and copies",
                searched.len()
            )
        }
        BackendError::LibraryUnusable { .. } => error.to_string(),
    };
    Finding::warn(ONNX_RUNTIME, found, advice(error))
}

fn advice(error: &BackendError) -> &'static str {
    match error {
        BackendError::LibraryMissing { .. } => {
            "get libonnxruntime.so 1.23 or later (the Python package onnxruntime has it in onnxruntime/capi), and name it by --onnxruntime or put it beside the command"
        }
        BackendError::LibraryUnusable { .. } => {
            "use a build of ONNX Runtime 1.23 or later for this processor"
        }
    }
}
