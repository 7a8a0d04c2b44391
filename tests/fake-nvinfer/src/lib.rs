//! A TensorRT library for tests.
//!
//! It implements the virtual interfaces of TensorRT's headers for plans of a text format of its own ([`Plan`]), and runs
//! them in the stream that it is given, with the functions of whatever CUDA driver the process has. So the backend, its
//! shim and a whole server run end to end on a machine without a GPU.
//!
//! What that does not show is in README.md: it is our reading of NVIDIA's headers on both sides.

#![warn(missing_docs)]

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Where the build has put the libraries.
fn built(what: Option<&'static str>) -> &'static str {
    what.expect("this was built without TensorRT's headers: run `make tensorrt-headers`")
}

/// Directory of a library of the release that the headers are of.
///
/// # Panics
/// Without TensorRT's headers, as all functions that name a library.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(built(option_env!("FAKE_NVINFER_DIRECTORY"))).join("this")
}

/// A library of the major release before.
#[must_use]
pub fn other_release() -> PathBuf {
    let directory = Path::new(built(option_env!("FAKE_NVINFER_DIRECTORY"))).join("other");
    directory.join(format!("libnvinfer.so.{}", major() - 1))
}

/// The major release of the headers.
#[must_use]
pub fn major() -> u32 {
    let major = built(option_env!("FAKE_NVINFER_MAJOR"));
    major.parse().expect("the build writes a number")
}

/// A plan: lines of text.
#[derive(Clone, Debug)]
pub struct Plan(String);

impl Plan {
    /// A plan of a major release, without tensors.
    #[must_use]
    pub fn new(major: u32) -> Self {
        Self(format!("adjoin fake plan\ntensorrt {major}\n"))
    }

    /// The plan `y = 2 x + 1` over rows of four FP32, for 1 to 8 rows.
    #[must_use]
    pub fn affine(major: u32) -> Self {
        Self::new(major)
            .line("input x FP32 -1,4")
            .line("output y FP32 -1,4")
            .line("profile 0 x 1,4 4,4 8,4")
            .line("affine x y 2 1")
    }

    /// Adds a line:
    ///
    /// ```text
    /// input NAME DTYPE DIMS           output NAME DTYPE DIMS
    /// profile NUMBER NAME LEAST USUAL MOST
    /// affine INPUT OUTPUT SCALE SHIFT     the output has the input's shape; FP32
    /// shape NAME                      a tensor whose values are read on the host
    /// vectorised NAME                 a tensor that is not linear
    /// grow NAME FACTOR                an output whose first dimension is the input's times so many, but for profiles
    /// meet ROWS COUNT                 runs of so many rows wait until so many of them are under way at once
    /// fault context|enqueue|shape N   the Nth call and all after it fail; N from 1
    /// ```
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        writeln!(self.0, "{line}").expect("writing to a string");
        self
    }

    /// Its bytes, as they lie in a file.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}
