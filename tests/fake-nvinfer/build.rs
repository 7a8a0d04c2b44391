//! Builds the libraries against the headers that the backend's shim is built against.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=library.cpp");
    println!("cargo::rerun-if-env-changed=ADJOIN_TENSORRT_INCLUDE");
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/tensorrt/include");
    let headers = std::env::var_os("ADJOIN_TENSORRT_INCLUDE").map_or(fetched, PathBuf::from);
    let header = headers.join("NvInferVersion.h");
    println!("cargo::rerun-if-changed={}", header.display());
    // Without headers there is no library, and the tests that want it say so: the workspace builds without them.
    let Ok(text) = std::fs::read_to_string(&header) else {
        return;
    };
    let major = text
        .lines()
        .filter_map(|line| line.strip_prefix("#define TRT_MAJOR_ENTERPRISE "))
        .find_map(|rest| rest.trim().parse::<u32>().ok())
        .expect("the headers of TensorRT 10 or later say their major release");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    // The release that the headers are of, and one before it.
    for (directory, release) in [("this", major), ("other", major - 1)] {
        let directory = out.join(directory);
        std::fs::create_dir_all(&directory).expect("the build's own directory");
        let mut compiler = cc::Build::new()
            .cpp(true)
            .std("c++17")
            .opt_level(1)
            .flag_if_supported("-Wno-deprecated-declarations")
            .get_compiler()
            .to_command();
        compiler.args(["-shared", "-fPIC", "-fvisibility=hidden"]);
        compiler.arg(format!("-DFAKE_VERSION={}", release * 10_000 + 400));
        compiler.arg("-isystem").arg(&headers).arg("library.cpp");
        compiler
            .arg("-o")
            .arg(directory.join(format!("libnvinfer.so.{release}")))
            .arg("-ldl");
        let status = compiler.status().expect("a C++ compiler");
        assert!(status.success(), "the fake library does not compile");
    }
    println!("cargo::rustc-env=FAKE_NVINFER_DIRECTORY={}", out.display());
    println!("cargo::rustc-env=FAKE_NVINFER_MAJOR={major}");
}
