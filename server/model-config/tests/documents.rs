//! The documents say what the check does, and the configurations in them are good.

use std::path::{Path, PathBuf};

use adjoin_model_config::fields::{FIELDS, Support};
use adjoin_model_config::{Checked, parse_text};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const PAGE: &str = "docs/triton-migration.md";
const HEADING: &str = "| field | what happens | note |\n|---|---|---|\n";

#[test]
fn the_page_has_the_table_of_fields() {
    let word = |support| match support {
        Support::Honoured => "honoured",
        Support::Ignored => "ignored",
        Support::Refused => "refused",
    };
    let row = |row: &adjoin_model_config::fields::Field| {
        format!(
            "| `{}` | {} | {} |\n",
            row.path,
            word(row.support),
            row.note
        )
    };
    let expected: String = FIELDS.iter().map(row).collect();
    let page = read(PAGE);
    let (_, table) = page.split_once(HEADING).expect("the page has the table");
    let table = table.split("\n\n").next().unwrap_or_default().trim_end();
    assert!(
        table == expected.trim_end(),
        "the table in {PAGE} has to be:\n\n{HEADING}{expected}"
    );
}

#[test]
fn configurations_on_the_page_are_good() {
    let page = read(PAGE);
    let mut count = 0;
    for block in page.split("```pbtxt\n").skip(1) {
        let text = block.split("```").next().unwrap_or_default();
        let config = parse_text(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        Checked::new("m", &config).unwrap_or_else(|error| panic!("{text}: {error}"));
        count += 1;
    }
    assert!(count > 0, "{PAGE} has examples");
}

#[test]
fn the_example_repository_is_good_without_a_warning() {
    let model = "examples/repository/digits";
    let config = parse_text(&read(&format!("{model}/config.pbtxt"))).unwrap();
    let (checked, warnings) = Checked::new("digits", &config).unwrap();
    assert_eq!(warnings, []);
    let labels = checked.outputs[0].label_filename.as_deref().unwrap();
    assert_eq!(read(&format!("{model}/{labels}")).lines().count(), 10);
    assert!(repository().join(model).join("1/model.onnx").is_file());
}
