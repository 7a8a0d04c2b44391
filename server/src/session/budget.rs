//! How much of the control group's memory sessions may have: so much that the kernel does not end the server.
//!
//! A memory limit is enforced by killing: the server touches a session's pages when the session opens, and past the limit
//! that ends the server with all its sessions. So what is left is looked up first. Everything that the group uses counts:
//! models, the engines' memory, sessions. The share that sessions may not have is there for what grows
//! afterwards: engines keep the memory of their largest batch, messages of the Open Inference Protocol and the response
//! cache come and go.

use crate::cgroup::{Cgroup, MemoryLimit};

/// The memory limit of the server's control group, and the share of it up to which sessions are opened.
#[derive(Clone, Debug, Default)]
pub struct MemoryBudget {
    cgroup: Cgroup,
    /// 0: none is kept.
    percent: u8,
}

/// What a memory budget comes to at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryAccount {
    /// The limit of the group that leaves the least.
    pub limit: MemoryLimit,
    /// Bytes up to which sessions are opened: the share of the limit.
    pub budget: u64,
}

impl MemoryAccount {
    /// Bytes that new sessions may take.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.budget.saturating_sub(self.limit.used)
    }
}

impl MemoryBudget {
    /// So many hundredths of the limit of `cgroup`; 0 keeps no budget.
    #[must_use]
    pub fn new(cgroup: Cgroup, percent: u8) -> Self {
        Self { cgroup, percent }
    }

    /// What it comes to now; `None` without a limit or without a budget.
    #[must_use]
    pub fn account(&self) -> Option<MemoryAccount> {
        if self.percent == 0 {
            return None;
        }
        let share = |limit: MemoryLimit| MemoryAccount {
            limit,
            // The limit is below 2^60, and a hundred times that below 2^67.
            budget: u64::try_from(u128::from(limit.bytes) * u128::from(self.percent) / 100)
                .unwrap_or(u64::MAX),
        };
        self.cgroup
            .memory_limits()
            .map(share)
            .min_by_key(MemoryAccount::left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::tests::Groups;

    #[test]
    fn the_share_of_the_limit_less_what_is_used_is_left() {
        let groups = Groups::new(&[
            ("memory.max", "1000"),
            ("memory.current", "300"),
            ("memory.stat", "inactive_file 100\n"),
        ]);
        let cgroup = groups.version_2("/");
        let account = MemoryBudget::new(cgroup.clone(), 90).account().unwrap();
        assert_eq!((account.budget, account.left()), (900, 700));
        assert_eq!(MemoryBudget::new(cgroup.clone(), 0).account(), None);
        groups.put(&[("memory.current", "2000")]);
        let account = MemoryBudget::new(cgroup.clone(), 90).account().unwrap();
        assert_eq!(account.left(), 0);
        groups.put(&[("memory.max", "max")]);
        assert_eq!(MemoryBudget::new(cgroup, 90).account(), None);
    }

    #[test]
    fn the_group_that_leaves_the_least_decides_by_its_share() {
        // The inner group has less left; of their shares the outer one has.
        let groups = Groups::new(&[
            ("pod/memory.max", "10000"),
            ("pod/memory.current", "8900"),
            ("pod/c/memory.max", "1000"),
            ("pod/c/memory.current", "100"),
        ]);
        let account = MemoryBudget::new(groups.version_2("/pod/c"), 90).account();
        let account = account.unwrap();
        assert_eq!((account.limit.bytes, account.left()), (10_000, 100));
    }
}
