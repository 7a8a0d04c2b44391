//! Models that come and go while the server runs.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use adjoin_client::{Client, InferError, Status};
use adjoin_control_api::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use adjoin_control_api::inference::{ModelInferRequest, model_infer_request::InferInputTensor};
use adjoin_tests::add_request;
use adjoin_tests::control::ControlPlane;
use adjoin_tests::server::{Setup, TestServer, model_file};
use adjoin_tests::{http, wait_for};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

fn explicit(models: &[&str], load: &[&str]) -> TestServer {
    let setup = Setup::new(models).flags(&["--model-control-mode", "explicit"]);
    let load = load.iter().flat_map(|name| ["--load-model", name]);
    setup.flags(&load.collect::<Vec<_>>()).start()
}

/// Version and state of each version of a model that is listed.
fn states(control: &ControlPlane, name: &str) -> Vec<(u64, String)> {
    let models = control.models().into_iter();
    let of_name = models.filter(|model| model.name == name);
    of_name.map(|model| (model.version, model.state)).collect()
}

fn message(rows: i64) -> ModelInferRequest {
    let input = |name: &str| InferInputTensor {
        name: name.into(),
        datatype: "FP32".into(),
        shape: vec![rows, 4],
        ..Default::default()
    };
    let bytes = usize::try_from(rows).unwrap() * 16;
    ModelInferRequest {
        model_name: "add".into(),
        inputs: vec![input("a"), input("b")],
        raw_input_contents: vec![vec![0; bytes].into(), vec![0; bytes].into()],
        ..Default::default()
    }
}

/// The version that a request of the Open Inference Protocol ran on.
pub(crate) fn grpc_version(control: &ControlPlane) -> Result<u64, Box<tonic::Status>> {
    let mut client = GrpcInferenceServiceClient::new(control.channel());
    let answer = control.wait(client.model_infer(message(1)));
    let answer = answer.map_err(Box::new)?.into_inner();
    Ok(answer.model_version.parse().unwrap())
}

/// The version that a request of a fresh session ran on.
pub(crate) fn native_version(client: &Client) -> Result<u64, InferError> {
    let model = client.model("add")?;
    let mut request = add_request(&model, 1);
    Ok(request.infer()?.stats().model_version)
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn broken() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"this is no model").unwrap();
    file
}

#[test]
fn versions_are_swapped_under_load_and_no_request_fails() {
    let server = explicit(&["add"], &["add"]);
    let admin = server.admin();
    let file = model_file("add");
    let end = AtomicBool::new(false);
    let counts: [AtomicU32; 4] = Default::default();
    std::thread::scope(|scope| {
        let native = |count: &AtomicU32| {
            let client = server.client();
            let model = client.model("add").unwrap();
            // Prepared by the server after its first run: resolved anew whenever models change.
            let mut request = add_request(&model, 2);
            let mut seen = 1;
            while !end.load(Ordering::Relaxed) {
                request.input_mut::<f32>("a").unwrap().fill(1.0);
                request.input_mut::<f32>("b").unwrap().fill(0.5);
                let outputs = request.infer().expect("a request during a swap");
                assert_eq!(outputs.get::<f32>("sum").unwrap()[..], [1.5; 8]);
                assert!(outputs.stats().model_version >= seen, "it went back");
                seen = outputs.stats().model_version;
                count.fetch_add(1, Ordering::Relaxed);
            }
            assert_eq!(seen, 12);
        };
        let grpc = |count: &AtomicU32| {
            let control = server.control();
            let mut seen = 1;
            while !end.load(Ordering::Relaxed) {
                let version = grpc_version(&control).expect("a request during a swap");
                assert!(version >= seen, "it went back");
                seen = version;
                count.fetch_add(1, Ordering::Relaxed);
            }
            assert_eq!(seen, 12);
        };
        let [first, second, third, fourth] = &counts;
        let threads = [
            scope.spawn(move || native(first)),
            scope.spawn(move || native(second)),
            scope.spawn(move || grpc(third)),
            scope.spawn(move || grpc(fourth)),
        ];
        // Also when this thread fails.
        let _end = SetOnDrop(&end);
        // Each swap meets clients that are in the middle of something.
        let all_go_on = || {
            for count in &counts {
                let before = count.load(Ordering::Relaxed);
                wait_for("the clients go on", || {
                    let is_over = threads
                        .iter()
                        .any(std::thread::ScopedJoinHandle::is_finished);
                    assert!(!is_over, "a client has failed");
                    (count.load(Ordering::Relaxed) > before + 3).then_some(())
                });
            }
        };
        // The last four times the same version from another file.
        for version in (2..=12).chain([12; 4]) {
            all_go_on();
            server.put_version("add", version, &file);
            admin.load("add").unwrap();
        }
        all_go_on();
    });
    assert_eq!(native_version(&server.client()).unwrap(), 12);
    let control = server.control();
    wait_for("old versions are unloaded", || {
        (states(&control, "add") == [(12, "ready".to_owned())]).then_some(())
    });
    let unloaded = server.log().matches("model unloaded").count();
    assert_eq!(unloaded, 15);
}

