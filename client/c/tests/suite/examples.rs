//! The examples that documents show, compiled as they say and run on the digits that took no part in training.

use adjoin_tests::root;
use adjoin_tests::server::Setup;

use crate::run::run;
use crate::stage::{Link, Source};

/// Runs an example against both libraries; its last line.
fn digits(example: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let files = ["images", "labels"].map(|what| {
        let path = root().join(format!("demo/digits/test_{what}.npy"));
        path.to_str().unwrap().to_owned()
    });
    let mut last_lines = Vec::new();
    for link in [Link::Shared, Link::Static] {
        let program = Source::new(example).compile(link, directory.path());
        let mut server = Setup::new(&["digits"]).start();
        let said = run(&program, &mut server, &[&files[0], &files[1]]);
        last_lines.push(said.last().unwrap().clone());
    }
    last_lines
}

#[test]
fn example_in_c_reads_digits() {
    for line in digits("examples/c/digits.c") {
        assert_eq!(line, "357 of 360 digits read right, in batches of 8 rows");
    }
}

#[test]
fn example_in_cpp_reads_digits() {
    for line in digits("examples/cpp/digits.cpp") {
        let well =
            line.starts_with("357 of 360 digits read right") && line.ends_with("0 reconnects");
        assert!(well, "{line}");
    }
}
