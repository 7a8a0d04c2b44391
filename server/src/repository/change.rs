//! Brings what is served in line with what the repository holds, one model at a time.
//!
//! Of a model that is loaded already, versions whose files are as they were stay; new ones are loaded and warmed up
//! beside the old ones; then one change of the table puts all of them in place. What could not be loaded takes nothing
//! away that was served.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::device::DeviceCare;
use super::index::Notes;
use super::load::Plan;
use super::manager::ManageError;
use super::scan::version_number;
use super::stamp::Stamp;
use super::{FoundModel, Loader, Repository, RepositoryError, public_reason};
use crate::config::{ControlMode, ModelControl};
use crate::engine::Engine;
use crate::ensemble;
use crate::model::ModelVersion;

/// Loads and unloads models. On the loader's thread alone.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) repository: Repository,
    pub(super) control: ModelControl,
    pub(super) loader: Loader,
    pub(super) engine: Arc<Engine>,
    pub(super) notes: Arc<Mutex<Notes>>,
    /// Versions that are to be unloaded when their last request is over.
    pub(super) draining: Sender<Arc<ModelVersion>>,
    pub(super) changed: watch::Sender<u64>,
    pub(super) stopping: Arc<AtomicBool>,
    /// What was seen of each model when it was last loaded, or tried.
    pub(super) known: HashMap<String, Known>,
    pub(super) device: DeviceCare,
}

/// A model as it was when it was last loaded, or tried.
#[derive(Debug, Default)]
pub(super) struct Known {
    seen: Seen,
    /// Whether all of it could be loaded.
    is_complete: bool,
    /// What each version that is served was loaded from.
    origins: BTreeMap<u64, Origin>,
    /// How each of them was loaded.
    plans: BTreeMap<u64, Arc<Plan>>,
}

/// All that decides what a model is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Files beside the versions, such as the configuration.
    model: Stamp,
    /// A configuration that came with a load request.
    json: Option<String>,
    versions: BTreeMap<u64, Stamp>,
}

/// All that decides what a version is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    model: Stamp,
    json: Option<String>,
    version: Stamp,
}

impl Seen {
    fn of(found: &FoundModel, json: Option<String>) -> Self {
        let is_version = |name: &str| version_number(name).is_some();
        let stamp = |(&number, path): (&u64, &PathBuf)| (number, Stamp::of(path, |_| false));
        Self {
            model: Stamp::of(&found.path, is_version),
            json,
            versions: found.versions.iter().map(stamp).collect(),
        }
    }

    fn origin(&self, version: u64) -> Origin {
        Origin {
            model: self.model.clone(),
            json: self.json.clone(),
            version: self.versions.get(&version).cloned().unwrap_or_default(),
        }
    }
}

/// Versions that are to be served, and those that could not be loaded.
#[derive(Debug, Default)]
struct Outcome {
    versions: BTreeMap<u64, Arc<ModelVersion>>,
    failed: BTreeMap<u64, String>,
}

impl Changes {
    /// Loads what is to be served at the start. A model that cannot be loaded does not keep others from it.
    ///
    /// # Errors
    /// If the repository cannot be read, or lacks what it must have.
    pub(super) fn start(&mut self) -> Result<(), RepositoryError> {
        let found = self.repository.scan()?;
        for (path, why) in &found.left_out {
            tracing::warn!(directory = %path.display(), "{why}");
        }
        let mut models = found.models;
        let path = || self.repository.path.clone();
        match self.control.mode {
            ControlMode::None if models.is_empty() => {
                return Err(RepositoryError::Empty { path: path() });
            }
            ControlMode::Explicit if !self.control.load.iter().any(|name| name == "*") => {
                let wanted = &self.control.load;
                let is_there = |name: &&String| models.iter().any(|model| model.name == **name);
                if let Some(name) = wanted.iter().find(|name| !is_there(name)) {
                    let name = name.clone();
                    return Err(RepositoryError::Missing { path: path(), name });
                }
                models.retain(|model| wanted.contains(&model.name));
            }
            _ => {}
        }
        self.refresh_all(&models);
        ensemble::warn_of_misfits(self.engine.models(), None);
        Ok(())
    }

