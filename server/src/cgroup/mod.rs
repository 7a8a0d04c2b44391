//! Control groups of either version: the limits that a container or a service has.
//!
//! A limit holds for a group and all groups beneath it, so the limits of every group on the way up count, as far as this
//! process sees them. In a container that is usually its own group alone: what the pod or the node sets above it stays out of
//! sight, except that version 1 tells the smallest limit of memory on the whole way.

mod place;

use std::path::{Path, PathBuf};

/// Version 1 writes "no limit" as a number near 2^63.
const NO_LIMIT: u64 = 1 << 60;

/// The control groups of this process. Where they are is found once; their files are read anew by each call, as limits may
/// change while a process runs.
#[derive(Clone, Debug, Default)]
pub struct Cgroup {
    /// Directories of the group that limits memory and of those above it.
    memory: Vec<PathBuf>,
    /// The same for processor time.
    cpu: Vec<PathBuf>,
}

/// A limit of memory, and what is used of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// The limit in bytes. The kernel ends a process of the group when this is passed and nothing can be dropped.
    pub bytes: u64,
    /// Bytes that the group uses, without files in the cache that nobody used for a while: the kernel drops those first.
    pub used: u64,
}

impl MemoryLimit {
    /// Bytes that are left.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.bytes.saturating_sub(self.used)
    }
}

impl Cgroup {
    /// The groups that this process is in now.
    #[must_use]
    pub fn of_this_process() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self::new(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
    }

    fn new(membership: &str, mountinfo: &str) -> Self {
        let directories = |controller| place::directories(membership, mountinfo, controller);
        Self {
            memory: directories("memory"),
            cpu: directories("cpu"),
        }
    }

    /// The limits of memory from this process's group upwards; none if there is no limit.
    pub fn memory_limits(&self) -> impl Iterator<Item = MemoryLimit> + '_ {
        let of_group = |directory: &PathBuf| {
            let (bytes, used) = match number(&directory.join("memory.current")) {
                Some(used) => (number(&directory.join("memory.max"))?, used),
                None => (
                    number(&directory.join("memory.limit_in_bytes"))?,
                    number(&directory.join("memory.usage_in_bytes"))?,
                ),
            };
            limited(bytes, used.saturating_sub(droppable(directory)))
        };
        self.memory
            .iter()
            .filter_map(of_group)
            .chain(self.limit_from_above())
    }

    /// The limit that leaves the least.
    #[must_use]
    pub fn tightest_memory_limit(&self) -> Option<MemoryLimit> {
        self.memory_limits().min_by_key(MemoryLimit::free)
    }

    /// What version 1 says of groups above that are out of sight. What else those hold is not told: the usage is this
    /// group's.
    fn limit_from_above(&self) -> Option<MemoryLimit> {
        let own = self.memory.first()?;
        let bytes = field(&own.join("memory.stat"), "hierarchical_memory_limit")?;
        let used = number(&own.join("memory.usage_in_bytes"))?;
        limited(bytes, used.saturating_sub(droppable(own)))
    }

    /// Processor time for each time, as a number of cores; `None` if there is no limit.
    #[must_use]
    pub fn cores(&self) -> Option<f64> {
        let of_group = |directory: &PathBuf| {
            let (quota, period) = match std::fs::read_to_string(directory.join("cpu.max")) {
                Ok(text) => {
                    let mut words = text.split_whitespace();
                    (words.next()?.parse().ok()?, words.next()?.parse().ok()?)
                }
                Err(_) => (
                    number(&directory.join("cpu.cfs_quota_us"))?,
                    number(&directory.join("cpu.cfs_period_us"))?,
                ),
            };
            (period > 0).then(|| quota as f64 / period as f64)
        };
        self.cpu.iter().filter_map(of_group).min_by(f64::total_cmp)
    }
}

fn limited(bytes: u64, used: u64) -> Option<MemoryLimit> {
    (bytes < NO_LIMIT).then_some(MemoryLimit { bytes, used })
}

/// The number that a file holds; `None` also for `max`, which is no limit.
fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The value of one line of a file of names and numbers.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let (_, value) = lines.find(|(key, _)| *key == name)?;
    value.trim().parse().ok()
}

