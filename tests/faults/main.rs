//! What happens when a side dies: kills are real, processes are real.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests: a failure is a failed test"
)]

mod takeover;

use std::process::Command;

use adjoin_client::InferError;
use adjoin_tests::process::ClientProcess;
use adjoin_tests::raw::RawClient;
use adjoin_tests::server::{Setup, pid};
use adjoin_tests::{binary, wait_for};
use rustix::process::{Signal, kill_process};

#[test]
fn a_client_killed_in_the_middle_of_a_request_leaves_nothing_and_disturbs_nobody() {
    let mut server = Setup::new(&["slow", "add"])
        .config("max_batch_size = 8")
        .start();
    let control = server.control();
    let mut neighbour = ClientProcess::start(&server, &["loop"]);
    neighbour.line_with("ok");
    let (base_bytes, base_fds) = (control.status().region_bytes, server.descriptors());
    for _ in 0..20 {
        let mut victim = ClientProcess::start(&server, &["slow", "8"]);
        assert_eq!(victim.line(), "started");
        // Some 16 ms a request: it is in the middle of one.
        wait_for("a request is in flight", || {
            control
                .sessions()
                .iter()
                .any(|s| s.in_flight > 0 && s.region_bytes == 2 << 20)
                .then_some(())
        });
        victim.kill();
        wait_for("the session is gone", || {
            (control.sessions().len() == 1).then_some(())
        });
    }
    wait_for("the memory is back", || {
        (control.status().region_bytes == base_bytes).then_some(())
    });
    wait_for("the descriptors are back", || {
        (server.descriptors() <= base_fds).then_some(())
    });
    let line = neighbour.line_with("ok");
    assert!(!line.contains("error"));
    assert!(server.is_alive());
    // The slow model still takes requests: no instance was lost with a client.
    let mut heir = ClientProcess::start(&server, &["slow", "1"]);
    heir.line_with("ok");
}

#[test]
fn a_session_ends_with_its_process_though_a_forked_child_holds_the_socket() {
    let server = Setup::new(&["add"]).start();
    let mut parent = ClientProcess::start(&server, &["fork"]);
    let line = parent.line();
    let (child, session) = line.split_once(' ').unwrap();
    let (child, session): (u32, u64) = (child.parse().unwrap(), session.parse().unwrap());
    let control = server.control();
    assert!(control.sessions().iter().any(|s| s.session_id == session));
    parent.kill();
    wait_for("the session ends", || {
        control
            .sessions()
            .iter()
            .all(|s| s.session_id != session)
            .then_some(())
    });
    assert!(
        std::fs::exists(format!("/proc/{child}")).unwrap(),
        "the child lives on and holds the socket"
    );
    kill_process(pid(child), Signal::KILL).unwrap();
}

/// As in two containers of a pod: the kernel tells the server no pid of such a client, and its end is seen all the same.
#[test]
fn a_client_of_another_pid_namespace_is_served_and_its_end_is_seen() {
    let unshare = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--kill-child"])
            .args(arguments);
        command
    };
    if !unshare(&["true"])
        .status()
        .is_ok_and(|status| status.success())
    {
        eprintln!("skipped: this user may make no pid namespace");
        return;
    }
    let server = Setup::new(&["add"]).start();
    let mut command = unshare(&[]);
    command
        .arg(binary("adjoin-test-client"))
        .arg(server.socket_dir())
        .arg("loop");
    let mut client = ClientProcess::of(command);
    client.line_with("ok");
    let control = server.control();
    assert_eq!(control.sessions().len(), 1);
    client.kill();
    wait_for("the session ends", || {
        control.sessions().is_empty().then_some(())
    });
}

#[test]
fn a_killed_server_is_an_error_at_once_and_its_successor_serves_the_same_client() {
    let mut server = Setup::new(&["add", "slow"]).start();
    let mut other = ClientProcess::start(&server, &["loop"]);
    other.line_with("ok");
    let client = server.client();
    let mut request = adjoin_tests::add_request(&client.model("add").unwrap(), 1);
    request.input_mut::<f32>("a").unwrap().fill(1.5);
    request.input_mut::<f32>("b").unwrap().fill(2.0);
    assert_eq!(
        request.infer().unwrap().get::<f32>("sum").unwrap(),
        [3.5; 4]
    );

    // Killed while a request runs: the client library says that it may have run.
    let slow = client
        .model("slow")
        .unwrap()
        .request()
        .input("x", &[32, 64])
        .unwrap()
        .build()
        .unwrap();
    let pending = slow.submit().unwrap();
    server.kill();
    match pending.wait().map_err(|failed| failed.error) {
        Err(InferError::ServerGone {
            may_have_run: true, ..
        }) => {}
        other => panic!("{other:?}"),
    }
    other.line_with("error");
    assert!(request.infer().is_err(), "nobody is there");

    server.restart();
    // The same request object, with the bytes it had, on the new server.
    let sums = wait_for("the client is back", || {
        let outputs = request.infer().ok()?;
        Some(outputs.get::<f32>("sum").unwrap().to_vec())
    });
    assert_eq!(sums, [3.5; 4]);
    assert_eq!(client.reconnects(), 1);
    other.line_with("ok");
}

#[test]
fn memory_of_sessions_that_come_and_go_does_not_pile_up() {
    let mut server = Setup::new(&["add"]).start();
    let control = server.control();
    // Each client keeps its mappings and descriptors after the session: what a leaking, or hostile, one would do.
    let mut kept = Vec::new();
    for round in 0..60 {
        let session = RawClient::attach(&server.socket_dir());
        session.socket.shut_down();
        kept.push(session);
        if round == 19 {
            wait_for("sessions are gone", || {
                control.sessions().is_empty().then_some(())
            });
        }
    }
    wait_for("sessions are gone", || {
        control.sessions().is_empty().then_some(())
    });
    wait_for("the memory is given back", || {
        (control.status().region_bytes == 0).then_some(())
    });
    for session in &kept {
        for region in &session.regions {
            let stat = rustix::fs::fstat(region).unwrap();
            assert_eq!(
                stat.st_blocks, 0,
                "pages of an ended session are still charged to the server"
            );
        }
    }
    assert!(server.is_alive());
}

#[test]
fn resident_memory_and_descriptors_stay_flat_over_sessions_and_requests() {
    let server = Setup::new(&["add"]).start();
    let run = |sessions: usize, requests: usize| {
        for _ in 0..sessions {
            let client = server.client();
            let model = client.model("add").unwrap();
            let mut request = adjoin_tests::add_request(&model, 4);
            for _ in 0..requests {
                request.infer().unwrap();
            }
        }
    };
    run(20, 200);
    let control = server.control();
    wait_for("sessions are gone", || {
        control.sessions().is_empty().then_some(())
    });
    let (before_kib, before_fds) = (server.proc_status("VmRSS"), server.descriptors());
    run(100, 500);
    wait_for("sessions are gone", || {
        control.sessions().is_empty().then_some(())
    });
    wait_for("descriptors are back", || {
        (server.descriptors() <= before_fds).then_some(())
    });
    let after_kib = server.proc_status("VmRSS");
    assert!(
        after_kib < before_kib + 4096,
        "{before_kib} KiB before, {after_kib} KiB after 100 sessions and 50,000 requests"
    );
}
