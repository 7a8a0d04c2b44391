//! Names the ABI in the shared library.

fn main() {
    // The number is ADJOIN_ABI_VERSION of src/version.rs; a test compares them.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libadjoin.so.1");
    println!("cargo::rerun-if-changed=build.rs");
}
