//! Where the library of an engine may be, for engines whose library is found at run time.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::BackendError;

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub struct LibrarySearch<'a> {
    /// Name of the engine, for messages.
    pub engine: &'static str,
    /// What files are called, the preferred name first; the number of the release follows.
    pub file_names: &'a [&'a str],
    /// The last place to look at, such as `/opt/NAME/lib`.
    pub last_place: &'a str,
}

impl LibrarySearch<'_> {
    /// Where the library is: at `explicit` (a file, or a directory that has it) if that is given, and otherwise beside the
    /// running program, in a `lib` beside that, or where Linux keeps libraries.
    ///
    /// The first directory that has one decides. If it has several, the preferred name is taken, and of that the newest
    /// release.
    ///
    /// # Errors
    /// [`BackendError::LibraryMissing`] with the places that were looked at.
    pub fn find(&self, explicit: Option<&Path>) -> Result<PathBuf, BackendError> {
        match explicit {
            Some(path) if path.is_file() => Ok(path.to_owned()),
            Some(path) => self.first_of(vec![path.to_owned()]),
            None => {
                let mut places = usual_places();
                places.push(self.last_place.into());
                self.first_of(places)
            }
        }
    }

    fn first_of(&self, directories: Vec<PathBuf>) -> Result<PathBuf, BackendError> {
        let in_place = |place: &PathBuf| {
            let mut names = self.file_names.iter();
            names.find_map(|name| newest_in(place, name))
        };
        let found = directories.iter().find_map(in_place);
        found.ok_or(BackendError::LibraryMissing {
            engine: self.engine,
            searched: directories,
        })
    }
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
    places
}

/// The newest release in a directory. A file without a number is as new as its last change says, and
/// older than all that have one.
fn newest_in(directory: &Path, file_name: &str) -> Option<PathBuf> {
    let files = std::fs::read_dir(directory).ok()?.flatten();
    files
        .filter(|entry| is_library(&entry.file_name().to_string_lossy(), file_name))
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .max_by_key(|path| {
            (
                release(path, file_name),
                changed(path),
                Reverse(path.clone()),
            )
        })
}

fn is_library(name: &str, file_name: &str) -> bool {
    name.strip_prefix(file_name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The numbers behind the name, of the file that a link leads to.
fn release(path: &Path, file_name: &str) -> Vec<u32> {
    let file = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let numbers = name.strip_prefix(file_name).unwrap_or_default().split('.');
    numbers.filter_map(|number| number.parse().ok()).collect()
}

fn changed(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|file| file.modified()).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NAME: &str = "libonnxruntime.so";
    const SEARCH: LibrarySearch<'static> = LibrarySearch {
        engine: "onnxruntime",
        file_names: &[NAME, "libonnxruntime_lean.so"],
        last_place: "/opt/onnxruntime/lib",
    };

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
            SEARCH.first_of(places.into()).unwrap(),
            old.path().join("libonnxruntime.so.1.24.1")
        );
    }

    #[test]
    fn link_counts_as_what_it_leads_to() {
        let place = directory(&["libonnxruntime.so.1.30.0", "libonnxruntime.so.1.31.0"]);
        let link = place.path().join("libonnxruntime.so");
        std::os::unix::fs::symlink("libonnxruntime.so.1.30.0", &link).unwrap();
        assert_eq!(
            newest_in(place.path(), NAME),
            Some(place.path().join("libonnxruntime.so.1.31.0"))
        );
        fs::remove_file(place.path().join("libonnxruntime.so.1.31.0")).unwrap();
        assert_eq!(newest_in(place.path(), NAME), Some(link));
    }

    #[test]
    fn explicit_place_is_a_file_or_a_directory_and_nothing_else_is_tried() {
        let place = directory(&["my-own-build.so", "libonnxruntime.so.1.32.0"]);
        let file = place.path().join("my-own-build.so");
        assert_eq!(SEARCH.find(Some(&file)).unwrap(), file);
        assert_eq!(
            SEARCH.find(Some(place.path())).unwrap(),
            place.path().join("libonnxruntime.so.1.32.0")
        );
        let missing = place.path().join("nothing.so");
        let error = SEARCH.find(Some(&missing)).unwrap_err();
        assert!(
            matches!(&error, BackendError::LibraryMissing { searched, .. } if *searched == [missing]),
            "{error}"
        );
    }

    #[test]
    fn the_preferred_name_is_taken_before_a_newer_release_of_another() {
        let lean = directory(&["libonnxruntime_lean.so.2.0.0"]);
        let both = directory(&["libonnxruntime_lean.so.2.0.0", "libonnxruntime.so.1.0.0"]);
        let first = |place: &tempfile::TempDir| SEARCH.first_of(vec![place.path().to_owned()]);
        assert!(
            first(&lean)
                .unwrap()
                .ends_with("libonnxruntime_lean.so.2.0.0")
        );
        assert!(first(&both).unwrap().ends_with("libonnxruntime.so.1.0.0"));
    }

    #[test]
    fn usual_places_begin_beside_the_program() {
        let program = std::env::current_exe().unwrap().canonicalize().unwrap();
        let places = usual_places();
        assert_eq!(places.first().map(PathBuf::as_path), program.parent());
        assert!(places.contains(&"/usr/lib".into()));
    }
}
