//! What the repository holds and what of it is served, as callers see it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::ModelEntry;

/// Where a model version is, in the protocol's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexState {
    /// In the directory, and never loaded. The protocol writes it as nothing.
    Unknown,
    /// Takes requests.
    Ready,
    /// Not served; the reason says why.
    Unavailable,
    /// Being read and warmed up.
    Loading,
    /// Finishes what it has.
    Unloading,
}

impl IndexState {
    /// The protocol's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Ready => "READY",
            Self::Unavailable => "UNAVAILABLE",
            Self::Loading => "LOADING",
            Self::Unloading => "UNLOADING",
        }
    }
}

/// A line of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Name of the model.
    pub name: String,
    /// Number of the version; empty for a model that was never loaded.
    pub version: String,
    /// Where it is.
    pub state: IndexState,
    /// Why it is not served, or why a newer file of it is not; without paths of the server.
    pub reason: String,
}

/// What is known beside the table of models.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Versions that are being loaded.
    pub(super) loading: BTreeSet<(String, u64)>,
    /// Versions that callers have unloaded and not loaded since.
    pub(super) unloaded: BTreeMap<String, BTreeSet<u64>>,
}

/// The index, by name and number; `in_directory` are the names that the repository holds.
pub(super) fn index(
    models: &HashMap<String, ModelEntry>,
    notes: &Notes,
    in_directory: impl IntoIterator<Item = String>,
) -> Vec<IndexEntry> {
    let mut versions: BTreeMap<(String, u64), (IndexState, String)> = BTreeMap::new();
    for (name, unloaded) in &notes.unloaded {
        for &version in unloaded {
            let line = (IndexState::Unavailable, "unloaded".to_owned());
            versions.insert((name.clone(), version), line);
        }
    }
    // What comes later is truer.
    for (name, entry) in models {
        let mut put = |version, state, reason: &str| {
            versions.insert((name.clone(), version), (state, reason.to_owned()));
        };
        for (&version, reason) in &entry.failed {
            put(version, IndexState::Unavailable, reason);
        }
        for version in &entry.draining {
            put(version.version(), IndexState::Unloading, "");
        }
        for (&number, version) in &entry.versions {
            if let Some(reason) = version.loss() {
                put(number, IndexState::Unavailable, &reason);
                continue;
            }
            let reason = entry.failed.get(&number).map_or("", String::as_str);
            put(number, IndexState::Ready, reason);
        }
    }
    for (name, version) in &notes.loading {
        let key = (name.clone(), *version);
        let line = versions
            .entry(key)
            .or_insert((IndexState::Loading, String::new()));
        if line.0 != IndexState::Ready {
            line.0 = IndexState::Loading;
        }
    }
    let mut never_loaded: BTreeSet<String> = in_directory.into_iter().collect();
    let mut entries: Vec<IndexEntry> = versions
        .into_iter()
        .map(|((name, version), (state, reason))| {
            never_loaded.remove(&name);
            IndexEntry {
                name,
                version: version.to_string(),
                state,
                reason: public_reason(&reason),
            }
        })
        .collect();
    entries.extend(never_loaded.into_iter().map(|name| IndexEntry {
        name,
        version: String::new(),
        state: IndexState::Unknown,
        reason: String::new(),
    }));
    // Stable: versions stay in the order of their numbers.
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

/// A reason without what only the operator's log may show: paths of the server.
#[must_use]
pub fn public_reason(reason: &str) -> String {
    let hide = |word: &str| {
        if word.contains('/') {
            "(path in the server's log)".to_owned()
        } else {
            word.to_owned()
        }
    };
    reason.split(' ').map(hide).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_line_and_what_is_truer_wins() {
        let entry = ModelEntry {
            failed: [(1, "no file".to_owned()), (2, "bad".to_owned())].into(),
            ..ModelEntry::default()
        };
        let models = [("a".to_owned(), entry)].into();
        let notes = Notes {
            loading: [("a".to_owned(), 2), ("c".to_owned(), 10)].into(),
            unloaded: [("a".to_owned(), [1].into()), ("c".to_owned(), [9].into())].into(),
        };
        let names = ["a", "b", "c"].map(str::to_owned);
        let lines: Vec<_> = index(&models, &notes, names)
            .into_iter()
            .map(|line| {
                format!(
                    "{} {} {} {}",
                    line.name,
                    line.version,
                    line.state.as_str(),
                    line.reason
                )
            })
            .collect();
        assert_eq!(
            lines,
            [
                "a 1 UNAVAILABLE no file",
                "a 2 LOADING bad",
                "b   ",
                "c 9 UNAVAILABLE unloaded",
                "c 10 LOADING ",
            ]
        );
    }

    #[test]
    fn reasons_lose_the_servers_paths() {
        assert_eq!(
            public_reason("cannot read /srv/models/a: gone"),
            "cannot read (path in the server's log) gone"
        );
    }
}
