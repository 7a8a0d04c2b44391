//! A device that loses its context: its models go and come back, and nobody else notices.

use adjoin_client::{InferError, Status};
use adjoin_tests::gpu::{GpuServer, GpuSetup};
use adjoin_tests::process::ClientProcess;
use adjoin_tests::wait_for;
use fake_cuda::harness::FakeCuda;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::affine;
use crate::clients::{by_grpc, by_http, http_status, request, run};

/// What the health service says of a model, or of the server (no name).
fn health(server: &GpuServer, service: &str) -> ServingStatus {
    let control = server.control();
    let mut client = HealthClient::new(control.channel());
    let request = HealthCheckRequest {
        service: service.into(),
    };
    control
        .wait(client.check(request))
        .unwrap()
        .into_inner()
        .status()
}

fn resets(server: &GpuServer, outcome: &str) -> u64 {
    server.metric(&format!(
        "adjoin_device_resets_total{{outcome=\"{outcome}\"}}"
    ))
}

fn model_ready(server: &GpuServer, model: &str) -> u64 {
    server.metric(&format!(
        "adjoin_model_ready{{model=\"{model}\",version=\"1\"}}"
    ))
}

/// Runs until a request fails; its error.
fn until_failure(request: &mut adjoin_client::Request) -> InferError {
    wait_for("a request fails", || run(request, 3.0).err())
}

/// Warm-up of the two batches that an instance works on makes 8 runs, so it is a request of a client that does this. The
/// context that comes then cannot be made the first two times.
const LOSS: &str =
    "exec.host_call:15:700,cuDevicePrimaryCtxRetain:2:999,cuDevicePrimaryCtxRetain:3:999";

#[test]
fn models_on_a_lost_device_are_not_ready_until_it_is_back_and_nothing_else_is_lost() {
    let mut server = GpuSetup::new(FakeCuda::new().fail(LOSS), &["add"])
        .plan("affine", affine(), "max_batch_size: 8")
        .start();
    let mut bystander = ClientProcess::start(server.server(), &["loop"]);
    bystander.line_with("ok");
    let client = server.client();
    server.wait_for_regions(2);
    let mut prepared = request(&client, "affine", 2);
    // The batch fails with what went wrong; whoever comes after is told to come again.
    let error = until_failure(&mut prepared);
    assert_eq!(error.status(), Some(Status::ExecutionFailed), "{error}");
    assert!(error.may_have_run() && !error.is_retryable(), "{error}");
    let error = until_failure(&mut prepared);
    assert_eq!(error.status(), Some(Status::ModelNotReady), "{error}");
    assert!(error.is_retryable() && !error.may_have_run(), "{error}");

    // Every way of asking says the same.
    assert!(!server.is_model_ready("affine"));
    assert_eq!(http_status(server.http(), "/v2/models/affine/ready"), 400);
    assert_eq!(
        by_grpc(&server, "affine", 1.0).unwrap_err().code(),
        Code::Unavailable
    );
    assert_eq!(by_http(&server, "affine", 1.0).0, 503);
    wait_for("health says so", || {
        (health(&server, "affine") == ServingStatus::NotServing).then_some(())
    });
    let (state, reason) = wait_for("an attempt has failed", || {
        let (state, reason) = server.index("affine");
        reason.contains("attempt 1 of 5").then_some((state, reason))
    });
    assert_eq!(state, "UNAVAILABLE");
    assert!(reason.contains("the device is lost"), "{reason}");
    let models = server.control().models();
    let line = models.iter().find(|model| model.name == "affine").unwrap();
    assert_eq!(
        (line.state.as_str(), line.reason.contains("attempt")),
        ("lost", true)
    );
    assert_eq!(model_ready(&server, "affine"), 0);
    assert_eq!(server.metric("adjoin_device_working"), 0);
    // The server as a whole goes on, and a new session is as good as any.
    assert!(server.is_ready() && server.is_model_ready("add"));
    assert_eq!(health(&server, ""), ServingStatus::Serving);
    assert_eq!(model_ready(&server, "add"), 1);
    let newcomer = server.client();

    // And it comes back: the same sessions, the same prepared request, and the device reads their memory by itself again.
    wait_for("the model is back", || {
        server.is_model_ready("affine").then_some(())
    });
    wait_for("health says so", || {
        (health(&server, "affine") == ServingStatus::Serving).then_some(())
    });
    assert_eq!(server.index("affine"), ("READY".to_owned(), String::new()));
    server.wait_for_regions(3);
    let direct = server.bytes("to_device", "direct");
    let staged = server.bytes("to_device", "staged");
    for turn in 0..10_u8 {
        run(&mut prepared, f32::from(turn)).unwrap();
    }
    let mut other = request(&newcomer, "affine", 1);
    run(&mut other, 9.0).unwrap();
    assert_eq!(server.bytes("to_device", "direct") - direct, 10 * 32 + 16);
    assert_eq!(server.bytes("to_device", "staged"), staged);
    assert_eq!((resets(&server, "done"), resets(&server, "failed")), (1, 2));
    assert_eq!(model_ready(&server, "affine"), 1);
    assert_eq!(server.metric("adjoin_device_working"), 1);
    assert_eq!(client.reconnects(), 0);
    let lines = bystander.kill_and_read();
    assert!(lines.iter().all(|line| line.starts_with("ok")), "{lines:?}");
    drop((prepared, other));
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
    assert_eq!((report.pageable(), report.pending), (0, 0));
}

