//! The one environment of this process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use adjoin_backend::BackendError;
use ort::environment::Environment;
use ort::logging::LogLevel;

use crate::NAME;
use crate::raw::Library;

/// The loaded library with its environment.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    pub(crate) environment: Environment,
    pub(crate) version: Arc<str>,
    path: Arc<Path>,
}

/// `ort` can load one library and make one environment in the life of a process, so the environment is
/// never given up.
static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

/// See [`crate::OnnxRuntimeBackend::open`].
pub(crate) fn open(path: &Path) -> Result<Runtime, BackendError> {
    let Ok(path) = path.canonicalize() else {
        return Err(BackendError::LibraryMissing {
            engine: NAME,
            searched: vec![path.to_owned()],
        });
    };
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    match &*runtime {
        Some(opened) if *opened.path == path => Ok(opened.clone()),
        Some(opened) => {
            let reason = format!("this process already uses {}", opened.path.display());
            Err(unusable(path, reason))
        }
        None => {
            let opened = start(&path).map_err(|reason| unusable(path, reason))?;
            Ok(runtime.insert(opened).clone())
        }
    }
}

fn start(path: &Path) -> Result<Runtime, String> {
    // The loader of a static program needs the very C library that the program was linked with, and fails without grace.
    if cfg!(target_feature = "crt-static") {
        return Err("this program is linked statically and loads no libraries; take a build, or an image, that is not".into());
    }
    // `ort` panics where a library says that it is new enough and then does not have the API, so what it
    // relies on is looked at first. The library stays loaded until `ort` holds it as well.
    let library = Library::load(path)?;
    let environment = ort::init_from(path)
        .map_err(|error| error.to_string())?
        .with_name("adjoin")
        .with_telemetry(false)
        .build()
        .map_err(|error| error.to_string())?;
    // The engine prints every failed run, which a client can bring about at will. The same text comes
    // back as an error.
    environment.set_log_level(LogLevel::Fatal);
    Ok(Runtime {
        environment,
        version: library.version().into(),
        path: path.into(),
    })
}

fn unusable(path: PathBuf, reason: String) -> BackendError {
    BackendError::LibraryUnusable {
        engine: NAME,
        path,
        reason,
    }
}
