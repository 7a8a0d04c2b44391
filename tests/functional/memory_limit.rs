//! A server under a memory limit of its control group: sessions that the limit has no room for are refused, and the
//! kernel has no reason to end the server. The limits are real; where the machine lets nobody set one, or not this user, the
//! tests are skipped and say so.

use adjoin_client::{Client, ClientOptions, ConnectError};
use adjoin_schema::attach::{AttachMessage, Hello};
use adjoin_schema::limits::REGION_BYTES_MIN;
use adjoin_schema::status::Status;
use adjoin_tests::memory_group::MemoryGroup;
use adjoin_tests::raw::{RawClient, exchange, hello, refusal};
use adjoin_tests::server::{Setup, TestServer};
use adjoin_tests::{add_request, wait_for};
use rustix::fs::FallocateFlags;

const LIMIT: u64 = 256 << 20;
/// Both regions of a session.
const SESSION: u64 = 32 << 20;

/// A server in a group of its own; in this order, so that the server is dropped first.
fn server(config: &str) -> Option<(MemoryGroup, TestServer)> {
    let group = MemoryGroup::or_skip(LIMIT)?;
    let setup = Setup::new(&["add"]).on_rten().in_group(&group.processes());
    Some((group, setup.config(config).start()))
}

fn open(server: &TestServer) -> Result<Client, ConnectError> {
    ClientOptions::new()
        .request_bytes(SESSION / 2)
        .response_bytes(SESSION / 2)
        .connect(server.socket_dir())
}

/// Opens sessions until one is refused.
fn fill(server: &TestServer) -> (Vec<Client>, ConnectError) {
    let mut sessions = Vec::new();
    loop {
        match open(server) {
            Ok(session) => sessions.push(session),
            Err(error) => return (sessions, error),
        }
        assert!(
            sessions.len() as u64 * SESSION < LIMIT,
            "sessions of the whole limit were opened"
        );
    }
}

#[test]
fn sessions_that_would_pass_the_memory_limit_are_refused_and_the_server_lives() {
    let Some((group, mut server)) = server("") else {
        return;
    };
    let (mut sessions, error) = fill(&server);
    assert!(sessions.len() >= 4, "only {} sessions", sessions.len());
    assert_eq!(error.status(), Some(Status::MemoryBudgetExceeded));
    let text = error.to_string();
    assert!(
        text.contains(&format!("wants {SESSION} bytes")) && text.contains("memory limit leaves"),
        "{text}"
    );
    let status = server.control().status();
    assert_eq!(status.memory_limit_bytes, LIMIT);
    assert!(status.memory_left_bytes < SESSION, "{status:?}");
    assert!(status.memory_used_bytes > sessions.len() as u64 * SESSION);
    assert!(group.usage() < LIMIT);
    assert!(
        server
            .log()
            .contains("the memory limit of the control group has no room for it"),
        "{}",
        server.log()
    );
    // Whoever has a session is served, and one that ends makes room.
    let model = sessions[0].model("add").unwrap();
    add_request(&model, 1).infer().unwrap();
    sessions.pop();
    let again = wait_for("there is room again", || open(&server).ok());
    let model = again.model("add").unwrap();
    add_request(&model, 1).infer().unwrap();
    assert!(server.is_alive());
    assert_eq!(group.kills(), 0);
}

#[test]
fn holes_that_clients_punch_make_no_room() {
    let Some((group, mut server)) = server("") else {
        return;
    };
    let greedy = Hello {
        request_bytes: SESSION / 2,
        response_bytes: REGION_BYTES_MIN,
        ..hello()
    };
    let packet = AttachMessage::Hello(greedy.clone()).encode();
    let mut sessions = Vec::new();
    loop {
        let (socket, answer) = exchange(&server.socket_dir(), &packet);
        match AttachMessage::parse(&answer.as_ref().unwrap().bytes) {
            Ok(AttachMessage::Refusal(_)) => {
                assert_eq!(refusal(answer).0, Status::MemoryBudgetExceeded);
                break;
            }
            _ => drop(socket),
        }
        // The trial is over before the session that stays is opened.
        wait_for("the trial has ended", || {
            (server.control().sessions().len() == sessions.len()).then_some(())
        });
        sessions.push(RawClient::attach_with(&server.socket_dir(), greedy.clone()));
        assert!(sessions.len() as u64 * SESSION / 2 < LIMIT);
    }
    let before = group.usage();
    for session in &sessions {
        rustix::fs::fallocate(
            &session.regions[0],
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            0,
            SESSION / 2,
        )
        .unwrap();
    }
    assert!(
        group.usage() + SESSION < before,
        "punching gave nothing back"
    );
    let (_socket, answer) = exchange(&server.socket_dir(), &packet);
    assert_eq!(refusal(answer).0, Status::MemoryBudgetExceeded);
    assert!(server.is_alive());
    assert_eq!(group.kills(), 0);
}

#[test]
fn a_model_larger_than_the_limit_fails_to_load_and_the_others_are_served() {
    // Smaller than elsewhere: a file of that size is written.
    const LIMIT: u64 = 96 << 20;
    let Some(group) = MemoryGroup::or_skip(LIMIT) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let large = directory.path().join("model.onnx");
    let file = std::fs::File::create(&large).unwrap();
    file.set_len(LIMIT).unwrap();
    let setup = Setup::new(&["add"]).on_rten().version("large", 1, &large);
    let server = setup.in_group(&group.processes()).start();
    let models = server.control().models();
    let state = |name: &str| {
        let found = models.iter().find(|model| model.name == name).unwrap();
        (found.state.clone(), found.reason.clone())
    };
    assert_eq!(state("add").0, "ready");
    let (failed, reason) = state("large");
    assert_eq!(failed, "failed");
    assert!(
        reason.contains(&format!("memory limit of {LIMIT} bytes")),
        "{reason}"
    );
    assert_eq!(group.kills(), 0);
}

#[test]
fn the_share_is_configured_and_without_one_the_kernel_ends_the_server() {
    let Some((_group, server)) = server("[limits]\nmemory_percent = 50") else {
        return;
    };
    let (half, error) = fill(&server);
    assert_eq!(error.status(), Some(Status::MemoryBudgetExceeded));
    assert!(half.len() as u64 * SESSION <= LIMIT / 2);
    drop((half, server));
    let Some((group, mut server)) = self::server("[limits]\nmemory_percent = 0") else {
        return;
    };
    let status = server.control().status();
    assert_eq!(
        (status.memory_limit_bytes, status.memory_left_bytes),
        (0, 0)
    );
    // What the share is for: without it the kernel ends the server.
    let mut sessions = Vec::new();
    for _ in 0..2 * LIMIT / SESSION {
        sessions.extend(open(&server));
    }
    wait_for("the kernel ends the server", || {
        (!server.is_alive()).then_some(())
    });
    assert!(group.kills() > 0);
}
