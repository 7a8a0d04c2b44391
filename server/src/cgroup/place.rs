//! Where a process's control groups are: `/proc/self/cgroup` says which they are, `/proc/self/mountinfo` where their
//! hierarchies are mounted, and from which group on.
//!
//! The two need not agree. In a namespace of control groups both count from its root; without one a container's mount
//! begins at its own group while the path counts from the host's root; and of a hierarchy that was mounted outside of the
//! namespace the mount's root begins with `/..`. What is known for sure is only what a path and a root have in common, so
//! where they have nothing in common the mount's own directory is taken: it is the process's group or one above it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// A mounted hierarchy.
#[derive(Debug)]
struct Mount {
    /// The group that its directory shows, as a path in the hierarchy.
    root: PathBuf,
    at: PathBuf,
}

/// The directory of the group that has `controller`, then those of the groups above it; none where there is no such
/// controller.
pub(super) fn directories(membership: &str, mountinfo: &str, controller: &str) -> Vec<PathBuf> {
    let version_1 = group(membership, |names| {
        names.split(',').any(|name| name == controller)
    });
    let (path, mounts) = match version_1 {
        Some(path) => {
            let has_controller =
                |kind: &str, options: &str| kind == "cgroup" && has_word(options, controller);
            (path, mounts(mountinfo, has_controller))
        }
        None => {
            let Some(path) = group(membership, str::is_empty) else {
                return Vec::new();
            };
            (path, mounts(mountinfo, |kind, _| kind == "cgroup2"))
        }
    };
    let inside = |mount: &Mount| {
        let below = path.strip_prefix(&mount.root).ok()?;
        let is_plain = below
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        // Joining nothing would leave a slash at the end.
        let own = mount.at.components().chain(below.components()).collect();
        is_plain.then(|| (mount.at.clone(), own))
    };
    let found = mounts.iter().find_map(inside).or_else(|| {
        let mount = mounts.first()?;
        Some((mount.at.clone(), mount.at.clone()))
    });
    let Some((top, own)) = found else {
        return Vec::new();
    };
    own.ancestors()
        .take_while(|directory| directory.starts_with(&top))
        .map(Path::to_owned)
        .collect()
}

/// The path of the process's group in the hierarchy with the wanted controllers.
fn group(membership: &str, is_wanted: impl Fn(&str) -> bool) -> Option<PathBuf> {
    membership.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        is_wanted(controllers).then(|| PathBuf::from(path))
    })
}

/// The mounts whose file system and options are wanted, in the order of the file.
fn mounts(mountinfo: &str, is_wanted: impl Fn(&str, &str) -> bool) -> Vec<Mount> {
    let parse = |line: &str| {
        // ID PARENT DEVICE ROOT AT OPTIONS [TAGS...] - KIND SOURCE OPTIONS
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1)?);
        let mut left = left.split(' ').skip(3);
        let (root, at) = (left.next()?, left.next()?);
        is_wanted(kind, options).then(|| Mount {
            root: unescaped(root),
            at: unescaped(at),
        })
    };
    mountinfo.lines().filter_map(parse).collect()
}

fn has_word(options: &str, word: &str) -> bool {
    options.split(',').any(|option| option == word)
}

/// A path in which the kernel has written spaces and the like as a backslash and three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|_| first == b'\\');
        let byte = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// systemd's layout of version 2.
    const UNIFIED: &str = "\
        24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    /// Both versions beside one another.
    const HYBRID: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    fn text(directories: &[PathBuf]) -> Vec<&str> {
        directories
            .iter()
            .map(|path| path.to_str().unwrap())
            .collect()
    }

    #[test]
    fn version_2_goes_up_to_the_mount() {
        let found = directories("0::/kubepods/pod1/c1\n", UNIFIED, "memory");
        assert_eq!(
            text(&found),
            [
                "/sys/fs/cgroup/kubepods/pod1/c1",
                "/sys/fs/cgroup/kubepods/pod1",
                "/sys/fs/cgroup/kubepods",
                "/sys/fs/cgroup"
            ]
        );
        let namespaced = directories("0::/\n", UNIFIED, "memory");
        assert_eq!(text(&namespaced), ["/sys/fs/cgroup"]);
    }

    #[test]
    fn where_version_1_has_the_controller_version_2_does_not_count() {
        let membership = "4:memory:/a/b\n2:cpu,cpuacct:/a\n1:name=systemd:/x\n0::/u\n";
        let memory = directories(membership, HYBRID, "memory");
        assert_eq!(
            text(&memory),
            [
                "/sys/fs/cgroup/memory/a/b",
                "/sys/fs/cgroup/memory/a",
                "/sys/fs/cgroup/memory"
            ]
        );
        let cpu = directories(membership, HYBRID, "cpu");
        assert_eq!(
            text(&cpu),
            ["/sys/fs/cgroup/cpu,cpuacct/a", "/sys/fs/cgroup/cpu,cpuacct"]
        );
        // A controller that only version 2 could have.
        let io = directories(membership, HYBRID, "io");
        assert_eq!(
            text(&io),
            ["/sys/fs/cgroup/unified/u", "/sys/fs/cgroup/unified"]
        );
    }

    #[test]
    fn paths_and_roots_that_do_not_agree_never_lead_out_of_the_mount() {
        let mounted = |root: &str| format!("7 1 0:7 {root} /cg rw - cgroup2 cgroup2 rw\n");
        for (group, root, expected) in [
            // Without a namespace of control groups: the container's mount begins at its group.
            ("/docker/abc", "/docker/abc", &["/cg"][..]),
            ("/docker/abc/inner", "/docker/abc", &["/cg/inner", "/cg"]),
            // In a namespace, over a mount from outside.
            ("/", "/../..", &["/cg"]),
            ("/../sibling", "/..", &["/cg/sibling", "/cg"]),
            // Moved out of its namespace.
            ("/../../other", "/", &["/cg"]),
            ("/a", "/b", &["/cg"]),
        ] {
            let found = directories(&format!("0::{group}\n"), &mounted(root), "memory");
            assert_eq!(text(&found), expected, "{group} in {root}");
        }
    }

    #[test]
    fn the_mount_that_shows_the_group_is_taken() {
        let mounts = "7 1 0:7 /other /first rw - cgroup2 cgroup2 rw\n\
                      8 1 0:7 / /second rw - cgroup2 cgroup2 rw\n";
        let found = directories("0::/a\n", mounts, "memory");
        assert_eq!(text(&found), ["/second/a", "/second"]);
    }

    #[test]
    fn escapes_colons_and_broken_lines() {
        let mounts = "nonsense\n7 1 0:7 / /my\\040groups\\134x rw - cgroup2 cgroup2 rw\n9 9 - \n";
        let found = directories("x\n0::/a:b c\n", mounts, "memory");
        assert_eq!(text(&found), ["/my groups\\x/a:b c", "/my groups\\x"]);
        assert_eq!(unescaped("a\\04"), PathBuf::from("a\\04"));
        assert_eq!(unescaped("\\999\\"), PathBuf::from("\\999\\"));
        assert!(directories("0::/a\n", "", "memory").is_empty());
        assert!(directories("", UNIFIED, "memory").is_empty());
    }
}
