//! The manager of the repository as the control plane uses it, on the engine that is built in.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use adjoin_server::config::{CheckedFile, ControlMode, ModelControl};
use adjoin_server::devices::Devices;
use adjoin_server::engine::{Engine, EngineOptions};
use adjoin_server::metrics::Metrics;
use adjoin_server::repository::{
    EngineLibraries, Loader, ManageError, Manager, ManagerParts, RepositoryError, engines,
};
use adjoin_server::session::budget::MemoryBudget;

struct Repository {
    directory: tempfile::TempDir,
    /// Name of the model that the directory itself is.
    model_name: Option<String>,
}

impl Repository {
    /// With these versions of a good model.
    fn new(versions: &[&str]) -> Self {
        let repository = Self {
            directory: tempfile::tempdir().unwrap(),
            model_name: None,
        };
        for version in versions {
            repository.put(version);
        }
        repository
    }

    fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    fn put(&self, version: &str) {
        let version = self.path().join(version);
        std::fs::create_dir_all(&version).unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models/add.onnx");
        std::fs::copy(file, version.join("model.onnx")).unwrap();
    }

    /// A manager over it, when it has loaded what it is to load at the start.
    async fn manage(
        &self,
        mode: ControlMode,
        load: &[&str],
    ) -> Result<Arc<Manager>, RepositoryError> {
        let file = CheckedFile::parse("[defaults]\nengine = \"rten\"", Path::new("")).unwrap();
        let metrics = Arc::new(Metrics::new("test"));
        let options = EngineOptions {
            spin_ns: 0,
            limits: file.limits,
            memory: MemoryBudget::default(),
        };
        let engine = Engine::new(Arc::default(), Arc::clone(&metrics), options).unwrap();
        let (backends, _) = engines(&EngineLibraries::default(), &Devices::default()).unwrap();
        let parts = ManagerParts {
            repository: adjoin_server::repository::Repository {
                path: self.path(),
                model_name: self.model_name.clone(),
            },
            control: ModelControl {
                mode,
                load: load.iter().map(|&name| name.to_owned()).collect(),
                ..ModelControl::default()
            },
            loader: Loader::new(backends, file, metrics),
            engine,
        };
        let (manager, started) = Manager::start(parts).unwrap();
        started.await.unwrap().map(|()| manager)
    }
}

async fn lines(manager: &Manager, ready_only: bool) -> Vec<String> {
    let entries = manager.index(ready_only).await.unwrap();
    let line = |entry: adjoin_server::repository::IndexEntry| {
        let state = entry.state.as_str();
        format!("{} {} {state} {}", entry.name, entry.version, entry.reason)
    };
    entries.into_iter().map(line).collect()
}

#[tokio::test]
async fn index_tells_what_is_there_served_failed_and_unloaded() {
    let repository = Repository::new(&["a/1", "b/1", "c/1"]);
    let broken = repository.path().join("c/1/model.onnx");
    std::fs::write(&broken, "no model").unwrap();
    let manager = repository
        .manage(ControlMode::Explicit, &["a"])
        .await
        .unwrap();
    assert_eq!(lines(&manager, false).await, ["a 1 READY ", "b   ", "c   "]);
    assert_eq!(lines(&manager, true).await, ["a 1 READY "]);
    assert!(matches!(
        manager.load("c", None).await,
        Err(ManageError::Load { failures, served, .. }) if failures.contains_key(&1) && served.is_empty()
    ));
    manager.load("b", None).await.unwrap();
    manager.unload("a").await.unwrap();
    let all = lines(&manager, false).await;
    // It may still drain.
    assert!(
        ["a 1 UNAVAILABLE unloaded", "a 1 UNLOADING "].contains(&all[0].as_str()),
        "{all:?}"
    );
    assert_eq!(all[1], "b 1 READY ");
    assert!(
        all[2].starts_with("c 1 UNAVAILABLE ") && !all[2].contains('/'),
        "{all:?}"
    );
    manager.load("a", None).await.unwrap();
    assert_eq!(lines(&manager, true).await, ["a 1 READY ", "b 1 READY "]);
    // A failed load of a version that is served says so beside it.
    std::fs::write(repository.path().join("b/1/model.onnx"), "no model").unwrap();
    manager.load("b", None).await.unwrap_err();
    let ready = lines(&manager, true).await;
    assert!(ready[1].len() > "b 1 READY ".len(), "{ready:?}");
    manager.stop();
    assert!(matches!(
        manager.load("a", None).await,
        Err(ManageError::Ending)
    ));
}

