//! Where a test finds the library, and what it has counted.

use std::ffi::c_char;
use std::path::PathBuf;

use crate::report::Report;

/// The variable that names the real library.
pub const REAL: &str = "FAKE_ONNXRUNTIME_REAL";
/// The variable that asks for failures.
pub const FAIL: &str = "FAKE_ONNXRUNTIME_FAIL";

/// The library, which cargo puts beside test binaries.
///
/// # Panics
/// If it is not there.
#[must_use]
pub fn library() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own binary");
    let directories = test.ancestors().skip(1).take(2);
    let mut candidates = directories.map(|directory| directory.join("libfake_onnxruntime.so"));
    candidates
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("libfake_onnxruntime.so is not beside {}", test.display()))
}

/// What the library has counted in this process so far.
///
/// # Panics
/// If this process has not loaded it.
#[must_use]
pub fn report() -> Report {
    type Counts = unsafe extern "C" fn(*mut c_char, usize) -> usize;
    // SAFETY: whoever asks for counts has loaded the library, so this runs nothing.
    let library = unsafe { libloading::Library::new(library()) }.expect("the library");
    // SAFETY: the type is that of the function in `entry`.
    let counts = unsafe { library.get::<Counts>(b"fake_onnxruntime_counts") };
    let counts = counts.expect("this is another library");
    let mut text = vec![0_u8; 1 << 20];
    // SAFETY: there is as much room as is said.
    let byte_size = unsafe { counts(text.as_mut_ptr().cast(), text.len()) };
    text.truncate(byte_size);
    serde_json::from_slice(&text).expect("counts of the library")
}
