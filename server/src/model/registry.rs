//! All models by name, and which version a request means.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use adjoin_schema::descriptor::Rejection;
use adjoin_schema::status::Status;
use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::version::Claim;
use super::{ModelVersion, Split};

/// The versions of one model.
#[derive(Clone, Debug, Default)]
pub struct ModelEntry {
    /// Loaded versions by number.
    pub versions: BTreeMap<u64, Arc<ModelVersion>>,
    /// Version labels of the configuration.
    pub labels: BTreeMap<String, u64>,
    /// Version labels that an operator set while the model was served; they stand over those of the
    /// configuration. 0: the label was taken away.
    pub assigned: BTreeMap<String, u64>,
    /// How requests that name no version are divided; `None`: they go to the newest.
    pub split: Option<Split>,
    /// Versions that could not be loaded, and why.
    pub failed: BTreeMap<u64, String>,
    /// Versions that take no request any more and still have some.
    pub draining: Vec<Arc<ModelVersion>>,
}

/// All models. Reading takes no lock; a change puts a new table in place.
#[derive(Debug, Default)]
pub struct Models {
    table: ArcSwap<HashMap<String, ModelEntry>>,
    generation: AtomicU64,
    /// Held by those who make a new table of the present one.
    changing: Mutex<()>,
}

impl ModelEntry {
    /// Numbers of the versions that are ready, ascending.
    pub fn ready_versions(&self) -> Vec<u64> {
        self.versions
            .values()
            .filter(|v| v.is_ready())
            .map(|v| v.version())
            .collect()
    }

    /// Labels and the versions that they name now.
    pub fn current_labels(&self) -> BTreeMap<&str, u64> {
        let all = self.labels.iter().chain(&self.assigned);
        let mut labels: BTreeMap<&str, u64> = all
            .map(|(label, &version)| (label.as_str(), version))
            .collect();
        labels.retain(|_, version| *version > 0);
        labels
    }

    fn labelled(&self, label: &str) -> Option<u64> {
        let version = self.assigned.get(label).or_else(|| self.labels.get(label));
        version.copied().filter(|&version| version > 0)
    }

    /// Has the split divide requests between the versions that take some.
    fn divide(&mut self) {
        let Self {
            versions, split, ..
        } = self;
        if let Some(split) = split {
            split.serve(|number| {
                versions
                    .get(&number)
                    .is_some_and(|version| version.is_ready())
            });
        }
    }

    /// Whether clients may know of it: it is served, or should be.
    fn is_known(&self) -> bool {
        !self.versions.is_empty() || !self.failed.is_empty()
    }
}

impl Models {
    /// The table as it is now.
    pub fn snapshot(&self) -> Arc<HashMap<String, ModelEntry>> {
        self.table.load_full()
    }

    /// Changes with every change of the table: what was resolved before has to be resolved again.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Changes what is said of a model, all at once for whoever looks. One that was not there begins empty, and
    /// one of which nothing is left goes.
    ///
    /// # Errors
    /// Those of `change`; then nothing is changed.
    pub fn change<E>(
        &self,
        name: &str,
        change: impl FnOnce(&mut ModelEntry) -> Result<(), E>,
    ) -> Result<(), E> {
        let _changing = self.changing.lock();
        let mut table = HashMap::clone(&self.table.load());
        let mut entry = table.remove(name).unwrap_or_default();
        change(&mut entry)?;
        entry.divide();
        if entry.is_known() || !entry.draining.is_empty() {
            table.insert(name.to_owned(), entry);
        }
        self.table.store(Arc::new(table));
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Has all versions refuse requests that run on the server's device, which has lost its context. Those that took some
    /// until now.
    pub fn lose_device(&self, reason: &str) -> Vec<Arc<ModelVersion>> {
        let _changing = self.changing.lock();
        let mut table = HashMap::clone(&self.table.load());
        let mut lost = Vec::new();
        for entry in table.values_mut() {
            let versions = entry.versions.values();
            lost.extend(versions.filter(|version| version.lose(reason)).cloned());
            entry.divide();
        }
        if !lost.is_empty() {
            self.table.store(Arc::new(table));
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        lost
    }

    /// Takes a version off the list of those that drain. Nothing that was resolved changes by that.
    pub fn forget(&self, drained: &Arc<ModelVersion>) {
        let _changing = self.changing.lock();
        let mut table = HashMap::clone(&self.table.load());
        let name: &str = drained.name();
        if let Some(entry) = table.get_mut(name) {
            entry
                .draining
                .retain(|version| !Arc::ptr_eq(version, drained));
            if entry.draining.is_empty() && !entry.is_known() {
                table.remove(name);
            }
        }
        self.table.store(Arc::new(table));
    }

    /// The version that a description is asked of: the one with that number, else the labelled one, else the
    /// newest that is ready.
    ///
    /// # Errors
    /// `ModelNotFound`, `VersionNotFound` with the number, or `ModelNotReady`.
    pub fn find(
        &self,
        name: &str,
        version: u64,
        label: &str,
    ) -> Result<Arc<ModelVersion>, Rejection> {
        self.look_up(name, version, label, |_| None)
    }

    /// The version that a request runs on: as [`Models::find`], but where none is named and the model has a
    /// split, the one whose turn it is.
    ///
    /// # Errors
    /// As [`Models::find`].
    pub fn choose(
        &self,
        name: &str,
        version: u64,
        label: &str,
    ) -> Result<Arc<ModelVersion>, Rejection> {
        self.look_up(name, version, label, |entry| entry.split.as_ref()?.draw())
    }

    /// The version that a request runs on, which cannot be unloaded before the request is in its queue.
    ///
    /// # Errors
    /// As [`Models::find`].
    pub fn claim(
        &self,
        name: &str,
        version: u64,
        label: &str,
    ) -> Result<(Arc<ModelVersion>, Claim), Rejection> {
        loop {
            let version = self.choose(name, version, label)?;
            // Unloaded in between: the table has others by now, or none.
            if let Some(claim) = version.claim() {
                return Ok((version, claim));
            }
        }
    }

    fn look_up(
        &self,
        name: &str,
        version: u64,
        label: &str,
        draw: impl FnOnce(&ModelEntry) -> Option<u64>,
    ) -> Result<Arc<ModelVersion>, Rejection> {
        let table = self.table.load();
        let entry = table.get(name).filter(|entry| entry.is_known());
        let entry = entry.ok_or_else(|| Rejection::from(Status::ModelNotFound))?;
        let not_found = |number| Rejection::new(Status::VersionNotFound, [number, 0]);
        let number = match (version, label) {
            (0, "") => draw(entry),
            (0, label) => Some(entry.labelled(label).ok_or_else(|| not_found(0))?),
            (number, _) => Some(number),
        };
        let Some(number) = number else {
            let newest = entry.versions.values().rev().find(|v| v.is_ready());
            return newest.cloned().ok_or_else(|| Status::ModelNotReady.into());
        };
        let found = entry
            .versions
            .get(&number)
            .ok_or_else(|| not_found(number))?;
        if found.is_ready() {
            Ok(Arc::clone(found))
        } else {
            Err(Status::ModelNotReady.into())
        }
    }

    /// All loaded versions, also those that drain.
    pub fn all(&self) -> Vec<Arc<ModelVersion>> {
        let table = self.table.load();
        let versions = table
            .values()
            .flat_map(|entry| entry.versions.values().chain(&entry.draining));
        versions.cloned().collect()
    }
}
