//! The table of rights as the threat model has it, and the methods that really are.

use adjoin_control_api::FILE_DESCRIPTOR_SET;
use adjoin_tests::root;
use prost::Message;
use prost_types::FileDescriptorSet;

/// Rights, and what needs each.
pub(super) struct Table {
    rows: Vec<Row>,
}

struct Row {
    right: String,
    /// Paths.
    methods: Vec<String>,
    /// Templates with optional parts.
    routes: Vec<String>,
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

impl Table {
    /// Reads the document. Its lines are those of the code, as a test of the server checks.
    pub(super) fn read() -> Self {
        let text = std::fs::read_to_string(root().join("docs/threat-model.md")).unwrap();
        let lines = text
            .lines()
            .skip_while(|line| !line.starts_with("| right |"));
        let rows: Vec<_> = lines
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .map(row)
            .collect();
        assert_eq!(rows.len(), 6);
        Self { rows }
    }

    pub(super) fn rights(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|row| row.right.as_str())
    }

    pub(super) fn right_of_method(&self, path: &str) -> Option<&str> {
        let has_it = |row: &&Row| row.methods.iter().any(|method| method == path);
        self.rows.iter().find(has_it).map(|row| row.right.as_str())
    }

    /// Paths of routes, with names and versions that a request could have.
    pub(super) fn routes(&self) -> Vec<(String, String)> {
        let of_row = |row: &Row| {
            let right = row.right.clone();
            let routes: Vec<_> = row.routes.iter().flat_map(|route| paths(route)).collect();
            routes.into_iter().map(move |route| (right.clone(), route))
        };
        self.rows.iter().flat_map(of_row).collect()
    }
}

fn row(line: &str) -> Row {
    let columns: Vec<_> = line.split('|').collect();
    let right = quoted(columns[1]).next().unwrap().to_owned();
    let of_service = |part: &str| {
        let mut names = quoted(part);
        let service = names.next().unwrap().to_owned();
        let paths: Vec<_> = names.map(|method| format!("/{service}/{method}")).collect();
        paths
    };
    Row {
        right,
        methods: columns[2].split(';').flat_map(of_service).collect(),
        routes: quoted(columns[3]).map(str::to_owned).collect(),
    }
}

/// A route without its optional part, and with it.
fn paths(route: &str) -> Vec<String> {
    let filled = route
        .replace("{model}", "add")
        .replace("{version}", "1")
        .replace("{region}", "region")
        .replace("{repository}", "repository");
    assert!(!filled.contains('{'), "{route}");
    match filled.split_once('[') {
        None => vec![filled],
        Some((before, rest)) => {
            let (part, after) = rest.split_once(']').unwrap();
            vec![format!("{before}{after}"), format!("{before}{part}{after}")]
        }
    }
}

/// Paths of all methods of all services, from the descriptors that they were generated from.
pub(super) fn methods() -> Vec<String> {
    let sets = [
        FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let mut paths = Vec::new();
    for set in sets {
        for file in FileDescriptorSet::decode(set).unwrap().file {
            for service in &file.service {
                let of_service = service.method.iter().map(|method| {
                    format!("/{}.{}/{}", file.package(), service.name(), method.name())
                });
                paths.extend(of_service);
            }
        }
    }
    paths
}
