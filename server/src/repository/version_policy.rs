//! Which versions of a model are served.

/// Which versions of a model are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionPolicy {
    /// Every version in the repository.
    All,
    /// The newest so many.
    Latest {
        /// How many.
        count: usize,
    },
    /// These.
    Specific {
        /// Their numbers.
        versions: Vec<u64>,
    },
}

impl VersionPolicy {
    /// Those of `found` (ascending) that are served, ascending.
    #[must_use]
    pub fn select(&self, found: &[u64]) -> Vec<u64> {
        match self {
            Self::All => found.to_vec(),
            Self::Latest { count } => found[found.len().saturating_sub(*count)..].to_vec(),
            Self::Specific { versions } => found
                .iter()
                .copied()
                .filter(|version| versions.contains(version))
                .collect(),
        }
    }

    /// Versions that were asked for by number and are not among `found`.
    #[must_use]
    pub fn missing(&self, found: &[u64]) -> Vec<u64> {
        match self {
            Self::All | Self::Latest { .. } => Vec::new(),
            Self::Specific { versions } => versions
                .iter()
                .copied()
                .filter(|version| !found.contains(version))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_select_what_they_say() {
        let found = [1, 2, 5, 10];
        assert_eq!(VersionPolicy::All.select(&found), found);
        assert_eq!(VersionPolicy::Latest { count: 2 }.select(&found), [5, 10]);
        assert_eq!(VersionPolicy::Latest { count: 9 }.select(&found), found);
        let specific = VersionPolicy::Specific {
            versions: vec![10, 2, 7],
        };
        assert_eq!(specific.select(&found), [2, 10]);
        assert_eq!(specific.missing(&found), [7]);
    }
}
