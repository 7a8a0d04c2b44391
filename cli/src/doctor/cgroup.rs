//! Limits that a container or a service has: control groups of either version.

use std::path::{Path, PathBuf};

/// Version 1 writes "no limit" as a number near 2^63.
const NO_LIMIT: u64 = 1 << 60;

/// The control groups of this process.
#[derive(Clone, Debug)]
pub(super) struct Cgroup {
    /// Where the file systems of control groups are mounted.
    mount: PathBuf,
    /// Lines of `/proc/self/cgroup`.
    lines: Vec<String>,
}

/// A limit of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemoryLimit {
    pub(super) bytes: u64,
    /// What is left of it, with files that can be dropped from the cache.
    pub(super) free: u64,
}

impl Cgroup {
    pub(super) fn of_this_process() -> Self {
        let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::new(Path::new("/sys/fs/cgroup"), &text)
    }

    fn new(mount: &Path, text: &str) -> Self {
        Self {
            mount: mount.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
        }
    }

    /// The limit that leaves the least; `None` if there is none.
    pub(super) fn memory(&self) -> Option<MemoryLimit> {
        let of = |directory: PathBuf| {
            let read = |two: &str, one: &str| {
                number(&directory.join(two)).or_else(|| number(&directory.join(one)))
            };
            let bytes =
                read("memory.max", "memory.limit_in_bytes").filter(|&bytes| bytes < NO_LIMIT)?;
            let used = read("memory.current", "memory.usage_in_bytes").unwrap_or(0);
            let used = used.saturating_sub(droppable(&directory));
            Some(MemoryLimit {
                bytes,
                free: bytes.saturating_sub(used),
            })
        };
        self.directories("memory")
            .filter_map(of)
            .min_by_key(|limit| limit.free)
    }

    /// Processor time for each time, as a number of cores; `None` if there is no limit.
    pub(super) fn cores(&self) -> Option<f64> {
        let of = |directory: PathBuf| {
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
        self.directories("cpu")
            .filter_map(of)
            .min_by(f64::total_cmp)
    }

    /// The directories of a controller, from this process's group up to the root. In a container the group
    /// may be one of the host's, which is not there; then its root is this process's group.
    fn directories<'c>(&'c self, controller: &'c str) -> impl Iterator<Item = PathBuf> + 'c {
        self.lines.iter().flat_map(move |line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next().unwrap_or(""), fields.next().unwrap_or("/"));
            let roots = if controllers.is_empty() {
                vec![self.mount.clone(), self.mount.join("unified")]
            } else if controllers.split(',').any(|name| name == controller) {
                vec![self.mount.join(controllers), self.mount.join(controller)]
            } else {
                Vec::new()
            };
            let path = path.trim_start_matches('/').to_owned();
            roots.into_iter().flat_map(move |root| {
                let group = root.join(&path);
                group
                    .ancestors()
                    .take_while(|at| at.starts_with(&root))
                    .map(Path::to_owned)
                    .collect::<Vec<_>>()
            })
        })
    }
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Bytes of files in the cache that nobody used for a while.
fn droppable(directory: &Path) -> u64 {
    let text = std::fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines
            .find(|(name, _)| *name == key)
            .and_then(|(_, value)| value.parse().ok())
    };
    value("total_inactive_file")
        .or_else(|| value("inactive_file"))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn version_2_takes_the_tightest_group_on_the_way_up() {
        let root = tempfile::tempdir().unwrap();
        put(
            root.path(),
            &[
                ("pod/memory.max", "1000\n"),
                ("pod/memory.current", "900\n"),
                ("pod/memory.stat", "anon 1\ninactive_file 300\n"),
                ("pod/one/memory.max", "max\n"),
                ("pod/one/cpu.max", "150000 100000\n"),
                ("pod/cpu.max", "max 100000\n"),
            ],
        );
        let cgroup = Cgroup::new(root.path(), "0::/pod/one\n");
        assert_eq!(
            cgroup.memory(),
            Some(MemoryLimit {
                bytes: 1000,
                free: 400
            })
        );
        assert_eq!(cgroup.cores(), Some(1.5));
    }

    #[test]
    fn version_1_in_a_container_is_at_the_root() {
        let root = tempfile::tempdir().unwrap();
        put(
            root.path(),
            &[
                ("memory/memory.limit_in_bytes", "5000\n"),
                ("memory/memory.usage_in_bytes", "1000\n"),
                ("cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
                ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ],
        );
        let cgroup = Cgroup::new(
            root.path(),
            "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n",
        );
        assert_eq!(
            cgroup.memory(),
            Some(MemoryLimit {
                bytes: 5000,
                free: 4000
            })
        );
        assert_eq!(cgroup.cores(), None);
    }

    #[test]
    fn no_groups_no_limits() {
        let root = tempfile::tempdir().unwrap();
        put(
            root.path(),
            &[("memory/memory.limit_in_bytes", "9223372036854771712\n")],
        );
        assert_eq!(Cgroup::new(root.path(), "4:memory:/\n").memory(), None);
        assert_eq!(Cgroup::new(root.path(), "").cores(), None);
    }
}