#[tokio::test]
async fn starts_that_cannot_be_are_errors() {
    let repository = Repository::new(&[]);
    let empty = repository.manage(ControlMode::None, &[]).await.unwrap_err();
    assert!(empty.to_string().contains("digits/1/model.onnx"), "{empty}");
    for mode in [ControlMode::Explicit, ControlMode::Poll] {
        let manager = repository.manage(mode, &[]).await.unwrap();
        assert_eq!(lines(&manager, false).await, [""; 0]);
        manager.stop();
    }
    let missing = repository
        .manage(ControlMode::Explicit, &["a"])
        .await
        .unwrap_err();
    assert!(matches!(missing, RepositoryError::Missing { name, .. } if name == "a"));
}

#[tokio::test]
async fn a_version_whose_file_is_away_is_served_and_one_whose_directory_is_away_is_not() {
    let repository = Repository::new(&["a/1", "a/2"]);
    let manager = repository
        .manage(ControlMode::Explicit, &["a"])
        .await
        .unwrap();
    let file = repository.path().join("a/2/model.onnx");
    std::fs::remove_file(&file).unwrap();
    for _ in 0..2 {
        let error = manager.load("a", None).await.unwrap_err().to_string();
        assert!(
            error.contains("holds no model.onnx; served as before: 1, 2"),
            "{error}"
        );
    }
    std::fs::remove_dir(repository.path().join("a/2")).unwrap();
    manager.load("a", None).await.unwrap();
    assert_eq!(lines(&manager, true).await, ["a 1 READY "]);
    // A model without any version that could be served is an error each time.
    std::fs::create_dir_all(repository.path().join("b/1")).unwrap();
    for _ in 0..2 {
        let error = manager.load("b", None).await.unwrap_err().to_string();
        assert!(error.contains("no version to serve"), "{error}");
    }
    manager.stop();
}

#[tokio::test]
async fn a_star_stands_for_all_models() {
    let repository = Repository::new(&["a/1", "b/2"]);
    let manager = repository
        .manage(ControlMode::Explicit, &["*"])
        .await
        .unwrap();
    assert_eq!(lines(&manager, true).await, ["a 1 READY ", "b 2 READY "]);
    manager.stop();
}

#[tokio::test]
async fn loads_wait_for_their_turn_and_callers_may_go() {
    let repository = Repository::new(&["a/1", "b/1"]);
    let manager = repository.manage(ControlMode::Explicit, &[]).await.unwrap();
    let gone = manager.load("a", None);
    drop(tokio::time::timeout(std::time::Duration::ZERO, gone).await);
    let (first, second) = tokio::join!(manager.load("b", None), manager.load("a", None));
    first.unwrap();
    second.unwrap();
    assert_eq!(lines(&manager, true).await, ["a 1 READY ", "b 1 READY "]);
    manager.stop();
}

#[tokio::test]
async fn a_directory_that_is_one_model_is_served_under_its_given_name() {
    let mut repository = Repository::new(&[]);
    repository.put(".");
    repository.model_name = Some("given".into());
    let manager = repository.manage(ControlMode::None, &[]).await.unwrap();
    assert_eq!(lines(&manager, true).await, ["given 1 READY "]);
    // With versions of its own as well, and as one among others where it is a repository after all.
    let mut versions = Repository::new(&["2", "5"]);
    versions.model_name = Some("given".into());
    let manager = versions.manage(ControlMode::None, &[]).await.unwrap();
    assert_eq!(lines(&manager, true).await, ["given 5 READY "]);
    let mut models = Repository::new(&["add/1"]);
    models.model_name = Some("given".into());
    let manager = models.manage(ControlMode::None, &[]).await.unwrap();
    assert_eq!(lines(&manager, true).await, ["add 1 READY "]);
}

#[tokio::test]
async fn one_model_is_loaded_again_when_its_file_changes() {
    let mut repository = Repository::new(&[]);
    repository.put(".");
    repository.model_name = Some("given".into());
    let manager = repository
        .manage(ControlMode::Explicit, &["given"])
        .await
        .unwrap();
    assert_eq!(lines(&manager, true).await, ["given 1 READY "]);
    std::fs::write(repository.path().join("model.onnx"), "no model").unwrap();
    assert!(manager.load("given", None).await.is_err());
    // Served as it was, with the reason beside it.
    let ready = lines(&manager, true).await;
    assert!(ready[0].len() > "given 1 READY ".len(), "{ready:?}");
    assert!(manager.load("add", None).await.is_err());
}