    /// Looks at the directory again.
    pub(super) fn poll(&mut self) {
        let models = match self.repository.scan() {
            Ok(found) => found.models,
            Err(error) => {
                tracing::warn!(%error, "what was loaded is served further");
                return;
            }
        };
        self.refresh_all(&models);
        let is_gone = |name: &&String| !models.iter().any(|model| model.name == **name);
        let gone: Vec<String> = self.known.keys().filter(is_gone).cloned().collect();
        for name in gone {
            tracing::info!(model = name, "removed from the repository");
            self.take_away(&name);
        }
    }

    fn refresh_all(&mut self, models: &[FoundModel]) {
        for found in models {
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            // Its versions say in the log what went wrong.
            let _ = self.refresh(found, None, false);
        }
    }

    /// Loads a model for a caller, or what has changed of it; `json` takes the place of its configuration file.
    ///
    /// # Errors
    /// See [`ManageError`]. What was served is served further.
    pub(super) fn load(&mut self, name: &str, json: Option<String>) -> Result<(), ManageError> {
        let found = self.repository.scan_model(name).map_err(|error| {
            tracing::warn!(%error, "cannot load model");
            ManageError::Unreadable
        })?;
        let found = found.ok_or_else(|| ManageError::NotFound { name: name.into() })?;
        if !self.losses(name).is_empty() {
            self.renew_device(name);
        }
        let loaded = self.refresh(&found, json, true);
        ensemble::warn_of_misfits(self.engine.models(), Some(name));
        loaded
    }

    /// Unloads a model for a caller.
    ///
    /// # Errors
    /// If it is not there.
    pub(super) fn unload(&mut self, name: &str) -> Result<(), ManageError> {
        let snapshot = self.engine.models().snapshot();
        let Some(entry) = snapshot.get(name).filter(|_| self.known.contains_key(name)) else {
            return Err(ManageError::NotLoaded { name: name.into() });
        };
        let numbers = entry.versions.keys().copied().collect();
        self.take_away(name);
        self.notes.lock().unloaded.insert(name.to_owned(), numbers);
        Ok(())
    }

    /// Loads what has changed of a model; also what could not be loaded the last time, if `again`.
    fn refresh(
        &mut self,
        found: &FoundModel,
        json: Option<String>,
        again: bool,
    ) -> Result<(), ManageError> {
        let name = &found.name;
        // A model that was loaded before this one may have cost all of them the device.
        self.care_for_device();
        let seen = Seen::of(found, json);
        if let Some(known) = self.known.get(name)
            && known.seen == seen
            && (known.is_complete || !again)
        {
            let losses = self.losses(name);
            if losses.is_empty() {
                return Ok(());
            }
            return Err(not_loaded(name, losses, Vec::new()));
        }
        let plan = self.loader.plan(found, seen.json.as_deref()).map(Arc::new);
        let outcome = match &plan {
            Ok(plan) => self.load_versions(name, plan, &seen),
            Err(error) => {
                tracing::error!(model = name, %error, "cannot load model");
                let newest = found.versions.keys().next_back().copied().unwrap_or(0);
                Outcome {
                    failed: [(newest, error.to_string())].into(),
                    ..Outcome::default()
                }
            }
        };
        let failures = outcome.failed.clone();
        let as_seen: Vec<u64> = outcome.versions.keys().copied().collect();
        let is_complete = failures.is_empty() && !as_seen.is_empty();
        let plan = plan.ok();
        self.put(name, plan.as_deref(), outcome);
        let served = self.note(name, seen, plan.as_ref(), &as_seen, is_complete);
        if is_complete {
            return Ok(());
        }
        Err(not_loaded(name, failures, served))
    }

