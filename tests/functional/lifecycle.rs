//! Start, end, and what happens to requests meanwhile.

use std::process::{Command, Stdio};
use std::time::Duration;

use adjoin_client::{InferError, Status};
use adjoin_tests::server::Setup;
use adjoin_tests::{binary, wait_for};
use rustix::process::Signal;

#[test]
fn sigterm_finishes_what_runs_refuses_what_comes_and_ends_with_zero() {
    let mut server = Setup::new(&["slow"]).config("max_batch_size = 1").start();
    let client = server.client();
    let slow = client.model("slow").unwrap();
    let request = || {
        slow.request()
            .input("x", &[1, 64])
            .unwrap()
            .build()
            .unwrap()
    };
    let late = request();
    let pending: Vec<_> = (0..10).map(|_| request().submit().unwrap()).collect();
    // All ten are in the server's queue before it is told to end.
    let control = server.control();
    wait_for("all requests are taken", || {
        (control.sessions()[0].request_count == 10).then_some(())
    });
    server.signal(Signal::TERM);
    wait_for("the server drains", || {
        server.log().contains("draining").then_some(())
    });
    let late = late
        .submit()
        .and_then(adjoin_client::Pending::wait)
        .map_err(|failed| failed.error);
    match late {
        Err(InferError::NotExecuted(..) | InferError::ServerGone { .. }) => {}
        other => panic!("a draining server took a request: {other:?}"),
    }
    for pending in pending {
        pending.wait().expect("what was taken is finished");
    }
    let status = server.wait();
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(
        !server.socket_dir().join("attach.sock").exists(),
        "a server that ended left its socket"
    );
}

#[test]
fn an_operator_drains_by_the_admin_socket_and_nobody_by_the_other() {
    let mut server = Setup::new(&["add"]).start();
    let denied = server.control().drain().unwrap_err();
    assert_eq!(
        denied.code(),
        tonic::Code::Unimplemented,
        "the clients' socket has no admin service"
    );
    let admin =
        adjoin_tests::control::ControlPlane::connect(&server.socket_dir().join("admin.sock"));
    assert_eq!(admin.drain().unwrap(), 0);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_admin_socket_is_the_servers_users_alone() {
    use std::os::unix::fs::PermissionsExt;
    let server = Setup::new(&["add"]).start();
    let mode = |name: &str| {
        std::fs::metadata(server.socket_dir().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (
            mode("admin.sock"),
            mode("attach.sock"),
            mode("control.sock")
        ),
        (0o600, 0o660, 0o660)
    );
}

#[test]
fn a_second_server_on_the_same_directory_is_refused_and_the_first_lives() {
    let server = Setup::new(&["add"]).start();
    let output = Command::new(binary("adjoin"))
        .args(["serve", "--model-repository"])
        .arg(server.directory().join("models"))
        .arg("--socket-dir")
        .arg(server.socket_dir())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("already running") && text.contains("--socket-dir"),
        "{text}"
    );
    assert!(server.client().model("add").is_ok());
}

#[test]
fn a_dead_servers_sockets_are_taken_over() {
    let mut server = Setup::new(&["add"]).start();
    server.kill();
    assert!(
        server.socket_dir().join("attach.sock").exists(),
        "a killed server cannot clean up"
    );
    server.restart();
    assert!(server.client().model("add").is_ok());
}

#[test]
fn models_that_do_not_load_are_told_and_the_others_served() {
    let broken = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(broken.path(), b"this is no model").unwrap();
    let setup = Setup::new(&["add"])
        .version("broken", 1, broken.path())
        .version("add", 2, broken.path());
    let server = setup.config("version_policy = \"all\"").start();
    let models = server.control().models();
    let state = |name: &str, version| {
        let found = models
            .iter()
            .find(|m| m.name == name && m.version == version);
        found.map(|m| (m.state.as_str(), m.reason.contains('/')))
    };
    assert_eq!(
        state("broken", 1),
        Some(("failed", false)),
        "a reason must not show the server's paths"
    );
    assert_eq!(state("add", 2), Some(("failed", false)));
    assert_eq!(
        state("add", 1),
        Some(("ready", false)),
        "a broken version must not take a good one with it"
    );
    let client = server.client();
    let error = client.model("broken").unwrap_err();
    assert_eq!(error.status(), Some(Status::ModelNotReady), "{error}");
}

#[test]
fn a_repository_without_any_good_model_ends_the_server_with_an_error() {
    let broken = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(broken.path(), b"").unwrap();
    let setup = Setup::new(&[]).version("broken", 1, broken.path());
    let directory = setup.lay_out();
    let mut child = setup.spawn(directory.path(), &directory.path().join("run"));
    let status = wait_for("the server gives up", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    let log = std::fs::read_to_string(directory.path().join("server.log")).unwrap();
    assert!(
        log.contains("none of the models") && log.contains("broken"),
        "{log}"
    );
}

#[test]
fn a_thousand_idle_turns_burn_no_processor() {
    let server = Setup::new(&["add"]).start();
    let clients: Vec<_> = (0..16).map(|_| server.client()).collect();
    for client in &clients {
        client.model("add").unwrap();
    }
    let control = server.control();
    let before = control.status();
    std::thread::sleep(Duration::from_secs(2));
    let after = control.status();
    // Wake-ups, not time: an idle server with 16 sessions sleeps until something happens. The two calls
    // themselves go through the control plane's thread, not through a worker.
    assert!(
        after.wakeups - before.wakeups <= 2,
        "{} wake-ups in two idle seconds",
        after.wakeups - before.wakeups
    );
    assert_eq!(after.sessions, 16);
}

#[test]
fn a_log_that_cannot_be_written_does_not_end_the_server() {
    let setup = Setup::new(&["add"]);
    let directory = setup.lay_out();
    let run = directory.path().join("run");
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut server = Command::new(binary("adjoin"))
        .args(["serve", "--model-repository"])
        .arg(directory.path().join("models"))
        .arg("--socket-dir")
        .arg(&run)
        .stdin(Stdio::null())
        .stderr(full)
        .spawn()
        .unwrap();
    // Every start logs, and so does a session that breaks the protocol.
    let attach = run.join("attach.sock");
    wait_for("the server is ready", || {
        adjoin_shm::socket::AttachSocket::connect(&attach).ok()
    });
    let mut liar = adjoin_tests::raw::RawClient::attach(&run);
    let mut entry = liar.submission(0, 0);
    entry.kind = 77;
    liar.push(entry);
    assert_eq!(liar.ended(), Status::EntryInvalid);
    let client = adjoin_client::Client::connect(&run).unwrap();
    assert!(client.model("add").is_ok());
    rustix::process::kill_process(adjoin_tests::server::pid(server.id()), Signal::TERM).unwrap();
    let status = wait_for("the server ends", || server.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}
