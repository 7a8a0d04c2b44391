use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::task::Poll;

use adjoin_oip::{Fault, Kind};

use super::*;

const LIMITS: RegionLimits = RegionLimits {
    count_max: 4,
    owner_count_max: 3,
    call_bytes_max: 1000,
};

/// Regions beneath a directory, where every file belongs to the user who runs the test.
struct Place {
    dir: tempfile::TempDir,
    regions: Regions,
    me: Owner,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let regions = Regions::beneath(dir.path(), LIMITS).unwrap();
        let me = Owner::Uid(rustix::process::geteuid().as_raw());
        Self { dir, regions, me }
    }

    /// The bytes 0, 1, 2, …
    fn file(&self, key: &str, byte_size: u8) {
        let bytes: Vec<u8> = (0..byte_size).collect();
        std::fs::write(self.dir.path().join(key), bytes).unwrap();
    }

    fn register(&self, name: &str, offset: u64, byte_size: u64) -> Result<(), RegionError> {
        self.regions
            .register(&self.me, name, "/a", offset, byte_size)
    }

    fn refusal(&self, name: &str, key: &str, offset: u64, byte_size: u64) -> (Kind, String) {
        let refused = self
            .regions
            .register(&self.me, name, key, offset, byte_size);
        fault(refused.unwrap_err())
    }
}

fn fault(error: RegionError) -> (Kind, String) {
    let Fault { kind, text } = error.into();
    (kind, text)
}

fn write(region: &Arc<Region>, offset: u64, bytes: &'static [u8]) -> Result<(), RegionError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let write = Arc::clone(region).write(offset, Bytes::from_static(bytes));
    runtime.unwrap().block_on(write)
}

#[test]
fn a_region_is_read_and_written_from_its_own_start() {
    let place = Place::new();
    place.file("a", 100);
    place.register("whole", 0, 100).unwrap();
    place.register("part", 10, 20).unwrap();
    let part = place.regions.get(&place.me, "part").unwrap();
    assert_eq!(part.read(0, 3).unwrap()[..], [10, 11, 12]);
    assert_eq!(part.read(19, 1).unwrap()[..], [29]);
    write(&part, 18, &[7, 8]).unwrap();
    let whole = place.regions.get(&place.me, "whole").unwrap();
    assert_eq!(whole.read(27, 4).unwrap()[..], [27, 7, 8, 30]);
    let facts = |it: &Arc<Region>| (it.name().to_owned(), it.object().1, it.byte_size());
    let all = place
        .regions
        .status(&place.me, RegionKind::System, "")
        .unwrap();
    let all: Vec<_> = all.iter().map(facts).collect();
    let expected = [("part".to_owned(), 10, 20), ("whole".to_owned(), 0, 100)];
    assert_eq!(all, expected);
    let one = place
        .regions
        .status(&place.me, RegionKind::System, "part")
        .unwrap();
    assert_eq!((one.len(), one[0].object().0), (1, "/a"));
}

#[test]
fn what_is_not_in_the_region_is_refused_in_tritons_words() {
    let place = Place::new();
    place.file("a", 100);
    place.register("r", 10, 20).unwrap();
    let region = place.regions.get(&place.me, "r").unwrap();
    for (offset, byte_size, words) in [
        (20, 1, "Invalid offset for shared memory region: 'r'"),
        (u64::MAX, 1, "Invalid offset for shared memory region: 'r'"),
        (
            0,
            21,
            "Invalid offset + byte size for shared memory region: 'r'",
        ),
        (
            19,
            2,
            "Invalid offset + byte size for shared memory region: 'r'",
        ),
        (
            1,
            u64::MAX,
            "Invalid offset + byte size for shared memory region: 'r'",
        ),
        (
            5,
            0,
            "Invalid offset + byte size for shared memory region: 'r'",
        ),
    ] {
        let (kind, text) = fault(region.read(offset, byte_size).unwrap_err());
        assert_eq!(kind, Kind::InvalidArgument);
        assert!(text.starts_with(words), "{text}");
        assert!(text.contains("in 20 bytes"), "{text}");
    }
    let (kind, text) = fault(write(&region, 19, &[1, 2]).unwrap_err());
    assert_eq!(kind, Kind::InvalidArgument);
    assert!(text.contains("2 bytes at 19, in 20 bytes"), "{text}");
    let untouched: Vec<u8> = (0..100).collect();
    assert_eq!(
        std::fs::read(place.dir.path().join("a")).unwrap(),
        untouched
    );

    let (kind, text) = fault(place.regions.get(&place.me, "other").unwrap_err());
    assert_eq!(kind, Kind::NotFound);
    assert_eq!(text, "Unable to find shared memory region: 'other'");
    let (kind, text) = fault(
        place
            .regions
            .status(&place.me, RegionKind::System, "other")
            .unwrap_err(),
    );
    assert_eq!(kind, Kind::NotFound);
    assert_eq!(text, "Unable to find system shared memory region: 'other'");
}

