//! Documents that name tests name tests that exist.

use adjoin_tests::root;

/// The `path.rs::function` and `path.py::function` pairs between backquotes in a document; `::function` is in the file that
/// was named before it.
fn named_tests(document: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(root().join(document)).unwrap();
    let quoted = text.split('`').skip(1).step_by(2);
    let mut last = "";
    let mut named = Vec::new();
    for (path, function) in quoted.filter_map(|quoted| quoted.split_once("::")) {
        if !path.is_empty() {
            last = path;
        }
        if last.ends_with(".rs") || last.ends_with(".py") {
            named.push((last.to_owned(), function.to_owned()));
        }
    }
    named
}

#[test]
fn every_test_that_a_document_names_exists() {
    for (document, folder) in [("SPECIFICATION.md", ""), ("docs/threat-model.md", "tests/")] {
        let named = named_tests(document);
        assert!(
            named.len() > 20,
            "{document} names only {} tests",
            named.len()
        );
        for (path, function) in named {
            // The threat model writes paths of whole-system tests without their folder.
            let places = [root().join(&path), root().join(folder).join(&path)];
            let text = places
                .iter()
                .find_map(|place| std::fs::read_to_string(place).ok());
            let text = text.unwrap_or_else(|| panic!("{document}: {path} is not there"));
            let is_there = ["fn", "def"]
                .iter()
                .any(|word| text.contains(&format!("{word} {function}(")));
            assert!(is_there, "{document}: {path} has no {function}");
        }
    }
}
