//! One server takes over from another that lives, while clients send.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use adjoin_client::{Client, InferError, Status};
use adjoin_tests::control::ControlPlane;
use adjoin_tests::process::ClientProcess;
use adjoin_tests::server::Setup;
use adjoin_tests::{binary, wait_for};
use rustix::process::Signal;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Sends without a pause until told to stop; the number of right answers.
fn load(client: &Client, done: &AtomicBool, answers: &AtomicU64) {
    let model = client.model("add").unwrap();
    let mut request = adjoin_tests::add_request(&model, 1);
    let mut base = 0.0;
    while !done.load(Ordering::Relaxed) {
        request.input_mut::<f32>("a").unwrap().fill(base);
        request.input_mut::<f32>("b").unwrap().fill(1.0);
        let outputs = request.infer().expect("no request fails");
        assert_eq!(outputs.get::<f32>("sum").unwrap(), [base + 1.0; 4]);
        base = (base + 1.0) % 1000.0;
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn servers_that_take_over_from_each_other_under_load_fail_no_request() {
    let setup = Setup::new(&["add", "slow"]).flags(&["--takeover"]);
    let mut server = setup.start();
    let mut processes: Vec<_> = (0..2)
        .map(|_| ClientProcess::start(&server, &["loop"]))
        .collect();
    for process in &mut processes {
        process.line_with("ok");
    }
    // Idle while the servers change: its session is closed under it, and it does not matter.
    let idle = server.client();
    let mut seldom = adjoin_tests::add_request(&idle.model("add").unwrap(), 1);
    seldom.infer().unwrap();
    let clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
    let (done, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| load(client, &done, &answers));
        }
        for round in 1..=5 {
            let mut former = server.succeed();
            let seen = answers.load(Ordering::Relaxed);
            wait_for("all clients have moved", || {
                let moved = clients.iter().all(|client| client.reconnects() >= round);
                let goes_on = answers.load(Ordering::Relaxed) > seen + 100;
                (moved && goes_on).then_some(())
            });
            let status = former.wait();
            assert_eq!(status.code(), Some(0), "{}", server.log());
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(clients.iter().all(|client| client.reconnects() == 5));
    seldom.infer().unwrap();
    assert_eq!(idle.reconnects(), 1);
    // What went on in other processes, since their last line of before.
    for process in &mut processes {
        for _ in 0..2 {
            let line = process.line();
            assert!(line.starts_with("ok"), "{line}");
        }
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(!server.socket_dir().join("attach.sock").exists());
}

#[test]
fn what_the_former_server_has_is_finished_there_and_can_be_read_after_its_end() {
    let setup = Setup::new(&["add", "slow"]).config("max_batch_size = 1");
    let mut server = setup.flags(&["--takeover"]).start();
    let client = server.client();
    let (slow, add) = (client.model("slow").unwrap(), client.model("add").unwrap());
    let request = || {
        let builder = slow.request().input("x", &[1, 64]).unwrap();
        builder.build().unwrap()
    };
    let pending: Vec<_> = (0..10).map(|_| request().submit().unwrap()).collect();
    let late = request();
    let mut kept = adjoin_tests::add_request(&add, 1);
    kept.input_mut::<f32>("a").unwrap().fill(2.0);
    kept.input_mut::<f32>("b").unwrap().fill(5.0);
    let outputs = kept.infer().unwrap();
    let mut former = server.succeed();
    late.submit()
        .unwrap()
        .wait()
        .expect("goes to the next server");
    assert_eq!(client.reconnects(), 1);
    for pending in pending {
        pending.wait().expect("what was taken is finished");
    }
    former.wait();
    assert_eq!(outputs.get::<f32>("sum").unwrap(), [7.0; 4]);
}

#[test]
fn a_server_that_lingers_runs_what_comes_and_ends_when_it_is_told() {
    let setup = Setup::new(&["add"]).flags(&["--takeover", "--linger"]);
    let mut server = setup.start();
    let control = server.control();
    let mut health = HealthClient::new(control.channel());
    let mut is_serving = |service: &str| {
        let service = service.to_owned();
        let answer = control.wait(health.check(HealthCheckRequest { service }));
        answer.map(|answer| answer.into_inner().status() == ServingStatus::Serving)
    };
    for service in ["", "adjoin/ready", "adjoin/live"] {
        assert!(is_serving(service).unwrap());
    }
    // A client without manners: it never looks whether the server wants it to go.
    let mut raw = adjoin_tests::raw::RawClient::attach(&server.socket_dir());
    let mut former = server.succeed();
    assert_eq!(raw.submit_add().status, Status::Ok as u16);
    assert!(former.is_alive());
    // The former server's callers are sent away as soon as their calls are answered, so this one asks anew.
    let status = server.control().status();
    assert_eq!(status.state, "serving");
    former.signal(Signal::TERM);
    let status = former.wait();
    assert_eq!(status.code(), Some(0));
    assert!(
        server.client().model("add").is_ok(),
        "its sockets are not its predecessor's to remove"
    );
}

#[test]
fn a_server_that_lingers_ends_when_nobody_owns_the_directory() {
    let setup = Setup::new(&["add"]).flags(&["--takeover", "--linger"]);
    let mut server = setup.start();
    let mut former = server.succeed();
    server.kill();
    let status = former.wait();
    assert_eq!(status.code(), Some(0), "{}", server.log());
    server.restart();
    assert!(server.client().model("add").is_ok());
}

#[test]
fn a_successor_that_fails_leaves_the_server_as_it_was() {
    let mut server = Setup::new(&["add"]).start();
    let client = server.client();
    let mut request = adjoin_tests::add_request(&client.model("add").unwrap(), 1);
    request.infer().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Command::new(binary("adjoin"))
        .args(["serve", "--takeover", "--http-addr", &address])
        .arg("--model-repository")
        .arg(server.directory().join("models"))
        .arg("--socket-dir")
        .arg(server.socket_dir())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("--http-addr"), "{text}");
    request.infer().unwrap();
    assert_eq!(client.reconnects(), 0);
    let names = std::fs::read_dir(server.socket_dir()).unwrap();
    for name in names.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        assert!(!name.ends_with(".new"), "{name} was left behind");
    }
    assert!(server.is_alive());
}

#[test]
fn drain_after_a_takeover_still_refuses_what_was_not_taken() {
    let mut server = Setup::new(&["add"]).flags(&["--takeover"]).start();
    server.succeed().wait();
    let client = server.client();
    let mut request = adjoin_tests::add_request(&client.model("add").unwrap(), 1);
    request.infer().unwrap();
    let admin = ControlPlane::connect(&server.socket_dir().join("admin.sock"));
    admin.drain().unwrap();
    match request.infer().map(drop) {
        Err(
            InferError::NotExecuted(..) | InferError::Connect(..) | InferError::ServerGone { .. },
        ) => {}
        other => panic!("a draining server took a request: {other:?}"),
    }
    assert_eq!(server.wait().code(), Some(0));
}
