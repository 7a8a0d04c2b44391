//! Where the library may be.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use adjoin_backend::BackendError;

/// What its files are called; the number of the release follows. The library of shared execution
/// providers has another name.
const FILE_NAME: &str = "libonnxruntime.so";

/// See [`crate::OnnxRuntimeBackend::find`].
pub(crate) fn find(explicit: Option<&Path>) -> Result<PathBuf, BackendError> {
    match explicit {
        Some(path) if path.is_file() => Ok(path.to_owned()),
        Some(path) => first_of(vec![path.to_owned()]),
        None => first_of(usual_places()),
    }
}

fn first_of(directories: Vec<PathBuf>) -> Result<PathBuf, BackendError> {
    let found = directories.iter().find_map(|place| newest_in(place));
    found.ok_or(BackendError::LibraryMissing {
        engine: crate::NAME,
        searched: directories,
    })
}

fn usual_places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    let program = std::env::current_exe().and_then(|path| path.canonicalize());
    if let Some(directory) = program.as_ref().ok().and_then(|path| path.parent()) {
        places.push(directory.to_owned());
        places.push(directory.join("lib"));
        // A program in `bin` has its libraries in the `lib` next to that.
        places.extend(directory.parent().map(|prefix| prefix.join("lib")));
    }
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    for prefix in ["/usr/local", "/usr"] {
        let prefix = Path::new(prefix);
        places.push(prefix.join("lib").join(&triplet));
        places.push(prefix.join("lib64"));
        places.push(prefix.join("lib"));
    }
    places.push("/opt/onnxruntime/lib".into());
    places
}

/// The newest release in a directory. A file without a number is as new as its last change says, and
/// older than all that have one.
fn newest_in(directory: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(directory).ok()?.flatten();
    files
        .filter(|entry| is_library(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .max_by_key(|path| (release(path), changed(path), Reverse(path.clone())))
}

fn is_library(name: &str) -> bool {
    name.strip_prefix(FILE_NAME)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The numbers behind the name, of the file that a link leads to.
fn release(path: &Path) -> Vec<u32> {
    let file = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let numbers = name.strip_prefix(FILE_NAME).unwrap_or_default().split('.');
    numbers.filter_map(|number| number.parse().ok()).collect()
}

fn changed(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|file| file.modified()).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn directory(files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(directory.path().join(file), b"").unwrap();
        }
        directory
    }

    #[test]
    fn newest_release_of_the_first_directory_wins() {
        let old = directory(&["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.24.1"]);
        let new = directory(&["libonnxruntime.so.1.32.0"]);
        let none = directory(&["libonnxruntime_providers_shared.so", "libonnxruntime.sock"]);
        let places = [&none, &old, &new].map(|d| d.path().to_owned());
        assert_eq!(
            first_of(places.into()).unwrap(),
            old.path().join("libonnxruntime.so.1.24.1")
        );
    }

    #[test]
    fn link_counts_as_what_it_leads_to() {
        let place = directory(&["libonnxruntime.so.1.30.0", "libonnxruntime.so.1.31.0"]);
        let link = place.path().join("libonnxruntime.so");
        std::os::unix::fs::symlink("libonnxruntime.so.1.30.0", &link).unwrap();
        assert_eq!(
            newest_in(place.path()),
            Some(place.path().join("libonnxruntime.so.1.31.0"))
        );
        fs::remove_file(place.path().join("libonnxruntime.so.1.31.0")).unwrap();
        assert_eq!(newest_in(place.path()), Some(link));
    }

    #[test]
    fn explicit_place_is_a_file_or_a_directory_and_nothing_else_is_tried() {
        let place = directory(&["my-own-build.so", "libonnxruntime.so.1.32.0"]);
        let file = place.path().join("my-own-build.so");
        assert_eq!(find(Some(&file)).unwrap(), file);
        assert_eq!(
            find(Some(place.path())).unwrap(),
            place.path().join("libonnxruntime.so.1.32.0")
        );
        let missing = place.path().join("nothing.so");
        let error = find(Some(&missing)).unwrap_err();
        assert!(
            matches!(&error, BackendError::LibraryMissing { searched, .. } if *searched == [missing]),
            "{error}"
        );
    }

    #[test]
    fn usual_places_begin_beside_the_program() {
        let program = std::env::current_exe().unwrap().canonicalize().unwrap();
        let places = usual_places();
        assert_eq!(places.first().map(PathBuf::as_path), program.parent());
        assert!(places.contains(&"/usr/lib".into()));
    }
}
