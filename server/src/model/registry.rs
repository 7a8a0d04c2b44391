//! All models by name, and which version a request means.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use adjoin_schema::descriptor::Rejection;
use adjoin_schema::status::Status;
use arc_swap::ArcSwap;

use super::{ModelVersion, State};

/// The versions of one model.
#[derive(Clone, Debug, Default)]
pub struct ModelEntry {
    /// Loaded versions by number.
    pub versions: BTreeMap<u64, Arc<ModelVersion>>,
    /// Version labels.
    pub labels: BTreeMap<String, u64>,
    /// Versions that could not be loaded, and why.
    pub failed: BTreeMap<u64, String>,
}

/// All models. Reading takes no lock; a change puts a new table in place.
#[derive(Debug, Default)]
pub struct Models {
    table: ArcSwap<HashMap<String, ModelEntry>>,
    generation: AtomicU64,
}

impl ModelEntry {
    /// Numbers of the versions that are ready, ascending.
    pub fn ready_versions(&self) -> Vec<u64> {
        self.versions
            .values()
            .filter(|v| v.state() == State::Ready)
            .map(|v| v.version())
            .collect()
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

    /// Replaces a model's versions.
    pub fn put(&self, name: &str, entry: ModelEntry) {
        self.table.rcu(|table| {
            let mut table = HashMap::clone(table);
            table.insert(name.to_owned(), entry.clone());
            table
        });
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// The version that a request means: the one with that number, else the labelled one, else the newest
    /// that is ready.
    ///
    /// # Errors
    /// `ModelNotFound`, `VersionNotFound` with the number, or `ModelNotReady`.
    pub fn find(
        &self,
        name: &str,
        version: u64,
        label: &str,
    ) -> Result<Arc<ModelVersion>, Rejection> {
        let table = self.table.load();
        let entry = table
            .get(name)
            .ok_or_else(|| Rejection::from(Status::ModelNotFound))?;
        let not_found = |number| Rejection::new(Status::VersionNotFound, [number, 0]);
        let number = match (version, label) {
            (0, "") => None,
            (0, label) => Some(*entry.labels.get(label).ok_or_else(|| not_found(0))?),
            (number, _) => Some(number),
        };
        let Some(number) = number else {
            let newest = entry
                .versions
                .values()
                .rev()
                .find(|v| v.state() == State::Ready);
            return newest.cloned().ok_or_else(|| Status::ModelNotReady.into());
        };
        let found = entry
            .versions
            .get(&number)
            .ok_or_else(|| not_found(number))?;
        if found.state() == State::Ready {
            Ok(Arc::clone(found))
        } else {
            Err(Status::ModelNotReady.into())
        }
    }

    /// All loaded versions.
    pub fn all(&self) -> Vec<Arc<ModelVersion>> {
        self.table
            .load()
            .values()
            .flat_map(|entry| entry.versions.values().cloned())
            .collect()
    }
}
