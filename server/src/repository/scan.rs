//! What is in the repository's directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use adjoin_schema::text::is_model_name;
use thiserror::Error;

/// A model and the directories of its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundModel {
    /// Name of its directory.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
    /// Directories by version.
    pub versions: BTreeMap<u64, PathBuf>,
}

/// What a look at a repository gives.
#[derive(Debug, Default)]
pub struct Scan {
    /// Models by name, each with at least one version.
    pub models: Vec<FoundModel>,
    /// Directories that are no models or versions, and why. Hidden ones are left out quietly: volumes have
    /// `lost+found`, mounted configuration has `..data`.
    pub left_out: Vec<(PathBuf, &'static str)>,
}

/// Why a repository cannot be read.
#[derive(Debug, Error)]
pub enum RepositoryError {
    /// The directory cannot be listed.
    #[error("cannot read model repository {}: {source}", path.display())]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// There is no model in it.
    #[error("model repository {} holds no model; a model is NAME/VERSION/model.onnx, such as digits/1/model.onnx", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// A model that is to be loaded at the start is not in it.
    #[error("model repository {} holds no model {name:?}; it is named by --load-model", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
        /// The model.
        name: String,
    },
}

/// Lists the models of a repository.
///
/// # Errors
/// See [`RepositoryError`].
pub fn scan(repository: &Path) -> Result<Scan, RepositoryError> {
    let mut scan = Scan::default();
    for (name, path) in directories(repository)? {
        if name.starts_with('.') || name == "lost+found" {
            continue;
        }
        if !is_model_name(&name) {
            let why = "not a model: the name may have letters, digits, '.', '_' and '-'";
            scan.left_out.push((path, why));
            continue;
        }
        let versions = versions(&path, &mut scan.left_out)?;
        if versions.is_empty() {
            let why = "not a model: it has no version, a directory whose name is a number from 1";
            scan.left_out.push((path, why));
        } else {
            scan.models.push(FoundModel {
                name,
                path,
                versions,
            });
        }
    }
    scan.models.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(scan)
}

/// One model of a repository; `None` if it has none of that name.
///
/// # Errors
/// See [`RepositoryError`].
pub fn scan_model(repository: &Path, name: &str) -> Result<Option<FoundModel>, RepositoryError> {
    let path = repository.join(name);
    // The name comes from a caller: as checked it is one segment of a path.
    if !is_model_name(name) || !path.is_dir() {
        return Ok(None);
    }
    let versions = versions(&path, &mut Vec::new())?;
    let found = FoundModel {
        name: name.to_owned(),
        path,
        versions,
    };
    Ok(Some(found).filter(|found| !found.versions.is_empty()))
}

/// Whether that is the name of a version's directory.
pub(super) fn version_number(name: &str) -> Option<u64> {
    // Version 0 stands for "none in particular" on the wire.
    name.parse()
        .ok()
        .filter(|&number: &u64| number > 0 && number.to_string() == name)
}

fn versions(
    model: &Path,
    left_out: &mut Vec<(PathBuf, &'static str)>,
) -> Result<BTreeMap<u64, PathBuf>, RepositoryError> {
    let mut versions = BTreeMap::new();
    for (name, path) in directories(model)? {
        if let Some(number) = version_number(&name) {
            versions.insert(number, path);
        } else if name.parse::<u64>().is_ok() {
            let why = "no version: it is a number from 1 without leading zeros";
            left_out.push((path, why));
        }
    }
    Ok(versions)
}

fn directories(path: &Path) -> Result<Vec<(String, PathBuf)>, RepositoryError> {
    let unreadable = |source| RepositoryError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // Follows links: mounted volumes are made of them.
        if let (Ok(name), true) = (entry.file_name().into_string(), entry.path().is_dir()) {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in [
            "b/1/model.onnx",
            "a/2/model.onnx",
            "a/10/model.onnx",
            "a/x/model.onnx",
            "a/0/model.onnx",
            "a/03/model.onnx",
            "..data/1/model.onnx",
            "lost+found/1/model.onnx",
            "bad name/1/model.onnx",
            "empty/readme",
            "file",
        ] {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        }
        root
    }

    fn brief(found: &FoundModel) -> (&str, Vec<u64>) {
        (&found.name, found.versions.keys().copied().collect())
    }

    #[test]
    fn models_and_versions_are_found_and_everything_else_is_left_out() {
        let root = repository();
        let found = scan(root.path()).unwrap();
        let all: Vec<_> = found.models.iter().map(brief).collect();
        assert_eq!(all, [("a", vec![2, 10]), ("b", vec![1])]);
        let mut left_out: Vec<_> = found
            .left_out
            .iter()
            .map(|(path, _)| path.strip_prefix(root.path()).unwrap().to_str().unwrap())
            .collect();
        left_out.sort_unstable();
        assert_eq!(left_out, ["a/0", "a/03", "bad name", "empty"]);
    }

    #[test]
    fn one_model_is_found_by_its_name_and_nothing_outside_the_repository() {
        let root = repository();
        let one = |name| scan_model(root.path(), name).unwrap();
        assert_eq!(brief(&one("a").unwrap()), ("a", vec![2, 10]));
        for name in [
            "c", "empty", "file", "..data", "../a", "a/2", "", ".", "b\0",
        ] {
            assert_eq!(one(name), None, "{name:?}");
        }
    }

    #[test]
    fn a_repository_that_cannot_be_read_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let missing = root.path().join("none");
        assert!(
            matches!(scan(&missing), Err(RepositoryError::Unreadable { path, .. }) if path == missing)
        );
        assert_eq!(scan(root.path()).unwrap().models, []);
    }
}
