//! A control group with a memory limit, for a server in it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A control group of this process's making; removed when dropped, which takes that its processes have ended.
#[derive(Debug)]
pub struct MemoryGroup {
    path: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug)]
enum Version {
    One,
    Two,
}

impl MemoryGroup {
    /// A group with so many bytes; `None`, and a line that says why, where the machine lets nobody make one, or not this
    /// user.
    #[must_use]
    pub fn or_skip(bytes: u64) -> Option<Self> {
        match Self::with_limit(bytes) {
            Ok(group) => Some(group),
            Err(reason) => {
                eprintln!("skipped: no control group with a memory limit can be made: {reason}");
                None
            }
        }
    }

    fn with_limit(bytes: u64) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mount = Path::new("/sys/fs/cgroup");
        let (parent, version) = if mount.join("memory/memory.limit_in_bytes").exists() {
            (mount.join("memory"), Version::One)
        } else {
            (mount.to_owned(), Version::Two)
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("adjoin-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let group = Self { path, version };
        let limit = group.file("memory.limit_in_bytes", "memory.max");
        std::fs::write(&limit, bytes.to_string())
            .map_err(|error| format!("{}: {error}", limit.display()))?;
        // What the limit has no room for must not be paged out. Kernels that do not count swap lack the file.
        let (swap, most) = match version {
            Version::One => ("memory.memsw.limit_in_bytes", bytes),
            Version::Two => ("memory.swap.max", 0),
        };
        let _ = std::fs::write(group.path.join(swap), most.to_string());
        Ok(group)
    }

    fn file(&self, one: &str, two: &str) -> PathBuf {
        self.path.join(match self.version {
            Version::One => one,
            Version::Two => two,
        })
    }

    /// The file that takes processes in.
    #[must_use]
    pub fn processes(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Bytes that the group uses.
    #[must_use]
    pub fn usage(&self) -> u64 {
        let text = std::fs::read_to_string(self.file("memory.usage_in_bytes", "memory.current"));
        text.unwrap().trim().parse().unwrap()
    }

    /// How often the kernel ended a process for want of memory.
    #[must_use]
    pub fn kills(&self) -> u64 {
        let path = self.file("memory.oom_control", "memory.events");
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.unwrap().trim().parse().unwrap()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Its last process may be a moment from gone.
        for _ in 0..500 {
            if std::fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        eprintln!("{} could not be removed", self.path.display());
    }
}