#[test]
fn instances_come_and_go_under_pipelined_load() {
    let server = explicit(&["add", "gather"], &["*"]);
    let admin = server.admin();
    let end = AtomicBool::new(false);
    let rounds: [AtomicU32; 3] = Default::default();
    std::thread::scope(|scope| {
        let pipelined = |rounds: &AtomicU32| {
            let client = server.client();
            let model = client.model("add").unwrap();
            let mut requests: Vec<_> = (0..6).map(|_| add_request(&model, 1)).collect();
            while !end.load(Ordering::Relaxed) {
                let submit = |(index, mut request): (u8, adjoin_client::Request)| {
                    request
                        .input_mut::<f32>("a")
                        .unwrap()
                        .fill(f32::from(index));
                    request.input_mut::<f32>("b").unwrap().fill(1.0);
                    request.submit().unwrap()
                };
                let pending: Vec<_> = (0..).zip(requests.drain(..)).map(submit).collect();
                for (index, pending) in (0u8..).zip(pending) {
                    let response = pending.wait().expect("a request during a change");
                    let expected = [f32::from(index) + 1.0; 4];
                    assert_eq!(response.get::<f32>("sum").unwrap()[..], expected);
                    requests.push(response.into_request());
                }
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        };
        let threads = rounds
            .each_ref()
            .map(|rounds| scope.spawn(move || pipelined(rounds)));
        // Also when this thread fails.
        let _end = SetOnDrop(&end);
        let all_go_on = || {
            for rounds in &rounds {
                let before = rounds.load(Ordering::Relaxed);
                wait_for("the clients go on", || {
                    let is_over = threads
                        .iter()
                        .any(std::thread::ScopedJoinHandle::is_finished);
                    assert!(!is_over, "a client has failed");
                    (rounds.load(Ordering::Relaxed) > before + 2).then_some(())
                });
            }
        };
        for count in [3, 1, 4, 2, 1] {
            let config =
                format!(r#"{{"max_batch_size": 4, "instance_group": [{{"count": {count}}}]}}"#);
            all_go_on();
            admin.load_as("add", &config).unwrap();
            // Another model's changes have requests resolved again as well.
            all_go_on();
            admin.unload("gather").unwrap();
            all_go_on();
            admin.load("gather").unwrap();
        }
        all_go_on();
    });
    let control = server.control();
    wait_for("old versions are unloaded", || {
        let models = control.models();
        let is_one = |name: &str| models.iter().filter(|model| model.name == name).count() == 1;
        (is_one("add") && is_one("gather")).then_some(())
    });
    let failed: u64 = control
        .models()
        .iter()
        .filter_map(|m| m.statistics.as_ref())
        .map(|s| s.failed_request_count)
        .sum();
    assert_eq!(failed, 0);
}

#[test]
fn a_load_of_what_has_not_changed_changes_nothing() {
    let server = explicit(&["add"], &["add"]);
    server.admin().load("add").unwrap();
    assert_eq!(server.log().matches("model ready").count(), 1);
    server.put_version("add", 1, &model_file("add"));
    server.admin().load("add").unwrap();
    assert_eq!(server.log().matches("model ready").count(), 2);
}

#[test]
fn a_failed_load_keeps_what_was_served_and_says_why() {
    let server = explicit(&["add"], &["add"]);
    let (admin, control) = (server.admin(), server.control());
    let client = server.client();
    let broken = broken();
    for version in [2, 1] {
        server.put_version("add", version, broken.path());
        let error = admin.load("add").unwrap_err();
        assert_eq!(error.code(), Code::Internal);
        let text = error.message();
        assert!(
            text.contains("failed to load 'add', version") && text.contains("served as before: 1"),
            "{text}"
        );
        assert!(!text.contains('/'), "{text}");
        assert_eq!(native_version(&client).unwrap(), 1);
        assert_eq!(grpc_version(&control).unwrap(), 1);
    }
    server.put_version("add", 2, &model_file("add"));
    admin.load("add").unwrap();
    assert_eq!(native_version(&client).unwrap(), 2);
}

#[test]
fn a_server_starts_without_a_model_and_callers_load_and_unload() {
    let server = explicit(&[], &[]);
    let (admin, control) = (server.admin(), server.control());
    let client = server.client();
    let missing = admin.load("add").unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    for name in ["../add", "a/b", "", ".."] {
        assert_eq!(admin.load(name).unwrap_err().code(), Code::NotFound);
    }
    server.put_version("add", 1, &model_file("add"));
    server.put_version("slow", 1, &model_file("slow"));
    assert_eq!(control.models(), []);
    admin.load("add").unwrap();
    assert_eq!(native_version(&client).unwrap(), 1);
    // More instances than there were workers for.
    admin.load("slow").unwrap();
    assert_eq!(states(&control, "slow"), [(1, "ready".to_owned())]);
    admin.unload("add").unwrap();
    let gone = native_version(&client).unwrap_err();
    assert_eq!(gone.status(), Some(Status::ModelNotFound), "{gone}");
    assert_eq!(grpc_version(&control).unwrap_err().code(), Code::NotFound);
    wait_for("it is unloaded", || {
        states(&control, "add").is_empty().then_some(())
    });
    assert_eq!(admin.unload("add").unwrap_err().code(), Code::NotFound);
    admin.load("add").unwrap();
    assert_eq!(native_version(&client).unwrap(), 1);
}

#[test]
fn what_was_taken_is_finished_when_its_model_is_unloaded() {
    let setup = Setup::new(&["slow"]).config("max_batch_size = 1");
    let flags = ["--model-control-mode", "explicit", "--load-model", "*"];
    let server = setup.flags(&flags).start();
    let client = server.client();
    let model = client.model("slow").unwrap();
    let request = || {
        let builder = model.request().input("x", &[1, 64]).unwrap();
        builder.build().unwrap()
    };
    let late = request();
    let pending: Vec<_> = (0..10).map(|_| request().submit().unwrap()).collect();
    let control = server.control();
    wait_for("all requests are taken", || {
        (control.sessions()[0].request_count == 10).then_some(())
    });
    server.admin().unload("slow").unwrap();
    let refused = late.submit().unwrap().wait().unwrap_err().error;
    assert_eq!(refused.status(), Some(Status::ModelNotFound), "{refused}");
    for pending in pending {
        pending.wait().expect("what was taken is finished");
    }
    wait_for("it is unloaded", || {
        server.log().contains("model unloaded").then_some(())
    });
    assert_eq!(states(&control, "slow"), []);
}

#[test]
fn metrics_and_health_follow_what_is_served() {
    let address = http::free_address();
    let server = Setup::new(&["add"])
        .flags(&["--model-control-mode", "explicit", "--load-model", "add"])
        .flags(&["--metrics-addr", &address])
        .start();
    let (admin, control) = (server.admin(), server.control());
    let value = |name: &str, version: u64| {
        let text = http::get(&address, "/metrics");
        let start = format!("adjoin_{name}{{model=\"add\",version=\"{version}\"}} ");
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(&start))?;
        Some(value.parse::<u64>().unwrap())
    };
    let health = || {
        let mut client = HealthClient::new(control.channel());
        let request = HealthCheckRequest {
            service: "add".into(),
        };
        control
            .wait(client.check(request))
            .unwrap()
            .into_inner()
            .status()
    };
    grpc_version(&control).unwrap();
    assert_eq!(
        (value("model_ready", 1), value("executions_total", 1)),
        (Some(1), Some(1))
    );
    server.put_version("add", 2, &model_file("add"));
    admin.load("add").unwrap();
    assert_eq!(
        (value("model_ready", 1), value("model_ready", 2)),
        (Some(0), Some(1))
    );
    assert_eq!(health(), ServingStatus::Serving);
    // Another one of the same number: ready while the old one drains, and afterwards.
    server.put_version("add", 2, &model_file("add"));
    admin.load("add").unwrap();
    wait_for("the old one is unloaded", || {
        (server.log().matches("model unloaded").count() == 2).then_some(())
    });
    assert_eq!(value("model_ready", 2), Some(1));
    admin.unload("add").unwrap();
    assert_eq!(
        (value("model_ready", 2), value("queue_depth", 2)),
        (Some(0), Some(0))
    );
    wait_for("its health is told", || {
        (health() == ServingStatus::NotServing).then_some(())
    });
    server.remove("add/2");
    admin.load("add").unwrap();
    assert_eq!(grpc_version(&control).unwrap(), 1);
    assert_eq!(value("executions_total", 1), Some(2), "it goes on counting");
    wait_for("its health is told", || {
        (health() == ServingStatus::Serving).then_some(())
    });
}

#[test]
fn only_the_mode_that_allows_it_lets_callers_load() {
    for flags in [&[][..], &["--model-control-mode", "poll"]] {
        let server = Setup::new(&["add"]).flags(flags).start();
        let admin = server.admin();
        for refused in [admin.load("add"), admin.unload("add")] {
            let refused = refused.unwrap_err();
            assert_eq!(refused.code(), Code::Unavailable);
            assert_eq!(
                refused.message(),
                "explicit model load / unload is not allowed if polling is enabled"
            );
        }
        assert_eq!(native_version(&server.client()).unwrap(), 1);
    }
}

#[test]
fn models_that_must_be_there_at_the_start_are_named_if_they_are_not() {
    let setup = Setup::new(&["add"]).flags(&[
        "--model-control-mode",
        "explicit",
        "--load-model",
        "nothing",
    ]);
    let directory = setup.lay_out();
    let mut child = setup.spawn(directory.path(), &directory.path().join("run"));
    let status = wait_for("the server gives up", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    let log = std::fs::read_to_string(directory.path().join("server.log")).unwrap();
    assert!(log.contains("no model \"nothing\""), "{log}");
}

#[test]
fn polling_finds_new_versions_new_models_and_removed_ones() {
    let flags = [
        "--model-control-mode",
        "poll",
        "--repository-poll-secs",
        "1",
    ];
    let server = Setup::new(&["add", "fixed"]).flags(&flags).start();
    let control = server.control();
    let file = model_file("add");
    let becomes = |name: &str, expected: &[(u64, &str)]| {
        wait_for(&format!("{name} is {expected:?}"), || {
            let states = states(&control, name);
            let states: Vec<_> = states.iter().map(|(v, s)| (*v, s.as_str())).collect();
            (states == expected).then_some(())
        });
    };
    becomes("add", &[(1, "ready")]);
    server.put_version("add", 2, &file);
    becomes("add", &[(2, "ready")]);
    server.put_version("gather", 1, &model_file("gather"));
    becomes("gather", &[(1, "ready")]);
    // A broken version does not take the good one away, and is not tried again and again.
    let broken = broken();
    server.put_version("add", 3, broken.path());
    becomes("add", &[(2, "ready"), (3, "failed")]);
    server.remove("add/3");
    becomes("add", &[(2, "ready")]);
    server.remove("add/2");
    becomes("add", &[(1, "ready")]);
    server.remove("fixed");
    becomes("fixed", &[]);
    let client = server.client();
    let gone = client.model("fixed").unwrap_err();
    assert_eq!(gone.status(), Some(Status::ModelNotFound));
    assert_eq!(native_version(&client).unwrap(), 1);
    let failures = server.log().matches("cannot load model").count();
    assert_eq!(failures, 1, "a broken version is tried once");
}
