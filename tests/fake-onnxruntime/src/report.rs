//! What the library counts, and what it found wrong.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counts of one process.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Report {
    /// For each session on the device, what its providers were told, in the order of preference.
    pub sessions: Vec<Vec<Provider>>,
    /// Sessions on the device that were not released.
    pub sessions_live: usize,
    /// Values over memory of the device that were not released.
    pub values_live: usize,
    /// Runs on the device.
    pub runs: u64,
    /// The same by the first dimension of their first input.
    pub runs_by_rows: BTreeMap<i64, u64>,
    /// Of them, those that came back before their work was done.
    pub runs_not_waited_for: u64,
    /// Runs whose work is not done.
    pub under_way: u64,
    /// The most that there were at once.
    pub under_way_max: u64,
    /// Graphs that were captured.
    pub captures: u64,
    /// Runs that replayed one.
    pub replays: u64,
    /// Engines of the provider of TensorRT that were built.
    pub engines_built: u64,
    /// Those that were found in a cache.
    pub engines_loaded: u64,
    /// Engines that a run had built anew, as its shapes were outside of the profile.
    pub rebuilds: u64,
    /// What no correct program does, in words.
    pub violations: Vec<String>,
}

/// A provider of a session.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Provider {
    /// `cuda` or `tensorrt`.
    pub name: String,
    /// What it was told.
    pub options: BTreeMap<String, String>,
}

impl Report {
    /// # Panics
    /// If anything was wrong, or is left of what the process made.
    pub fn assert_clean(&self) {
        assert_eq!(self.violations, Vec::<String>::new(), "{self:#?}");
        let left = (self.sessions_live, self.values_live, self.under_way);
        assert_eq!(left, (0, 0, 0), "something leaked: {self:#?}");
    }
}
