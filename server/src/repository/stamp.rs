//! What files look like from outside: a change of any of them shows without reading it.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How deep directories are looked into, and how many files are looked at. Enough for what belongs to a model; a loop of
/// links ends here.
const DEPTH_MAX: usize = 4;
const FILES_MAX: usize = 10_000;

/// Size, time of the last change and number of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    byte_size: u64,
    seconds: i64,
    nanoseconds: i64,
    inode: u64,
}

impl From<&Metadata> for FileStamp {
    fn from(file: &Metadata) -> Self {
        Self {
            byte_size: file.len(),
            seconds: file.mtime(),
            nanoseconds: file.mtime_nsec(),
            inode: file.ino(),
        }
    }
}

/// The stamps of all files beneath a directory. Equal stamps: nothing was changed, as far as can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp(BTreeMap<PathBuf, FileStamp>);

impl Stamp {
    /// Of everything beneath `directory`, but what `skips` tells of its own entries. What cannot be read is left out:
    /// loading says why.
    pub(super) fn of(directory: &Path, skips: impl Fn(&str) -> bool) -> Self {
        let mut stamp = Self::default();
        stamp.add(directory, DEPTH_MAX, &|name| {
            name.to_str().is_some_and(&skips)
        });
        stamp
    }

    fn add(&mut self, directory: &Path, depth: usize, skips: &dyn Fn(&std::ffi::OsStr) -> bool) {
        let Ok(entries) = std::fs::read_dir(directory) else {
            return;
        };
        for entry in entries.flatten() {
            if self.0.len() >= FILES_MAX || skips(&entry.file_name()) {
                continue;
            }
            let path = entry.path();
            // Follows links: mounted volumes are made of them.
            match std::fs::metadata(&path) {
                Ok(file) if file.is_dir() && depth > 0 => self.add(&path, depth - 1, &|_| false),
                Ok(file) => drop(self.0.insert(path, (&file).into())),
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_any_file_shows_and_skipped_ones_do_not() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path();
        std::fs::create_dir_all(path.join("1/deep")).unwrap();
        std::fs::write(path.join("config.pbtxt"), "a").unwrap();
        std::fs::write(path.join("1/deep/weights"), "a").unwrap();
        let all = || Stamp::of(path, |_| false);
        let own = || Stamp::of(path, |name| name == "1");
        let (all_before, own_before) = (all(), own());
        assert_eq!((all(), own()), (all_before.clone(), own_before.clone()));
        std::fs::write(path.join("1/deep/weights"), "ab").unwrap();
        assert_ne!(all(), all_before);
        assert_eq!(own(), own_before);
        std::fs::remove_file(path.join("config.pbtxt")).unwrap();
        assert_ne!(own(), own_before);
        assert_eq!(Stamp::of(&path.join("none"), |_| false), Stamp::default());
    }

    #[test]
    fn a_loop_of_links_ends() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("self")).unwrap();
        assert!(Stamp::of(root.path(), |_| false).0.len() <= DEPTH_MAX + 1);
    }
}