    fn load_versions(&self, name: &str, plan: &Plan, seen: &Seen) -> Outcome {
        let snapshot = self.engine.models().snapshot();
        let served = snapshot.get(name).map(|entry| &entry.versions);
        let known = self.known.get(name);
        let mut outcome = Outcome::default();
        for &number in &plan.empty {
            let reason = format!("its directory holds no {}", plan.file_name());
            tracing::warn!(model = name, version = number, "{reason}");
            // One that is served is about to be replaced; others may be about to be made.
            if served.is_some_and(|served| served.contains_key(&number)) {
                outcome.failed.insert(number, reason);
            }
        }
        for &number in plan.files.keys() {
            let same = |known: &&Known| known.origins.get(&number) == Some(&seen.origin(number));
            let as_before = known.filter(same).and(served).and_then(|s| s.get(&number));
            if let Some(version) = as_before {
                outcome.versions.insert(number, Arc::clone(version));
                continue;
            }
            if self.stopping.load(Ordering::Acquire) {
                outcome.failed.insert(number, "the server ends".to_owned());
                continue;
            }
            match self.load_noted(name, plan, number) {
                Ok(version) => drop(outcome.versions.insert(number, version)),
                Err(error) => drop(outcome.failed.insert(number, error)),
            }
        }
        outcome
    }

    /// Loads a version of a plan, which is in the notes meanwhile; the log has the outcome.
    pub(super) fn load_noted(
        &self,
        name: &str,
        plan: &Plan,
        number: u64,
    ) -> Result<Arc<ModelVersion>, String> {
        let key = (name.to_owned(), number);
        self.notes.lock().loading.insert(key.clone());
        let started = std::time::Instant::now();
        let loaded = self.load_version(plan, number);
        self.note_load(name, number, loaded.is_ok());
        match &loaded {
            Ok(version) => tracing::info!(
                model = name,
                version = number,
                engine = version.engine(),
                instances = version.settings().instances,
                max_batch_size = version.settings().max_batch_size,
                seconds = started.elapsed().as_secs_f32(),
                "model ready"
            ),
            Err(error) => {
                tracing::error!(model = name, version = number, %error, "cannot load model");
                // Its first run may have cost the device.
                self.engine.device_lost(error);
            }
        }
        self.notes.lock().loading.remove(&key);
        loaded.map(Arc::new)
    }

    /// Loads a version. A panic in the engine is a reason like any other: the loader goes on.
    fn load_version(&self, plan: &Plan, number: u64) -> Result<ModelVersion, String> {
        let file = plan.files.get(&number).ok_or("it has no file")?;
        let load = || self.loader.load_version(plan, number, file);
        match catch_unwind(AssertUnwindSafe(load)) {
            Ok(loaded) => loaded.map_err(|error| error.to_string()),
            Err(_) => Err("the engine panicked; the log has the place".to_owned()),
        }
    }

    /// How a version that is served was loaded.
    pub(super) fn plan_of(&self, name: &str, number: u64) -> Option<Arc<Plan>> {
        self.known.get(name)?.plans.get(&number).cloned()
    }

