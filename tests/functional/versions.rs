//! Which version a request runs on.

use adjoin_client::{Client, InferError, Status};
use adjoin_tests::server::{Setup, TestServer, model_file};

fn setup(policy: &str) -> TestServer {
    let file = model_file("add");
    let base = Setup::new(&["add", "fixed"])
        .version("add", 2, &file)
        .version("add", 10, &file);
    base.config(&format!(
        "[models.add]\nversion_policy = {policy}\nlabels = {{ stable = 2, lost = 7 }}"
    ))
    .start()
}

fn ran_on(client: &Client, version: u64) -> Result<u64, InferError> {
    let model = client.model("add")?;
    let model = if version > 0 {
        model.version(version)?
    } else {
        model
    };
    let mut request = adjoin_tests::add_request(&model, 1);
    let outputs = request.infer()?;
    Ok(outputs.stats().model_version)
}

#[test]
fn all_versions_are_served_and_the_newest_is_meant_when_none_is_named() {
    let server = setup("\"all\"");
    let client = server.client();
    assert_eq!(
        client.model("add").unwrap().info().ready_versions,
        [1, 2, 10]
    );
    for (named, ran) in [(0, 10), (1, 1), (2, 2), (10, 10)] {
        assert_eq!(ran_on(&client, named).unwrap(), ran);
    }
    let error = ran_on(&client, 3).unwrap_err();
    assert_eq!(error.status(), Some(Status::VersionNotFound));
    assert!(error.to_string().contains('3'), "{error}");
}

#[test]
fn labels_name_versions() {
    let server = setup("\"all\"");
    let client = server.client();
    let model = client.model("add").unwrap();
    let stable = model.label("stable").unwrap();
    let mut request = adjoin_tests::add_request(&stable, 1);
    assert_eq!(request.infer().unwrap().stats().model_version, 2);
    for label in ["lost", "canary"] {
        let outcome = model.label(label).and_then(|model| {
            let mut request = adjoin_tests::add_request(&model, 1);
            request.infer().map(|_| ())
        });
        assert_eq!(
            outcome.unwrap_err().status(),
            Some(Status::VersionNotFound),
            "{label}"
        );
    }
}

#[test]
fn policies_limit_what_is_served() {
    let versions = |policy| {
        let server = setup(policy);
        let models = server.control().models();
        let ready = models
            .iter()
            .filter(|m| m.name == "add" && m.state == "ready")
            .map(|m| m.version);
        let failed = models
            .iter()
            .filter(|m| m.name == "add" && m.state == "failed")
            .map(|m| m.version);
        (ready.collect::<Vec<_>>(), failed.collect::<Vec<_>>())
    };
    assert_eq!(versions("{ latest = 2 }"), (vec![2, 10], vec![]));
    assert_eq!(versions("{ specific = [1, 5] }"), (vec![1], vec![5]));
}