#[test]
fn registrations_that_cannot_be_are_refused_and_hold_nothing() {
    let place = Place::new();
    place.file("a", 100);
    symlink("/etc/passwd", place.dir.path().join("link")).unwrap();
    let long = "x".repeat(300);
    for _ in 0..10 {
        for (name, key, offset, byte_size, words) in [
            ("r", "/a", 0, 101, "101 bytes at offset 0 of 100"),
            ("r", "/a", 100, 1, "1 bytes at offset 100 of 100"),
            (
                "r",
                "/a",
                u64::MAX,
                2,
                "2 bytes at offset 18446744073709551615 of 100",
            ),
            ("r", "/a", 1, u64::MAX, "invalid args"),
            ("r", "/a", 0, 0, "expected at least 1 byte"),
            ("", "/a", 0, 1, "has 0 bytes; it has 1 to 256"),
            (&long, "/a", 0, 1, "has 300 bytes; it has 1 to 256"),
            (
                "r",
                "/none",
                0,
                1,
                "Unable to open shared memory region: '/none'",
            ),
            (
                "r",
                "/link",
                0,
                1,
                "Unable to open shared memory region: '/link'",
            ),
            ("r", "../a", 0, 1, "no '/' but a leading one"),
            ("r", "..", 0, 1, "a name, not a step"),
            ("r", "a\0", 0, 1, "no NUL"),
            ("r", &long, 0, 1, "at most 255 bytes"),
        ] {
            let (kind, text) = place.refusal(name, key, offset, byte_size);
            assert_eq!(kind, Kind::InvalidArgument, "{text}");
            assert!(text.contains(words), "{text:?} should have {words:?}");
            assert!(text.len() < 600, "{text}");
        }
    }
    // A failed registration has given its place back.
    for name in ["r", "s", "t"] {
        place.register(name, 0, 100).unwrap();
    }
    let text = place.refusal("r", "/none", 0, 1);
    let already = "shared memory region 'r' already in manager".to_owned();
    assert_eq!(text, (Kind::AlreadyExists, already));
}

#[test]
fn another_users_file_is_no_region_unless_the_caller_came_over_tcp() {
    let place = Place::new();
    place.file("a", 100);
    let Owner::Uid(me) = place.me else {
        unreachable!()
    };
    let other = Owner::Uid(me + 1);
    let refused = place.regions.register(&other, "r", "/a", 0, 100);
    let (kind, text) = fault(refused.unwrap_err());
    assert_eq!(kind, Kind::InvalidArgument);
    assert!(text.ends_with("its file belongs to another user"), "{text}");
    let tcp = Owner::Tcp("".into());
    place.regions.register(&tcp, "r", "/a", 0, 100).unwrap();
}

#[test]
fn owners_do_not_see_or_forget_each_others_regions() {
    let place = Place::new();
    place.file("a", 100);
    let (one, two) = (Owner::Tcp("one".into()), Owner::Tcp("two".into()));
    place.regions.register(&one, "r", "/a", 0, 10).unwrap();
    place.regions.register(&two, "r", "/a", 0, 20).unwrap();
    place.regions.unregister_all(&place.me, RegionKind::System);
    place.regions.unregister(&place.me, RegionKind::System, "r");
    place.regions.unregister_all(&two, RegionKind::System);
    assert!(
        place
            .regions
            .status(&two, RegionKind::System, "")
            .unwrap()
            .is_empty()
    );
    assert!(matches!(
        place.regions.get(&two, "r"),
        Err(RegionError::NotFound(_))
    ));
    assert_eq!(place.regions.get(&one, "r").unwrap().byte_size(), 10);
}

#[test]
fn a_region_in_use_outlives_its_registration_and_counts_until_then() {
    let place = Place::new();
    place.file("a", 100);
    place.register("r", 0, 100).unwrap();
    let in_use = place.regions.get(&place.me, "r").unwrap();
    place.regions.unregister(&place.me, RegionKind::System, "r");
    place.regions.unregister(&place.me, RegionKind::System, "r");
    assert!(place.regions.get(&place.me, "r").is_err());
    assert_eq!(in_use.read(5, 1).unwrap()[..], [5]);
    for name in ["r", "s"] {
        place.register(name, 0, 100).unwrap();
    }
    let (kind, text) = place.refusal("t", "/a", 0, 100);
    assert_eq!(kind, Kind::ResourceExhausted);
    assert!(
        text.contains("3 regions are the most of one owner"),
        "{text}"
    );
    let other = Owner::Tcp("".into());
    place.regions.register(&other, "r", "/a", 0, 100).unwrap();
    let refused = place.regions.register(&other, "s", "/a", 0, 100);
    let (kind, text) = fault(refused.unwrap_err());
    assert_eq!(kind, Kind::ResourceExhausted);
    assert!(text.ends_with("4 regions are the most"), "{text}");
    drop(in_use);
    place.register("t", 0, 100).unwrap();
    place.regions.unregister_all(&place.me, RegionKind::System);
    place.regions.unregister_all(&other, RegionKind::System);
    let counts = place.regions.counts.lock();
    assert_eq!((counts.all, counts.by_owner.len()), (0, 0));
    assert!(place.regions.table.lock().is_empty());
}

