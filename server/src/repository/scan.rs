//! What is in the repository's directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use adjoin_schema::text::is_model_name;
use thiserror::Error;

/// The file that holds a model version.
const MODEL_FILE: &str = "model.onnx";

/// A model with the files of its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundModel {
    /// Name of its directory.
    pub name: String,
    /// Files by version.
    pub versions: BTreeMap<u64, PathBuf>,
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
    #[error("model repository {} holds no model; a model is NAME/VERSION/{MODEL_FILE}, such as digits/1/{MODEL_FILE}", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
}

/// Lists the models of a repository, by name. Directories that are no models are left out: hidden ones
/// quietly (volumes have `lost+found`, mounted configuration has `..data`), others with a warning.
///
/// # Errors
/// See [`RepositoryError`].
pub fn scan(repository: &Path) -> Result<Vec<FoundModel>, RepositoryError> {
    let mut models = Vec::new();
    for (name, path) in directories(repository)? {
        if name.starts_with('.') || name == "lost+found" {
            continue;
        }
        if !is_model_name(&name) {
            tracing::warn!(
                directory = name,
                "not a model: the name may have letters, digits, '.', '_' and '-'"
            );
            continue;
        }
        let mut versions = BTreeMap::new();
        for (version, path) in directories(&path)? {
            let file = path.join(MODEL_FILE);
            // Version 0 stands for "none in particular" on the wire.
            match version.parse::<u64>() {
                Ok(number) if number > 0 && number.to_string() == version && file.is_file() => {
                    versions.insert(number, file);
                }
                Ok(_) => tracing::warn!(
                    model = name,
                    version,
                    "no version: it takes a number from 1 and a {MODEL_FILE}"
                ),
                Err(_) => {}
            }
        }
        if versions.is_empty() {
            tracing::warn!(model = name, "no version NUMBER/{MODEL_FILE} found");
        } else {
            models.push(FoundModel { name, versions });
        }
    }
    if models.is_empty() {
        return Err(RepositoryError::Empty {
            path: repository.to_owned(),
        });
    }
    models.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(models)
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

    fn put(root: &Path, file: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"x").unwrap();
    }

    #[test]
    fn models_and_versions_are_found_and_everything_else_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        for file in [
            "b/1/model.onnx",
            "a/2/model.onnx",
            "a/10/model.onnx",
            "a/x/model.onnx",
            "a/0/model.onnx",
            "a/03/model.onnx",
            "a/4/other.onnx",
            "..data/1/model.onnx",
            "lost+found/1/model.onnx",
            "bad name/1/model.onnx",
            "empty/readme",
            "file",
        ] {
            put(root.path(), file);
        }
        let found = scan(root.path()).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|m| {
                (
                    m.name.as_str(),
                    m.versions.keys().copied().collect::<Vec<_>>(),
                )
            })
            .collect();
        assert_eq!(names, [("a", vec![2, 10]), ("b", vec![1])]);
    }

    #[test]
    fn a_missing_or_empty_repository_says_what_belongs_there() {
        let root = tempfile::tempdir().unwrap();
        assert!(
            scan(root.path())
                .unwrap_err()
                .to_string()
                .contains("digits/1/model.onnx")
        );
        let missing = root.path().join("none");
        assert!(
            matches!(scan(&missing), Err(RepositoryError::Unreadable { path, .. }) if path == missing)
        );
    }
}
