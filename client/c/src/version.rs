//! Which release, and which ABI.

use std::ffi::c_char;

/// The ABI that this header describes. It changes when a caller has to be compiled anew, and is the
/// number in the library's soname.
pub const ADJOIN_ABI_VERSION: u32 = 1;

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");

/// The ABI of the library that is loaded. Compare it with ADJOIN_ABI_VERSION where the library was
/// not found by its soname, as with dlopen.
#[unsafe(no_mangle)]
pub extern "C" fn adjoin_abi_version() -> u32 {
    ADJOIN_ABI_VERSION
}

/// The release of the library that is loaded, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn adjoin_version() -> *const c_char {
    VERSION.as_ptr().cast()
}
