//! Servers that go while requests are under way.

use std::time::Duration;

use adjoin_client::{InferError, Status};
use adjoin_schema::attach::{AttachMessage, Refusal};

use crate::fake::Fake;
use crate::{Ground, fill, options, request, row};

/// Takes so many entries, then dies.
fn dies_after(fake: Fake, entries: usize) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut peer = fake.accept();
        for _ in 0..entries {
            peer.next().unwrap();
        }
        peer.die();
    })
}

#[test]
fn death_is_seen_while_spinning_and_while_asleep() {
    for spin in [Duration::ZERO, Duration::from_millis(20)] {
        let ground = Ground::new();
        let server = dies_after(ground.fake(), 1);
        let client = ground.connect(options().spin(spin));
        let mut request = request(&client.model("double").unwrap(), 1);
        let error = request.infer().unwrap_err();
        assert!(
            matches!(error, InferError::ServerGone { may_have_run: true }),
            "{error:?}"
        );
        assert!(error.may_have_run() && !error.is_retryable());
        // Nobody is there to connect to.
        let error = request.infer().unwrap_err();
        assert!(matches!(error, InferError::Connect(_)), "{error:?}");
        assert!(error.is_retryable() && !error.may_have_run());
        server.join().unwrap();
    }
}

#[test]
fn death_is_seen_by_every_kind_of_wait() {
    let ground = Ground::new();
    let server = dies_after(ground.fake(), 3);
    let client = ground.client();
    let model = client.model("double").unwrap();
    let mut looked_at = request(&model, 1).submit().unwrap();
    let timed = request(&model, 1).submit().unwrap();
    let waited = request(&model, 1).submit().unwrap();
    let failed = timed.wait_timeout(Duration::from_secs(20)).unwrap_err();
    assert!(matches!(failed.error, InferError::ServerGone { .. }));
    assert!(looked_at.is_done());
    for pending in [looked_at, waited] {
        let failed = pending.wait().unwrap_err();
        assert!(matches!(failed.error, InferError::ServerGone { .. }));
        assert!(failed.request.is_some());
    }
    let error = client.model("double").unwrap_err();
    assert!(matches!(error, InferError::Connect(_)), "{error:?}");
    server.join().unwrap();
}

#[test]
fn what_was_answered_before_the_death_is_delivered() {
    let ground = Ground::new();
    let fake = ground.fake();
    let (ready, go) = std::sync::mpsc::channel::<()>();
    let server = std::thread::spawn(move || {
        let mut peer = fake.accept();
        let first = peer.next().unwrap();
        peer.next().unwrap();
        peer.handle(first);
        peer.die();
        ready.send(()).unwrap();
    });
    let client = ground.client();
    let model = client.model("double").unwrap();
    let mut first = request(&model, 1);
    fill(&mut first, 5.0);
    let first = first.submit().unwrap();
    let second = request(&model, 1).submit().unwrap();
    go.recv().unwrap();
    let failed = second.wait().unwrap_err();
    assert!(matches!(failed.error, InferError::ServerGone { .. }));
    let response = first.wait().unwrap();
    assert_eq!(response.get::<f32>("y").unwrap(), row(10.0));
    server.join().unwrap();
}

#[test]
fn reason_of_an_ended_session_is_told() {
    for is_reset in [false, true] {
        check_reason(is_reset);
    }
}

fn check_reason(is_reset: bool) {
    let ground = Ground::new();
    let fake = ground.fake();
    let (taken, is_taken) = std::sync::mpsc::channel::<()>();
    let server = std::thread::spawn(move || {
        let mut peer = fake.accept();
        peer.next().unwrap();
        taken.send(()).unwrap();
        if is_reset {
            // A question that is never read: closing resets the connection.
            peer.socket.wait_readable(Duration::from_secs(20)).unwrap();
        }
        let refusal = AttachMessage::Refusal(Refusal {
            query_id: 0,
            status: Status::RingIndexInvalid as u16,
            detail: [77, 32],
        });
        peer.socket.send(&refusal.encode(), &[]).unwrap();
        peer.die();
    });
    let client = ground.client();
    let model = client.model("double").unwrap();
    let pending = request(&model, 1).submit().unwrap();
    is_taken.recv().unwrap();
    if is_reset {
        client.model("double").unwrap_err();
    }
    let error = pending.wait().unwrap_err().error;
    assert!(matches!(error, InferError::SessionEnded(_)), "{error:?}");
    assert_eq!(error.status(), Some(Status::RingIndexInvalid));
    assert!(error.to_string().contains("ring index 77"), "{error}");
    server.join().unwrap();
}

#[test]
fn orderly_end_is_no_violation_though_all_memory_reads_as_zeros() {
    let ground = Ground::new();
    let fake = ground.fake();
    let server = std::thread::spawn(move || {
        let mut peer = fake.accept();
        for _ in 0..3 {
            let entry = peer.next().unwrap();
            peer.handle(entry);
        }
        peer.next().unwrap();
        // First the memory, then the socket: the rings go back to zero before the end can be seen.
        let crate::fake::Peer { memory, socket, .. } = peer;
        drop(memory);
        drop(socket);
    });
    let client = ground.client();
    let mut request = request(&client.model("double").unwrap(), 1);
    for _ in 0..3 {
        request.infer().unwrap();
    }
    let error = request.infer().unwrap_err();
    assert!(matches!(error, InferError::ServerGone { .. }), "{error:?}");
    server.join().unwrap();
}

#[test]
fn outputs_that_a_server_took_back_are_an_error_and_no_zeros() {
    let ground = Ground::new();
    let fake = ground.fake();
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let server = std::thread::spawn(move || {
        let mut peer = fake.accept();
        let entry = peer.next().unwrap();
        peer.handle(entry);
        gate.recv().unwrap();
        drop(peer);
    });
    let client = ground.client();
    let mut request = request(&client.model("double").unwrap(), 1);
    let outputs = request.infer().unwrap();
    outputs.get::<f32>("y").unwrap();
    go.send(()).unwrap();
    server.join().unwrap();
    let error = outputs.get::<f32>("y").unwrap_err();
    assert!(matches!(error, adjoin_client::TensorError::Lost));
}
