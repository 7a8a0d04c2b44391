//! Libraries that are none, or of another release.

use adjoin_backend::{Backend, BackendError};
use adjoin_backend_tensorrt::TensorRtBackend;
use fake_cuda::harness::FakeCuda;

use crate::fixture::{backend, transfers};

#[test]
fn the_library_of_the_headers_release_is_found_and_opened() {
    let test = "library::the_library_of_the_headers_release_is_found_and_opened";
    let report = FakeCuda::new().run(test, || {
        let backend = backend(&transfers());
        assert_eq!(backend.name(), "tensorrt");
        assert_eq!(
            backend.version(),
            format!("{}.4.0", adjoin_fake_nvinfer::major())
        );
        assert!(
            backend.accepts("a/model.plan".as_ref()) && backend.accepts("a/model.engine".as_ref())
        );
        assert!(!backend.accepts("a/model.onnx".as_ref()));
    });
    report.assert_clean();
}

#[test]
fn what_is_no_library_of_this_release_is_refused_with_the_reason() {
    let test = "library::what_is_no_library_of_this_release_is_refused_with_the_reason";
    FakeCuda::new().run(test, || {
        let transfers = transfers();
        let directory = tempfile::tempdir().unwrap();
        let text = directory.path().join("libnvinfer.so");
        std::fs::write(&text, "no library").unwrap();
        let open = |path: &std::path::Path| {
            let transfers = transfers.clone();
            TensorRtBackend::open(path, move || Ok(transfers.clone()))
                .map(drop)
                .unwrap_err()
                .to_string()
        };
        assert!(open(&text).contains("libnvinfer.so"), "{}", open(&text));
        let missing = open(&directory.path().join("none.so"));
        assert!(missing.contains("none.so"), "{missing}");
        // A library, but of something else.
        let paths = std::env::var("LD_LIBRARY_PATH").unwrap();
        let driver = paths.split(':').next().unwrap().to_owned() + "/libcuda.so";
        let other = open(driver.as_ref());
        assert!(other.contains("no runtime of TensorRT"), "{other}");
        let major = adjoin_fake_nvinfer::major();
        let release = open(&adjoin_fake_nvinfer::other_release());
        let says = format!(
            "it is TensorRT {}.4.0, and this program was built with the headers of {major}.",
            major - 1
        );
        assert!(release.contains(&says), "{release}");
        let searched = TensorRtBackend::find(Some(directory.path()));
        assert!(
            matches!(searched, Err(BackendError::LibraryMissing { .. })),
            "another release is not found"
        );
    });
}
