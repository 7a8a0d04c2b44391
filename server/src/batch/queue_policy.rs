//! How long requests of a level may wait, what happens then, and how many may. Pure.

use std::collections::BTreeMap;

/// What happens to a request that has waited for too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeoutAction {
    /// It is refused.
    #[default]
    Reject,
    /// It goes behind all others.
    Delay,
}

/// What holds for the requests of a level while they wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelPolicy {
    /// What happens to a request that has waited for too long.
    pub timeout_action: TimeoutAction,
    /// Longest wait, in ns; `u64::MAX`: as long as it takes.
    pub default_timeout_ns: u64,
    /// Whether a request may name a shorter one.
    pub allow_timeout_override: bool,
    /// Most waiting requests of the level.
    pub count_max: usize,
}

impl Default for LevelPolicy {
    fn default() -> Self {
        Self {
            timeout_action: TimeoutAction::Reject,
            default_timeout_ns: u64::MAX,
            allow_timeout_override: false,
            count_max: usize::MAX,
        }
    }
}

impl LevelPolicy {
    /// Longest wait of a request that names one of `asked_ns`; 0 if it names none.
    #[must_use]
    pub fn timeout_ns(&self, asked_ns: u64) -> u64 {
        if self.allow_timeout_override && asked_ns > 0 {
            asked_ns.min(self.default_timeout_ns)
        } else {
            self.default_timeout_ns
        }
    }
}

/// The policies of all levels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuePolicies {
    /// For levels without a policy of their own.
    pub default: LevelPolicy,
    /// Of single levels.
    pub levels: BTreeMap<u16, LevelPolicy>,
}

impl QueuePolicies {
    /// The policy of a level.
    #[must_use]
    pub fn of(&self, level: u16) -> &LevelPolicy {
        self.levels.get(&level).unwrap_or(&self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_a_shorter_wait_only_where_it_may() {
        let policy = LevelPolicy {
            default_timeout_ns: 100,
            ..LevelPolicy::default()
        };
        assert_eq!(policy.timeout_ns(50), 100);
        let open = LevelPolicy {
            allow_timeout_override: true,
            ..policy
        };
        assert_eq!(
            [0, 50, 200].map(|asked| open.timeout_ns(asked)),
            [100, 50, 100]
        );
    }

    #[test]
    fn levels_have_their_own_policy_or_the_default() {
        let own = LevelPolicy {
            count_max: 3,
            ..LevelPolicy::default()
        };
        let policies = QueuePolicies {
            levels: [(2, own)].into(),
            ..QueuePolicies::default()
        };
        assert_eq!(policies.of(2), &own);
        assert_eq!(policies.of(1), &LevelPolicy::default());
    }
}
