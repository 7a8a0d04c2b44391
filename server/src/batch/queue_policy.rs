//! How long requests of a level may wait, what happens then, and how many may. Pure.

use std::collections::BTreeMap;

use super::queue::Ticket;

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
    /// Gives a ticket its timeout; `asked_ns` is the longest wait that the request names, 0 if it names none. At a level
    /// whose policy says nothing of time, that is a deadline like any other.
    pub fn set_timeout(&self, ticket: &mut Ticket, asked_ns: u64) {
        let asked_ns = if asked_ns == 0 { u64::MAX } else { asked_ns };
        if self.default_timeout_ns == u64::MAX && !self.allow_timeout_override {
            let end_ns = ticket.enqueued_ns.saturating_add(asked_ns);
            ticket.deadline_ns = ticket.deadline_ns.min(end_ns);
            return;
        }
        let wait_ns = if self.allow_timeout_override {
            asked_ns.min(self.default_timeout_ns)
        } else {
            self.default_timeout_ns
        };
        ticket.timeout_ns = ticket.enqueued_ns.saturating_add(wait_ns);
        ticket.timeout_action = self.timeout_action;
    }
}

/// The policies of all levels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuePolicies {
    /// For levels without a policy of their own.
    pub default: LevelPolicy,
    /// Of single levels.
    pub levels: BTreeMap<u16, LevelPolicy>,
    /// Whether responses leave in the order in which requests came.
    pub is_in_order: bool,
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

    /// Timeout and deadline of a request that came at 1000.
    fn times(policy: &LevelPolicy, asked_ns: u64) -> (u64, u64) {
        let mut ticket = Ticket {
            flow: 0,
            request_id: 0,
            priority: 1,
            rows: 1,
            compatibility: 0,
            enqueued_ns: 1000,
            deadline_ns: 5000,
            timeout_ns: u64::MAX,
            timeout_action: TimeoutAction::Reject,
        };
        policy.set_timeout(&mut ticket, asked_ns);
        (ticket.timeout_ns, ticket.deadline_ns)
    }

    #[test]
    fn a_request_names_a_shorter_wait_only_where_it_may() {
        let policy = LevelPolicy {
            default_timeout_ns: 100,
            ..LevelPolicy::default()
        };
        assert_eq!(times(&policy, 50), (1100, 5000));
        let open = LevelPolicy {
            allow_timeout_override: true,
            ..policy
        };
        let waits = [0, 50, 200].map(|asked_ns| times(&open, asked_ns).0);
        assert_eq!(waits, [1100, 1050, 1100]);
        let unlimited = LevelPolicy {
            default_timeout_ns: u64::MAX,
            ..open
        };
        assert_eq!(times(&unlimited, 0), (u64::MAX, 5000));
    }

    #[test]
    fn without_a_policy_what_a_request_names_is_a_deadline() {
        let none = LevelPolicy::default();
        assert_eq!(times(&none, 0), (u64::MAX, 5000));
        assert_eq!(times(&none, 50), (u64::MAX, 1050));
        assert_eq!(times(&none, 9000), (u64::MAX, 5000));
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