#[test]
fn requests_that_wait_when_the_device_is_lost_are_answered() {
    // Slow enough for a queue, and lost in the middle of it.
    let fake = FakeCuda::new().delay_us(2000).fail("exec.host_call:15:214");
    let server = GpuSetup::new(fake, &[])
        .plan("affine", affine(), "max_batch_size: 1")
        .start();
    let client = server.client();
    let mut requests: Vec<_> = (0..24).map(|_| request(&client, "affine", 1)).collect();
    let pending: Vec<_> = requests
        .drain(..)
        .map(|request| request.submit().unwrap())
        .collect();
    let mut outcomes = [0; 3];
    for pending in pending {
        match pending.wait().map_err(|failed| failed.error.status()) {
            Ok(_) => outcomes[0] += 1,
            Err(Some(Status::ExecutionFailed)) => outcomes[1] += 1,
            Err(Some(Status::ModelNotReady)) => outcomes[2] += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    // What ran when it happened failed, at most two batches and what began before it was known; the rest was sent back.
    assert_eq!(outcomes.iter().sum::<i32>(), 24);
    assert!(
        (1..=4).contains(&outcomes[1]) && outcomes[2] > 0,
        "{outcomes:?}"
    );
    wait_for("the model is back", || {
        server.is_model_ready("affine").then_some(())
    });
    run(&mut request(&client, "affine", 1), 2.0).unwrap();
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
    assert_eq!(report.resets, 1);
}

/// A device that is lost for good: the server says so to whoever asks, and serves what it can.
fn is_given_up(failure: &str, says: &str) {
    let mut server = GpuSetup::new(FakeCuda::new().fail(failure), &["add"])
        .plan("affine", affine(), "max_batch_size: 8")
        .config("[cuda]\nrecovery_attempts = 2")
        .flags(&["--model-control-mode", "explicit", "--load-model", "*"])
        .start();
    let mut bystander = ClientProcess::start(server.server(), &["loop"]);
    bystander.line_with("ok");
    let client = server.client();
    let mut prepared = request(&client, "affine", 2);
    until_failure(&mut prepared);
    let reason = wait_for("it is given up", || {
        let (state, reason) = server.index("affine");
        (state == "UNAVAILABLE" && reason.contains("given up")).then_some(reason)
    });
    assert!(
        reason.contains("after 2 of 2 attempts") && reason.contains(says),
        "{reason}"
    );
    assert!(reason.contains("restart the server"), "{reason}");
    let error = run(&mut prepared, 1.0).unwrap_err();
    assert_eq!(error.status(), Some(Status::ModelNotReady), "{error}");
    // Whoever decides on this server's life can see it.
    wait_for("the server is not ready", || {
        (!server.is_ready() && health(&server, "") == ServingStatus::NotServing).then_some(())
    });
    assert_eq!(health(&server, "adjoin/live"), ServingStatus::Serving);
    assert_eq!(http_status(server.http(), "/v2/health/ready"), 400);
    assert_eq!(http_status(server.http(), "/v2/health/live"), 200);
    assert_eq!(http_status(server.metrics_address(), "/healthz"), 503);
    assert!(server.is_model_ready("add"));
    // An operator can have it tried again, and is told what became of it.
    let error = server.admin().load("affine").unwrap_err();
    assert!(error.message().contains("the device is lost"), "{error}");
    let lines = bystander.kill_and_read();
    assert!(lines.iter().all(|line| line.starts_with("ok")), "{lines:?}");
    drop(prepared);
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
}

#[test]
fn a_device_that_does_not_come_back_is_given_up_and_the_server_says_so() {
    is_given_up(
        "exec.host_call:15:700,cuDevicePrimaryCtxRetain:2+:999",
        "did not come back after a reset",
    );
}

#[test]
fn a_model_that_spoils_the_device_each_time_is_given_up_and_the_server_says_so() {
    is_given_up("exec.host_call:15+:700", "warm-up failed");
}

#[test]
fn a_plan_that_costs_the_device_at_the_start_costs_the_others_nothing() {
    // By name: `a` is loaded before `b`, whose first run spoils the device, and `c` after it.
    let server = GpuSetup::new(FakeCuda::new().fail("exec.host_call:9:719"), &[])
        .plan("a", affine(), "max_batch_size: 8")
        .plan("b", affine(), "max_batch_size: 8")
        .plan("c", affine(), "max_batch_size: 8")
        .start();
    wait_for("a is back", || server.is_model_ready("a").then_some(()));
    let (state, reason) = server.index("b");
    assert_eq!(state, "UNAVAILABLE");
    assert!(reason.contains("warm-up failed"), "{reason}");
    assert!(server.is_model_ready("c"));
    assert_eq!(resets(&server, "done"), 1);
    let client = server.client();
    for model in ["a", "c"] {
        run(&mut request(&client, model, 2), 4.0).unwrap();
    }
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
}

/// One of two models spoils the device whenever it is loaded. It is the last that is loaded then, and left out the second
/// time, so that the other one comes back; whoever wants it can have it tried again.
#[test]
fn a_model_that_spoils_the_device_when_it_is_loaded_is_left_out_and_the_others_come_back() {
    // Eight runs load a model. Both are served from the 17th on, which is a client's; then `b` is loaded behind `a` twice,
    // and in vain.
    let spoiled = "exec.host_call:17:700,exec.host_call:26:700,exec.host_call:35:700";
    let server = GpuSetup::new(FakeCuda::new().fail(spoiled), &[])
        .plan("a", affine(), "max_batch_size: 8")
        .plan("b", affine(), "max_batch_size: 8")
        .flags(&["--model-control-mode", "explicit", "--load-model", "*"])
        .start();
    let client = server.client();
    until_failure(&mut request(&client, "a", 2));
    let reason = wait_for("b is left out", || {
        let (state, reason) = server.index("b");
        (state == "UNAVAILABLE" && reason.contains("left out")).then_some(reason)
    });
    assert!(reason.contains("load it to try again"), "{reason}");
    wait_for("a is back", || server.is_model_ready("a").then_some(()));
    run(&mut request(&client, "a", 2), 4.0).unwrap();
    assert_eq!(resets(&server, "done"), 3);
    server.admin().load("b").unwrap();
    run(&mut request(&client, "b", 2), 4.0).unwrap();
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
}

/// A load of a model anew while the device is lost neither hangs nor takes anything away.
#[test]
fn models_come_and_go_while_the_device_is_lost() {
    let server = GpuSetup::new(FakeCuda::new().fail(LOSS), &["add"])
        .plan("affine", affine(), "max_batch_size: 8")
        .plan("other", affine(), "max_batch_size: 8")
        .flags(&["--model-control-mode", "explicit"])
        .flags(&["--load-model", "affine", "--load-model", "add"])
        .start();
    let client = server.client();
    until_failure(&mut request(&client, "affine", 2));
    wait_for("the model is not ready", || {
        (!server.is_model_ready("affine")).then_some(())
    });
    let admin = server.admin();
    admin.unload("add").unwrap();
    admin.load("add").unwrap();
    admin.unload("affine").unwrap();
    wait_for("the device is back", || {
        (resets(&server, "done") == 1).then_some(())
    });
    assert_eq!(server.index("affine").1, "unloaded");
    admin.load("affine").unwrap();
    admin.load("other").unwrap();
    let client = server.client();
    for model in ["affine", "other"] {
        run(&mut request(&client, model, 2), 4.0).unwrap();
    }
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
}
