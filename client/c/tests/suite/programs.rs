//! The programs in `programs/`: each is a story of its own, told by its first comment.

use adjoin_tests::server::{Setup, TestServer, model_file};

use crate::run::run;
use crate::stage::{Link, Source};

/// Compiles a program of that folder.
fn source(file: &str) -> Source {
    Source::new(&format!("client/c/tests/suite/programs/{file}"))
}

fn run_program(source: &Source, mut server: TestServer, arguments: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let program = source.compile(Link::Shared, directory.path());
    run(&program, &mut server, arguments);
}

fn story(file: &str, server: TestServer) {
    run_program(&source(file), server, &[]);
}

#[test]
fn wrong_arguments_of_every_function_are_refused() {
    story("arguments.c", Setup::new(&["add"]).start());
}

#[test]
fn wrong_requests_are_refused_with_the_value_that_was_wrong() {
    let limits = "max_batch_size = 8192\n[models.slow]\nmax_batch_size = 1\nqueue_limit = 4";
    let setup = Setup::new(&["add", "slow"]).config(limits);
    story("refusals.c", setup.start());
}

#[test]
fn a_client_outlives_its_servers() {
    let setup = Setup::new(&["add", "slow"]).config("max_batch_size = 1");
    story("death.c", setup.start());
}

#[test]
fn a_forked_child_has_no_session_and_its_parent_goes_on() {
    story("fork.c", Setup::new(&["add", "slow"]).start());
}

#[test]
fn threads_share_a_client() {
    let setup = Setup::new(&["add", "slow"]).config("max_batch_size = 1");
    story("threads.c", setup.start());
}

#[test]
fn models_describe_themselves() {
    let labels = "[models.add]\nversion_policy = \"all\"\nlabels = { stable = 1 }";
    let setup = Setup::new(&["add", "digits"]).version("add", 3, &model_file("add"));
    story("describe.c", setup.config(labels).start());
}

#[test]
fn strings_go_both_ways() {
    story("strings.c", Setup::new(&["text"]).start());
}

#[test]
fn descriptors_and_memory_stay_flat_over_a_hundred_thousand_requests() {
    let setup = Setup::new(&["add"]);
    run_program(&source("flat.c").plain(), setup.clone().start(), &["4096"]);
    // The sanitizer keeps what was freed, so that there only leaks and descriptors are looked for.
    run_program(&source("flat.c"), setup.start(), &["1000000"]);
}

#[test]
fn the_wrapper_throws_and_frees() {
    story("wrapper.cpp", Setup::new(&["add", "text"]).start());
}

#[test]
fn an_event_loop_sleeps_on_one_descriptor() {
    let setup = Setup::new(&["add", "slow"]).config("max_batch_size = 1");
    story("events.c", setup.start());
}