/// Bytes of files in the cache that nobody used for a while.
fn droppable(directory: &Path) -> u64 {
    let stat = directory.join("memory.stat");
    field(&stat, "total_inactive_file")
        .or_else(|| field(&stat, "inactive_file"))
        .unwrap_or(0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A file system of control groups that a test writes.
    pub(crate) struct Groups {
        root: tempfile::TempDir,
    }

    impl Groups {
        pub(crate) fn new(files: &[(&str, &str)]) -> Self {
            let groups = Self {
                root: tempfile::tempdir().unwrap(),
            };
            groups.put(files);
            groups
        }

        pub(crate) fn put(&self, files: &[(&str, &str)]) {
            for (name, text) in files {
                let path = self.root.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
        }

        /// The groups of a process in `group` of a version 2 hierarchy that is mounted here.
        pub(crate) fn version_2(&self, group: &str) -> Cgroup {
            let root = self.root.path().display();
            let mounts = format!("9 1 0:9 / {root} rw - cgroup2 cgroup2 rw\n");
            Cgroup::new(&format!("0::{group}\n"), &mounts)
        }

        /// The groups of a process in `group` of version 1, where the mount shows the tree from `mounted` on.
        pub(crate) fn version_1(&self, group: &str, mounted: &str) -> Cgroup {
            let root = self.root.path().display();
            let mounts = format!(
                "7 1 0:7 {mounted} {root}/memory rw - cgroup cgroup rw,memory\n\
                 8 1 0:8 {mounted} {root}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
            );
            let membership = format!("4:memory:{group}\n3:cpu,cpuacct:{group}\n0::/\n");
            Cgroup::new(&membership, &mounts)
        }
    }

    #[test]
    fn version_2_takes_the_tightest_group_on_the_way_up() {
        let groups = Groups::new(&[
            ("pod/memory.max", "1000\n"),
            ("pod/memory.current", "900\n"),
            ("pod/memory.stat", "anon 1\ninactive_file 300\n"),
            ("pod/one/memory.max", "2000\n"),
            ("pod/one/memory.current", "10\n"),
            ("pod/one/cpu.max", "150000 100000\n"),
            ("pod/cpu.max", "max 100000\n"),
        ]);
        let cgroup = groups.version_2("/pod/one");
        let all: Vec<_> = cgroup.memory_limits().map(|limit| limit.bytes).collect();
        assert_eq!(all, [2000, 1000]);
        let tightest = cgroup.tightest_memory_limit().unwrap();
        assert_eq!(
            (tightest.bytes, tightest.used, tightest.free()),
            (1000, 600, 400)
        );
        assert_eq!(cgroup.cores(), Some(1.5));
    }

    #[test]
    fn a_limit_is_read_anew_each_time() {
        let groups = Groups::new(&[("memory.max", "max\n"), ("memory.current", "10\n")]);
        let cgroup = groups.version_2("/");
        assert_eq!(cgroup.tightest_memory_limit(), None);
        groups.put(&[("memory.max", "500\n")]);
        assert_eq!(
            cgroup.tightest_memory_limit(),
            Some(MemoryLimit {
                bytes: 500,
                used: 10
            })
        );
    }

    #[test]
    fn version_1_in_a_container_is_at_the_root_of_the_mount() {
        let groups = Groups::new(&[
            ("memory/memory.limit_in_bytes", "5000\n"),
            ("memory/memory.usage_in_bytes", "1000\n"),
            ("cpu/cpu.cfs_quota_us", "-1\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
        ]);
        for (group, mounted) in [("/docker/abc", "/docker/abc"), ("/", "/"), ("/", "/../..")] {
            let cgroup = groups.version_1(group, mounted);
            assert_eq!(
                cgroup.tightest_memory_limit().map(|limit| limit.free()),
                Some(4000),
                "{group} under {mounted}"
            );
            assert_eq!(cgroup.cores(), None);
        }
    }

    #[test]
    fn version_1_tells_of_a_limit_that_is_out_of_sight() {
        let groups = Groups::new(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/memory.usage_in_bytes", "700\n"),
            (
                "memory/memory.stat",
                "hierarchical_memory_limit 3000\ntotal_inactive_file 200\n",
            ),
        ]);
        let cgroup = groups.version_1("/pod/abc", "/pod/abc");
        assert_eq!(
            cgroup.tightest_memory_limit(),
            Some(MemoryLimit {
                bytes: 3000,
                used: 500
            })
        );
    }

    #[test]
    fn no_groups_and_broken_files_are_no_limits() {
        let groups = Groups::new(&[
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/memory.usage_in_bytes", "1\n"),
            ("memory.max", "much\n"),
            ("memory.current", "1\n"),
        ]);
        assert_eq!(groups.version_1("/", "/").tightest_memory_limit(), None);
        assert_eq!(groups.version_2("/").tightest_memory_limit(), None);
        assert_eq!(Cgroup::new("", "").tightest_memory_limit(), None);
        assert_eq!(Cgroup::new("", "").cores(), None);
    }
}
