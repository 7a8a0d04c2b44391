//! Zero copy, by an account that is not the server's own: a library preloaded into the server counts every
//! `memcpy` and `memmove`, and every allocation, of 4 KiB and more.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use adjoin_client::{Client, Request};
use adjoin_tests::server::{Setup, TestServer};

/// Copies, bytes, allocations.
type Counters = [u64; 3];

fn build_counter(directory: &Path) -> PathBuf {
    let library = directory.join("libcount.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("copies/count.c");
    let status = Command::new("cc")
        .args([
            "-shared",
            "-fPIC",
            "-O1",
            "-fno-builtin",
            "-fno-tree-loop-distribute-patterns",
            "-o",
        ])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .status()
        .expect("a C compiler is there; `make test` checks that");
    assert!(status.success());
    library
}

struct Counted {
    server: TestServer,
    counters: PathBuf,
    _directory: tempfile::TempDir,
}

impl Counted {
    fn start(setup: Setup) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let counters = directory.path().join("counters");
        std::fs::write(&counters, [0; 24]).unwrap();
        let library = build_counter(directory.path());
        let server = setup
            .env("LD_PRELOAD", &library)
            .env("ADJOIN_TEST_COUNTERS", &counters)
            .start();
        Self {
            server,
            counters,
            _directory: directory,
        }
    }

    fn read(&self) -> Counters {
        let bytes = std::fs::read(&self.counters).unwrap();
        std::array::from_fn(|index| {
            u64::from_le_bytes(bytes[8 * index..8 * index + 8].try_into().unwrap())
        })
    }

    /// What `turns` runs of a request of 64 KiB an input cost, after as many to warm up.
    fn cost(&self, turns: u32, prepare: bool) -> Counters {
        let client = self.server.client();
        let mut request = request(&client, prepare);
        let mut run = || {
            for _ in 0..turns {
                request.input_mut::<f32>("a").unwrap().fill(1.0);
                assert_eq!(request.infer().unwrap().get::<f32>("sum").unwrap()[5], 3.0);
            }
        };
        run();
        let before = self.read();
        run();
        let after = self.read();
        std::array::from_fn(|index| after[index] - before[index])
    }
}

fn request(client: &Client, prepare: bool) -> Request {
    let model = client.model("add").unwrap();
    let builder = model
        .request()
        .prepare(prepare)
        .input("a", &[4096, 4])
        .unwrap()
        .input("b", &[4096, 4])
        .unwrap();
    let mut request = builder.build().unwrap();
    request.input_mut::<f32>("b").unwrap().fill(2.0);
    request
}

#[test]
fn requests_in_place_copy_nothing_and_allocate_nothing_large() {
    let counted = Counted::start(Setup::new(&["add"]).config("max_batch_size = 4096"));
    for prepare in [true, false] {
        let [copies, bytes, allocations] = counted.cost(500, prepare);
        assert_eq!((copies, bytes), (0, 0), "prepare: {prepare}");
        assert_eq!(allocations, 0, "prepare: {prepare}");
    }
}

#[test]
fn the_count_itself_sees_copies_where_there_are_some() {
    // rten takes inputs and gives outputs by copy: three payloads of 64 KiB a request at the least.
    let counted = Counted::start(
        Setup::new(&["add"])
            .on_rten()
            .config("max_batch_size = 4096"),
    );
    let [copies, bytes, _] = counted.cost(100, true);
    assert!(
        copies >= 300 && bytes >= 300 * 65_536,
        "{copies} copies of {bytes} bytes"
    );
}
