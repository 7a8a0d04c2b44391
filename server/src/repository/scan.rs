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

/// Where models are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// The directory.
    pub path: PathBuf,
    /// Name of the model that the directory itself may be: one that is handed over as it is, with the model's file or its
    /// versions at the top. A directory of models is taken as such all the same.
    pub model_name: Option<String>,
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

impl Repository {
    /// Lists the models.
    ///
    /// # Errors
    /// See [`RepositoryError`].
    pub fn scan(&self) -> Result<Scan, RepositoryError> {
        match self.itself()? {
            Some(model) => Ok(Scan {
                models: vec![model],
                left_out: Vec::new(),
            }),
            None => scan(&self.path),
        }
    }

    /// One model; `None` if there is none of that name.
    ///
    /// # Errors
    /// See [`RepositoryError`].
    pub fn scan_model(&self, name: &str) -> Result<Option<FoundModel>, RepositoryError> {
        match self.itself()? {
            Some(model) => Ok(Some(model).filter(|model| model.name == name)),
            None => scan_model(&self.path, name),
        }
    }

    /// The directory as one model, if it is to be and can be one.
    fn itself(&self) -> Result<Option<FoundModel>, RepositoryError> {
        let Some(name) = &self.model_name else {
            return Ok(None);
        };
        let mut versions = versions(&self.path, &mut Vec::new())?;
        if versions.is_empty() {
            if !has_model_file(&self.path) {
                return Ok(None);
            }
            versions.insert(1, self.path.clone());
        }
        Ok(Some(FoundModel {
            name: name.clone(),
            path: self.path.clone(),
            versions,
        }))
    }
}

/// Whether a directory holds a file that looks like a model's; which one it is, if any, loading finds out.
fn has_model_file(directory: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let path = entry.path();
        let is_named = path.file_stem().is_some_and(|stem| stem == "model")
            || path
                .extension()
                .is_some_and(|extension| extension == "onnx");
        is_named && path.is_file()
    })
}

fn scan(repository: &Path) -> Result<Scan, RepositoryError> {
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

fn scan_model(repository: &Path, name: &str) -> Result<Option<FoundModel>, RepositoryError> {
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
    fn a_directory_that_is_one_model_is_served_under_the_name_that_is_given() {
        let of = |files: &[&str]| {
            let root = tempfile::tempdir().unwrap();
            for file in files {
                let path = root.path().join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, b"x").unwrap();
            }
            let repository = Repository {
                path: root.path().to_owned(),
                model_name: Some("given".into()),
            };
            let found = repository.scan().unwrap().models;
            let all: Vec<_> = found
                .iter()
                .map(|model| (model.name.clone(), model.versions.keys().copied().collect()))
                .collect::<Vec<(String, Vec<u64>)>>();
            for (name, versions) in &all {
                let one = repository.scan_model(name).unwrap().unwrap();
                assert_eq!(brief(&one), (name.as_str(), versions.clone()));
            }
            assert_eq!(repository.scan_model("other").unwrap(), None);
            (root, found, all)
        };
        let given = |versions: &[u64]| vec![("given".to_owned(), versions.to_vec())];
        let (root, found, all) = of(&["model.onnx", "config.pbtxt"]);
        assert_eq!(all, given(&[1]));
        assert_eq!(found[0].versions[&1], root.path());
        assert_eq!(of(&["resnet.onnx", "labels.txt"]).2, given(&[1]));
        assert_eq!(of(&["3/model.onnx", "7/model.onnx"]).2, given(&[3, 7]));
        // A repository stays one, whatever else lies in it.
        let models = vec![("a".to_owned(), vec![1]), ("b".to_owned(), vec![2])];
        assert_eq!(
            of(&["a/1/model.onnx", "b/2/model.onnx", "README.md"]).2,
            models
        );
        assert_eq!(of(&["README.md"]).2, []);
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
