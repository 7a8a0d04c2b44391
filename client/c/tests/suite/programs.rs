//! The programs in `programs/`: each is a story of its own, told by its first comment.

use adjoin_tests::server::{Setup, TestServer};

use crate::run::run;
use crate::stage::{Link, Source};

/// Compiles a program of that folder and runs it.
fn story(file: &str, mut server: TestServer) {
    let directory = tempfile::tempdir().unwrap();
    let source = Source::new(&format!("client/c/tests/suite/programs/{file}"));
    let program = source.compile(Link::Shared, directory.path());
    run(&program, &mut server, &[]);
}

#[test]
fn wrong_arguments_of_every_function_are_refused() {
    story("arguments.c", Setup::new(&["add"]).start());
}