#[test]
fn a_file_cut_short_after_its_registration_is_an_error() {
    let place = Place::new();
    place.file("a", 100);
    place.register("r", 0, 100).unwrap();
    let region = place.regions.get(&place.me, "r").unwrap();
    let file = std::fs::File::options()
        .write(true)
        .open(place.dir.path().join("a"));
    file.as_ref().unwrap().set_len(50).unwrap();
    for error in [
        region.read(0, 100).unwrap_err(),
        write(&region, 49, &[1, 2]).unwrap_err(),
    ] {
        let (kind, text) = fault(error);
        assert_eq!(kind, Kind::InvalidArgument);
        assert!(text.contains("its file ends at 50 bytes"), "{text}");
    }
    assert_eq!(region.read(49, 1).unwrap()[..], [49]);
    assert_eq!(file.unwrap().metadata().unwrap().len(), 50);
}

#[test]
fn one_call_has_so_many_bytes_copied_and_no_more() {
    let place = Place::new();
    let file = std::fs::File::create(place.dir.path().join("a")).unwrap();
    // A file of holes costs its owner nothing.
    file.set_len(1 << 40).unwrap();
    place.register("r", 0, 1 << 40).unwrap();
    let slice = |byte_size| RegionSlice {
        region: "r".into(),
        offset: 0,
        byte_size,
    };
    let mut reader = place.regions.reader(&place.me);
    assert_eq!(reader.read(&slice(600)).unwrap().len(), 600);
    for byte_size in [401, 1 << 40, u64::MAX] {
        let (kind, text) = fault(reader.read(&slice(byte_size)).unwrap_err());
        assert_eq!(kind, Kind::ResourceExhausted);
        assert!(
            text.contains("may read 400 more, and 1000 in all"),
            "{text}"
        );
    }
    assert_eq!(reader.read(&slice(400)).unwrap().len(), 400);
}

#[test]
fn without_the_operators_word_nothing_is_registered() {
    let off = Regions::off(LIMITS);
    let me = Owner::Uid(0);
    let (kind, text) = fault(off.register(&me, "r", "/a", 0, 1).unwrap_err());
    assert_eq!(kind, Kind::Unsupported);
    assert!(text.contains("--allow-named-shm"), "{text}");
    off.unregister_all(&me, RegionKind::System);
    assert!(off.status(&me, RegionKind::System, "").unwrap().is_empty());
}

#[test]
fn only_a_write_that_waits_for_nobody_runs_where_it_was_called() {
    let place = Place::new();
    place.file("a", 100);
    place.register("own", 0, 100).unwrap();
    let everybodys = Permissions::from_mode(0o666);
    std::fs::set_permissions(place.dir.path().join("a"), everybodys).unwrap();
    place.register("shared", 0, 100).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(async {
        for (name, bytes, is_done) in [("own", [201], true), ("shared", [202], false)] {
            let region = place.regions.get(&place.me, name).unwrap();
            let bytes = Bytes::copy_from_slice(&bytes);
            let mut write = Box::pin(Arc::clone(&region).write(7, bytes.clone()));
            let first = std::future::poll_fn(|context| Poll::Ready(write.as_mut().poll(context)));
            match first.await {
                Poll::Ready(written) => assert!(is_done && written.is_ok()),
                Poll::Pending => {
                    assert!(!is_done);
                    write.await.unwrap();
                }
            }
            assert_eq!(region.read(7, 1).unwrap(), bytes);
        }
    });
}

#[test]
fn memory_of_a_device_is_none_where_no_device_is_in_use() {
    let place = Place::new();
    let refused = place
        .regions
        .register_device(&place.me, "r", 0, &[0; 64], 64);
    let (kind, text) = fault(refused.unwrap_err());
    assert_eq!(kind, Kind::Unsupported);
    let why = "failed to register shared memory region 'r': this ";
    assert!(text.starts_with(why), "{text}");
    let none = place.regions.status(&place.me, RegionKind::Cuda, "");
    assert!(none.unwrap().is_empty());
    // Nothing is left of its place.
    for name in ["a", "b", "c"] {
        place.file("a", 100);
        place.register(name, 0, 100).unwrap();
    }
}

#[cfg(feature = "cuda")]
mod device;
