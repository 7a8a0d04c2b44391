//! Compiles the shim against TensorRT's headers.
//!
//! They are looked for where the operator says, where NVIDIA's packages put them, and where `make tools` does. Nothing is
//! downloaded here: a build must not depend on a network.

use std::path::{Path, PathBuf};

const HEADER: &str = "NvInferRuntime.h";
const VARIABLE: &str = "ADJOIN_TENSORRT_INCLUDE";

fn main() {
    println!("cargo::rerun-if-changed=shim");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    if std::env::var_os("CARGO_FEATURE_ENGINE").is_none() {
        return;
    }
    let places = places();
    let Some(headers) = places.iter().find(|place| place.join(HEADER).is_file()) else {
        let places: Vec<_> = places
            .iter()
            .map(|place| place.display().to_string())
            .collect();
        println!(
            "cargo::error=the feature tensorrt needs TensorRT's headers, and {HEADER} is in none of {}. \
             `make tensorrt-headers` fetches those of TensorRT 11; for another release install its headers and set \
             {VARIABLE} to their directory",
            places.join(", ")
        );
        return;
    };
    println!(
        "cargo::rerun-if-changed={}",
        headers.join("NvInferVersion.h").display()
    );
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .file("shim/shim.cpp")
        .include("shim")
        // As headers of the system, so that warnings are about our lines alone.
        .flag("-isystem")
        .flag(headers)
        .flag("-isystem")
        .flag(cuda_headers(headers))
        .warnings_into_errors(false)
        .flag_if_supported("-Wno-deprecated-declarations")
        .flag_if_supported("-fvisibility=hidden")
        .compile("adjoin_tensorrt_shim");
}

fn places() -> Vec<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    match std::env::var_os(VARIABLE) {
        Some(directory) => vec![directory.into()],
        None => vec![
            workspace.join("target/tools/tensorrt/include"),
            "/usr/include/x86_64-linux-gnu".into(),
            "/usr/include/aarch64-linux-gnu".into(),
            "/usr/include".into(),
            "/usr/local/tensorrt/include".into(),
        ],
    }
}

/// Where `cuda_runtime_api.h` is, of which TensorRT's headers use two names of types: beside them, or in a toolkit.
fn cuda_headers(headers: &Path) -> PathBuf {
    let toolkit =
        std::env::var_os("CUDA_PATH").map_or_else(|| "/usr/local/cuda".into(), PathBuf::from);
    if headers.join("cuda_runtime_api.h").is_file() {
        return headers.to_owned();
    }
    toolkit.join("include")
}
