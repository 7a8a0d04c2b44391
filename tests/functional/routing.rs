//! Labels and weighted splits that an operator sets while the server runs: which version a request runs on.

use std::path::Path;

use adjoin_client::Status;
use adjoin_tests::add_request;
use adjoin_tests::server::{Setup, TestServer, model_file};
use adjoin_tests::wait_for;
use tonic::Code;

use crate::repository::{grpc_version, native_version};

fn two_versions() -> TestServer {
    let setup = Setup::new(&["add"]).version("add", 2, &model_file("add"));
    setup
        .config("[models.add]\nversion_policy = \"all\"\nlabels = { stable = 1 }")
        .start()
}

#[test]
fn a_split_divides_requests_exactly() {
    let server = two_versions();
    let (admin, control) = (server.admin(), server.control());
    let ran_on_one = |count: u32| {
        let on_one = |_: &u32| grpc_version(&control).unwrap() == 1;
        (0..count).filter(on_one).count()
    };
    assert_eq!(ran_on_one(4), 0, "the newest, without a split");
    admin.split("add", &[(1, 3), (2, 1)]).unwrap();
    assert_eq!(ran_on_one(400), 300);
    // A request that a session prepares stays where it was put first; new ones take their turns.
    let client = server.client();
    let model = client.model("add").unwrap();
    let mut prepared = add_request(&model, 1);
    let first = prepared.infer().unwrap().stats().model_version;
    for _ in 0..8 {
        assert_eq!(prepared.infer().unwrap().stats().model_version, first);
    }
    let fresh: usize = (0..3)
        .filter(|_| native_version(&client).unwrap() == 1)
        .count();
    assert_eq!(fresh + usize::from(first == 1), 3);
    let weights: Vec<_> = control
        .models()
        .iter()
        .map(|m| (m.version, m.weight))
        .collect();
    assert_eq!(weights, [(1, 3), (2, 1)]);
    // Whoever names a version or a label gets it.
    let named = model.version(1).unwrap();
    assert_eq!(
        add_request(&named, 1)
            .infer()
            .unwrap()
            .stats()
            .model_version,
        1
    );
    admin.split("add", &[]).unwrap();
    assert_eq!(ran_on_one(4), 0);
    assert_eq!(prepared.infer().unwrap().stats().model_version, 2);
}

#[test]
fn labels_move_while_the_server_runs() {
    let server = two_versions();
    let (admin, control) = (server.admin(), server.control());
    let client = server.client();
    let labelled = |label: &str| {
        let model = client.model("add").and_then(|model| model.label(label))?;
        let mut request = add_request(&model, 1);
        request.infer().map(|outputs| outputs.stats().model_version)
    };
    assert_eq!(labelled("stable").unwrap(), 1);
    admin.label("add", "stable", 2).unwrap();
    admin.label("add", "canary", 2).unwrap();
    assert_eq!(labelled("stable").unwrap(), 2);
    let labels: Vec<_> = control.models().iter().map(|m| m.labels.clone()).collect();
    assert_eq!(
        labels,
        [vec![], vec!["canary".to_owned(), "stable".to_owned()]]
    );
    for label in ["stable", "canary"] {
        admin.label("add", label, 0).unwrap();
        let gone = labelled(label).unwrap_err();
        assert_eq!(gone.status(), Some(Status::VersionNotFound));
    }
}

#[test]
fn what_an_operator_sets_outlives_a_load_and_ends_with_an_unload() {
    let setup = Setup::new(&["add"]).version("add", 2, &model_file("add"));
    let server = setup
        .config("[models.add]\nversion_policy = \"all\"\nlabels = { stable = 1 }")
        .flags(&["--model-control-mode", "explicit", "--load-model", "add"])
        .start();
    let (admin, control) = (server.admin(), server.control());
    let listed = || {
        let line = |model: &adjoin_control_api::control::ModelVersion| {
            (model.version, model.labels.join(","), model.weight)
        };
        control.models().iter().map(line).collect::<Vec<_>>()
    };
    let line = |version, labels: &str, weight| (version, labels.to_owned(), weight);
    admin.label("add", "stable", 2).unwrap();
    admin.split("add", &[(1, 1), (2, 1)]).unwrap();
    server.put_version("add", 3, &model_file("add"));
    admin.load("add").unwrap();
    assert_eq!(
        listed(),
        [line(1, "", 1), line(2, "stable", 1), line(3, "", 0)]
    );
    let mut ran: Vec<u64> = (0..4).map(|_| grpc_version(&control).unwrap()).collect();
    ran.sort_unstable();
    assert_eq!(ran, [1, 1, 2, 2], "the split stands before the newest");
    server.remove("add/1");
    admin.load("add").unwrap();
    wait_for("version 1 is unloaded", || {
        (listed().len() == 2).then_some(())
    });
    let ran: Vec<u64> = (0..2).map(|_| grpc_version(&control).unwrap()).collect();
    assert_eq!(ran, [2, 2], "what is left of the split");
    admin.unload("add").unwrap();
    wait_for("all are unloaded", || listed().is_empty().then_some(()));
    server.put_version("add", 1, &model_file("add"));
    admin.load("add").unwrap();
    assert_eq!(
        listed(),
        [line(1, "stable", 0), line(2, "", 0), line(3, "", 0)]
    );
}

#[test]
fn labels_and_splits_that_cannot_be_are_refused() {
    let server = two_versions();
    let admin = server.admin();
    let long = "l".repeat(65);
    for (refused, code, word) in [
        (
            admin.label("add", "stable", 7),
            Code::NotFound,
            "serves no version 7; it serves 1, 2",
        ),
        (
            admin.label("no", "stable", 1),
            Code::NotFound,
            "'no' is not loaded",
        ),
        (admin.label("add", "", 1), Code::InvalidArgument, "0 bytes"),
        (
            admin.label("add", &long, 1),
            Code::InvalidArgument,
            "65 bytes",
        ),
        (
            admin.split("add", &[(1, 1), (9, 1)]),
            Code::NotFound,
            "no version 9",
        ),
        (
            admin.split("add", &[(1, 0)]),
            Code::InvalidArgument,
            "all weights are 0",
        ),
        (
            admin.split("add", &[(1, 9999), (2, 2)]),
            Code::InvalidArgument,
            "10001",
        ),
        (
            admin.split("no", &[(1, 1)]),
            Code::NotFound,
            "'no' is not loaded",
        ),
    ] {
        let refused = refused.unwrap_err();
        assert!(
            refused.code() == code && refused.message().contains(word),
            "{refused:?} should contain {word:?}"
        );
    }
    // Operators alone.
    let denied = server.control().split("add", &[(1, 1)]).unwrap_err();
    assert_eq!(denied.code(), Code::Unimplemented);
    let weights = server.control().models().iter().map(|m| m.weight).max();
    assert_eq!(weights, Some(0));
}

#[test]
fn the_newest_repository_is_what_a_restart_serves() {
    let mut server = two_versions();
    server.admin().label("add", "stable", 2).unwrap();
    server.kill();
    server.restart();
    let model = server
        .client()
        .model("add")
        .unwrap()
        .label("stable")
        .unwrap();
    let version = add_request(&model, 1)
        .infer()
        .unwrap()
        .stats()
        .model_version;
    assert_eq!(version, 1, "what an operator set ends with the server");
    assert!(Path::new(&server.directory().join("models/add/2")).is_dir());
}
