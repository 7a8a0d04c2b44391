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

/// The programs in a document, by the language of their code blocks.
fn programs(document: &str, language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(document)).unwrap();
    let fence = format!("\n```{language}\n");
    text.split(&fence)
        .skip(1)
        .map(|block| block.split("\n```").next().unwrap().to_owned() + "\n")
        .collect()
}

fn run_documented(document: &str, language: &str, count: usize) {
    let directory = tempfile::tempdir().unwrap();
    let sources = programs(document, language);
    assert_eq!(sources.len(), count, "programs in {document}");
    let mut server = Setup::new(&["digits"]).start();
    for text in sources {
        let path = directory.path().join("source").with_extension(language);
        std::fs::write(&path, text).unwrap();
        let program = Source::new(path.to_str().unwrap()).compile(Link::Shared, directory.path());
        run(&program, &mut server, &[]);
    }
}

#[test]
fn programs_in_the_documents_run() {
    run_documented("docs/c.md", "c", 2);
    run_documented("docs/c.md", "cpp", 1);
}
