//! A look at a library before it is used.

use std::ffi::CStr;
use std::path::Path;

use ort::sys;

type GetApiBase = unsafe extern "C" fn() -> *const sys::OrtApiBase;

/// A loaded library that is ONNX Runtime, new enough.
pub(crate) struct Library {
    version: String,
    /// Keeps the library where it is.
    _library: libloading::Library,
}

impl Library {
    /// # Errors
    /// Why the library cannot be used.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        // SAFETY: the initialisers of the library run. The operator chose the file, and this process
        // trusts it like its own program.
        let library = unsafe { libloading::Library::new(path) };
        let library = library.map_err(|error| error.to_string())?;
        // SAFETY: every release of ONNX Runtime declares the function like this.
        let get_base = unsafe { library.get::<GetApiBase>(b"OrtGetApiBase\0") };
        let get_base = get_base.map_err(|_| "it is not ONNX Runtime")?;
        // SAFETY: takes nothing, and may be called at any time.
        let base = unsafe { get_base() };
        // SAFETY: null, or a structure that lives as long as the library does.
        let base = unsafe { base.as_ref() }.ok_or("it has no API")?;
        // SAFETY: takes nothing.
        let version = unsafe { (base.GetVersionString)() };
        if version.is_null() {
            return Err("it does not say its version".to_owned());
        }
        // SAFETY: not null, checked above, and a constant of the library.
        let version = unsafe { CStr::from_ptr(version) };
        let version = version.to_string_lossy().into_owned();
        let needed = sys::ORT_API_VERSION;
        let is_new_enough = minor(&version) >= Some(needed);
        // SAFETY: any number may be asked for. An older library would print that it does not have it.
        if !is_new_enough || unsafe { (base.GetApi)(needed) }.is_null() {
            return Err(format!("it is version {version}, and 1.{needed} is needed"));
        }
        Ok(Self {
            version,
            _library: library,
        })
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }
}

fn minor(version: &str) -> Option<u32> {
    version.split('.').nth(1)?.parse().ok()
}
