//! What a caller may be allowed, one by one and as sets.

use std::fmt;

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Right {
    /// Run models, and open sessions to do so.
    Infer,
    /// Read what is served: metadata, configuration, statistics, lists, metrics.
    Inspect,
    /// Ask whether the server and its models are alive and ready. Everybody has it.
    Health,
    /// Load and unload models, drain the server.
    Control,
    /// Register named shared memory, list it, give it up.
    Regions,
    /// Read and change settings of the trace and the log.
    Settings,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Infer,
        Self::Inspect,
        Self::Health,
        Self::Control,
        Self::Regions,
        Self::Settings,
    ];

    /// Its name in configuration and token files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Infer => "infer",
            Self::Inspect => "inspect",
            Self::Health => "health",
            Self::Control => "control",
            Self::Regions => "regions",
            Self::Settings => "settings",
        }
    }

    /// The right of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|right| right.name() == name)
    }
}

impl fmt::Display for Right {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    /// The set of these.
    #[must_use]
    pub const fn of(rights: &[Right]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < rights.len() {
            bits |= 1 << rights[index] as u8;
            index += 1;
        }
        Self(bits)
    }

    /// What is in either.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a right is in it.
    #[must_use]
    pub const fn contains(self, right: Right) -> bool {
        self.0 & (1 << right as u8) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_was_put_in_and_nothing_else() {
        for right in Right::ALL {
            assert_eq!(Right::from_name(right.name()), Some(right));
            let alone = Rights::of(&[right]);
            for other in Right::ALL {
                assert_eq!(alone.contains(other), other == right);
            }
        }
        assert_eq!(Right::from_name("Infer"), None);
        let both = Rights::of(&[Right::Infer]).with(Rights::of(&[Right::Settings]));
        assert_eq!(both, Rights::of(&[Right::Settings, Right::Infer]));
    }
}
