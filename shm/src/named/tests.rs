use std::fs::{File, OpenOptions, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;

use super::*;

/// A directory where POSIX keeps shared memory, and a client's view of it.
struct Place {
    path: tempfile::TempDir,
    dir: NamedDirectory,
}

impl Place {
    fn new() -> Self {
        let path = tempfile::tempdir_in("/dev/shm").unwrap();
        let dir = NamedDirectory::open(path.path()).unwrap();
        Self { path, dir }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.path.path().join(name)
    }

    fn file(&self, name: &str, content: &[u8]) -> File {
        std::fs::write(self.at(name), content).unwrap();
        let mut options = OpenOptions::new();
        options.read(true).write(true).open(self.at(name)).unwrap()
    }

    fn refusal(&self, key: &str) -> NamedError {
        self.dir.object(key, None).unwrap_err()
    }
}

#[test]
fn bytes_go_both_ways_and_nowhere_else() {
    let place = Place::new();
    place.file("a", &[1, 2, 3, 4, 5, 6]);
    for key in ["/a", "a"] {
        let object = place.dir.object(key, None).unwrap();
        assert_eq!(object.byte_size(), Ok(6));
        assert_eq!(object.read(1, 3).unwrap().bytes(), [2, 3, 4]);
        assert_eq!(object.read(0, 6).unwrap().bytes().len(), 6);
    }
    let object = place.dir.object("/a", None).unwrap();
    object.write(2, &[9, 9]).unwrap();
    assert_eq!(std::fs::read(place.at("a")).unwrap(), [1, 2, 9, 9, 5, 6]);
    // Without its name it goes on; who opens anew does not find it.
    std::fs::remove_file(place.at("a")).unwrap();
    assert_eq!(object.read(2, 2).unwrap().bytes(), [9, 9]);
    assert_eq!(place.refusal("a"), NamedError::Open(Errno::NOENT));
}

#[test]
fn what_is_past_the_end_is_an_error_and_never_makes_the_file_longer() {
    let place = Place::new();
    let file = place.file("a", &[7; 8192]);
    let object = place.dir.object("a", None).unwrap();
    let short = |end, file_size| NamedError::Short { end, file_size };
    assert_eq!(object.read(8192, 1), Err(short(8193, 8192)));
    assert_eq!(object.read(u64::MAX, 2), Err(short(u64::MAX, 8192)));
    assert_eq!(object.write(8191, &[1, 1]), Err(short(8193, 8192)));
    assert_eq!(object.write(u64::MAX, &[1]), Err(short(u64::MAX, 8192)));
    file.set_len(100).unwrap();
    assert_eq!(object.read(0, 8192), Err(short(8192, 100)));
    assert_eq!(object.write(0, &[1; 101]), Err(short(101, 100)));
    assert_eq!(object.read(90, 10).unwrap().bytes(), [7; 10]);
    assert_eq!(object.byte_size(), Ok(100));
    file.set_len(0).unwrap();
    assert_eq!(object.read(0, 1), Err(short(1, 0)));
}

#[test]
fn a_file_that_shrinks_and_grows_all_the_time_gives_bytes_or_an_error() {
    let place = Place::new();
    let file = place.file("a", &[7; 1 << 20]);
    let object = place.dir.object("a", None).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                file.set_len(10).unwrap();
                file.set_len(1 << 20).unwrap();
            }
        });
        for _ in 0..500 {
            match object.read(0, 1 << 20) {
                Ok(copy) => assert_eq!(copy.bytes().len(), 1 << 20),
                Err(error) => assert!(matches!(error, NamedError::Short { .. }), "{error}"),
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn only_a_plain_file_with_one_name_is_opened() {
    let place = Place::new();
    place.file("plain", b"x");
    symlink(place.at("plain"), place.at("link")).unwrap();
    assert_eq!(place.refusal("link"), NamedError::Open(Errno::LOOP));
    symlink("/etc", place.at("etc")).unwrap();
    assert!(matches!(
        place.refusal("etc/passwd"),
        NamedError::Key { .. }
    ));
    std::fs::create_dir(place.at("dir")).unwrap();
    assert_eq!(place.refusal("dir"), NamedError::Open(Errno::ISDIR));
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, place.at("fifo"), FileType::Fifo, mode, 0).unwrap();
    assert_eq!(place.refusal("fifo"), NamedError::Type(FileType::Fifo));
    let _socket = std::os::unix::net::UnixListener::bind(place.at("socket")).unwrap();
    assert_eq!(place.refusal("socket"), NamedError::Open(Errno::NXIO));
    std::fs::hard_link(place.at("plain"), place.at("second")).unwrap();
    assert_eq!(place.refusal("second"), NamedError::Links(2));
    assert_eq!(place.refusal("plain"), NamedError::Links(2));
    std::fs::remove_file(place.at("second")).unwrap();
    place.dir.object("plain", None).unwrap();
    std::fs::set_permissions(place.at("plain"), Permissions::from_mode(0o4600)).unwrap();
    assert_eq!(place.refusal("plain"), NamedError::Mode(0o4600));
    assert_eq!(place.refusal("absent"), NamedError::Open(Errno::NOENT));
}

#[test]
fn devices_are_refused() {
    let dev = NamedDirectory::open(Path::new("/dev")).unwrap();
    let refusal = dev.object("null", None).unwrap_err();
    assert_eq!(refusal, NamedError::Type(FileType::CharacterDevice));
}

#[test]
fn another_users_file_is_refused() {
    let place = Place::new();
    place.file("a", b"x");
    let me = geteuid().as_raw();
    place.dir.object("a", Some(me)).unwrap();
    let refusal = place.dir.object("a", Some(me + 1)).unwrap_err();
    assert_eq!(refusal, NamedError::Owner);
}

#[test]
fn a_lease_on_the_file_does_not_make_the_open_wait() {
    let place = Place::new();
    let file = place.file("leased", b"x");
    // SAFETY: takes no address.
    let rc = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
    // The holder is told by a signal whose default is to end the process.
    // SAFETY: ignoring a signal runs no handler.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
    assert_eq!(place.refusal("leased"), NamedError::Open(Errno::AGAIN));
}

#[test]
fn keys_are_one_name() {
    assert_eq!(name("/input_data"), Ok("input_data"));
    assert_eq!(name("..."), Ok("..."));
    let longest = "k".repeat(255);
    assert_eq!(name(&longest), Ok(longest.as_str()));
    assert_eq!(name(&format!("/{longest}")), Ok(longest.as_str()));
    let long = "k".repeat(300);
    for wrong in [
        "", "/", "//", "//a", ".", "..", "/..", "../a", "a/", "a/b", "/a/../b", "a\0b", "\0", &long,
    ] {
        let NamedError::Key { byte_size, .. } = name(wrong).unwrap_err() else {
            panic!("{wrong:?} should be refused for what it is");
        };
        assert_eq!(byte_size, wrong.len());
    }
    let refusal = name(&long).unwrap_err().to_string();
    assert!(
        refusal.contains("300 bytes") && refusal.len() < 200,
        "{refusal}"
    );
}

proptest! {
    #[test]
    fn a_key_is_a_name_or_an_error(key in r"(/?[a-z./\x00é]{0,6})|\PC{0,300}") {
        if let Ok(name) = name(&key) {
            prop_assert!((1..=255).contains(&name.len()));
            prop_assert!(!name.contains(['/', '\0']) && name != "." && name != "..");
            prop_assert_eq!(key.strip_prefix('/').unwrap_or(&key), name);
        }
    }

    #[test]
    fn a_key_never_reaches_outside(key in r"[a./\x00]{0,5}") {
        let place = Place::new();
        place.file("aa", b"x");
        let inside = place.dir.object(&key, None).is_ok();
        prop_assert_eq!(inside, key == "aa" || key == "/aa");
    }
}

#[test]
fn a_file_is_our_own_if_nobody_else_can_write_it() {
    let place = Place::new();
    let file = place.file("a", b"x");
    for (mode, is_own) in [(0o600, true), (0o644, true), (0o620, false), (0o602, false)] {
        file.set_permissions(Permissions::from_mode(mode)).unwrap();
        let object = place.dir.object("a", None).unwrap();
        assert_eq!(object.is_own(), is_own, "{mode:o}");
    }
    if geteuid().is_root() {
        std::os::unix::fs::chown(place.at("a"), Some(1234), None).unwrap();
        file.set_permissions(Permissions::from_mode(0o600)).unwrap();
        assert!(!place.dir.object("a", None).unwrap().is_own());
    }
}