    /// Puts the versions of a model in place; those that they replace drain.
    fn put(&self, name: &str, plan: Option<&Plan>, outcome: Outcome) {
        let Outcome {
            mut versions,
            failed,
        } = outcome;
        let models = self.engine.models();
        let others = models.all();
        let instances = others.iter().chain(versions.values());
        let instances: u32 = instances.map(|version| version.slots()).sum();
        // One too many for those that stay; workers cost little.
        if let Err(error) = self.engine.ensure_workers(instances as usize) {
            tracing::error!(%error, "cannot start a worker; models share those that there are");
        }
        let mut replaced = Vec::new();
        let put = models.change(name, |entry| {
            if !failed.is_empty() {
                for (&number, version) in &entry.versions {
                    versions
                        .entry(number)
                        .or_insert_with(|| Arc::clone(version));
                }
            }
            let old = std::mem::replace(&mut entry.versions, versions);
            let stays = |old: &Arc<ModelVersion>| {
                let new = entry.versions.get(&old.version());
                new.is_some_and(|new| Arc::ptr_eq(new, old))
            };
            replaced.extend(old.into_values().filter(|old| !stays(old)));
            entry.draining.extend(replaced.iter().cloned());
            entry.failed = failed;
            if let Some(plan) = plan {
                entry.labels.clone_from(&plan.configured.config.labels);
                let missing = plan.missing.iter();
                let missing = missing.map(|&number| (number, "not in the repository".to_owned()));
                entry.failed.extend(missing);
            }
            Ok::<(), std::convert::Infallible>(())
        });
        let Ok(()) = put;
        self.notes.lock().unloaded.remove(name);
        self.drain(name, replaced);
    }

    /// Notes what a model was loaded from, with the versions `as_seen`; all versions that are served.
    fn note(
        &mut self,
        name: &str,
        seen: Seen,
        plan: Option<&Arc<Plan>>,
        as_seen: &[u64],
        is_complete: bool,
    ) -> Vec<u64> {
        let snapshot = self.engine.models().snapshot();
        let served = snapshot.get(name).map(|entry| &entry.versions);
        let served: Vec<u64> = served
            .into_iter()
            .flatten()
            .map(|(&number, _)| number)
            .collect();
        let known = self.known.entry(name.to_owned()).or_default();
        known.origins.retain(|number, _| served.contains(number));
        let origins = as_seen.iter().map(|&number| (number, seen.origin(number)));
        known.origins.extend(origins);
        known.plans.retain(|number, _| served.contains(number));
        if let Some(plan) = plan {
            let plans = as_seen.iter().map(|&number| (number, Arc::clone(plan)));
            known.plans.extend(plans);
        }
        known.seen = seen;
        known.is_complete = is_complete;
        served
    }

    /// Takes a model out of the table; what it has drains.
    fn take_away(&mut self, name: &str) {
        self.known.remove(name);
        let mut taken = Vec::new();
        let taking = self.engine.models().change(name, |entry| {
            let old = std::mem::take(entry);
            taken.extend(old.versions.into_values());
            entry.draining = old.draining;
            entry.draining.extend(taken.iter().cloned());
            Ok::<(), std::convert::Infallible>(())
        });
        let Ok(()) = taking;
        self.drain(name, taken);
    }

    /// Has versions drain that are not in the table any more, and says that the model has changed.
    pub(super) fn drain(&self, name: &str, versions: Vec<Arc<ModelVersion>>) {
        let snapshot = self.engine.models().snapshot();
        let entry = snapshot.get(name);
        // All versions of one number count together, so the table says what is ready, not a version's own state.
        let ready = |number| {
            let version = entry.and_then(|entry| entry.versions.get(&number));
            let metrics = self.engine.metrics().model(name, number);
            metrics.set_ready(version.is_some_and(|version| version.is_ready()));
        };
        if let Some(entry) = entry {
            entry.failed.keys().copied().for_each(ready);
            entry.versions.keys().copied().for_each(ready);
        }
        for version in versions {
            version.drain();
            ready(version.version());
            // Nobody takes it when the server ends.
            let _ = self.draining.send(version);
        }
        self.changed.send_modify(|changes| *changes += 1);
    }
}

/// What a caller is told of a model that is not loaded as wanted.
fn not_loaded(name: &str, failures: BTreeMap<u64, String>, served: Vec<u64>) -> ManageError {
    let failures = failures.into_iter();
    ManageError::Load {
        name: name.to_owned(),
        failures: failures
            .map(|(version, reason)| (version, public_reason(&reason)))
            .collect(),
        served,
    }
}
