//! Requests that outlive their server.

use std::sync::atomic::Ordering;
use std::time::Duration;

use adjoin_client::{InferError, Status};
use adjoin_schema::layout::{SubmissionKind, server_state};

use crate::fake::{Fake, Peer};
use crate::{Ground, fill, options, request, row};

#[test]
fn request_moves_to_the_next_server_with_its_bytes() {
    let ground = Ground::new();
    let fake = ground.fake();
    let first = std::thread::spawn(move || {
        let mut peer = fake.accept();
        let entry = peer.next().unwrap();
        peer.handle(entry);
        peer.next().unwrap();
        peer.die();
    });
    let client = ground.client();
    let model = client.model("double").unwrap();
    let mut request = request(&model, 1);
    let other = crate::request(&model, 1);
    fill(&mut request, 21.0);
    request.infer().unwrap();
    let session_id = client.session_id();
    assert!(matches!(
        request.infer(),
        Err(InferError::ServerGone { may_have_run: true })
    ));
    first.join().unwrap();
    assert!(matches!(request.infer(), Err(InferError::Connect(_))));
    assert_eq!(client.reconnects(), 0);

    let second = ground.fake().serve();
    for _ in 0..3 {
        let outputs = request.infer().unwrap();
        assert_eq!(outputs.get::<f32>("y").unwrap(), row(42.0));
    }
    let mut other = other.submit().unwrap().wait().unwrap().into_request();
    fill(&mut other, 1.0);
    assert_eq!(other.infer().unwrap().get::<f32>("y").unwrap(), row(2.0));
    assert_eq!(client.reconnects(), 1);
    assert_ne!(client.session_id(), session_id);
    client.model("double").unwrap();
    drop((request, other, model, client));
    second.join().unwrap();
}

#[test]
fn patient_client_waits_for_the_next_server() {
    let ground = Ground::new();
    let fake = ground.fake();
    let first = std::thread::spawn(move || fake.accept().die());
    let patient = options().reconnect_timeout(Duration::from_secs(30));
    let client = ground.connect(patient);
    first.join().unwrap();
    let path = ground.dir.path().to_owned();
    let second = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        Fake::bind(&path).serve().join().unwrap()
    });
    let mut request = request(&client.model("double").unwrap(), 1);
    request.infer().unwrap();
    assert_eq!(client.reconnects(), 1);
    drop((request, client));
    second.join().unwrap();
}

#[test]
fn restart_behind_an_idle_client_costs_no_request() {
    let ground = Ground::new();
    let fake = ground.fake();
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let first = std::thread::spawn(move || {
        let mut peer = fake.accept();
        let entry = peer.next().unwrap();
        peer.handle(entry);
        gate.recv().unwrap();
        // It sleeps when it is killed.
        let word = peer.memory.server_wait();
        adjoin_shm::doorbell::announce(word, 1);
        peer.die();
    });
    let client = ground.client();
    let mut request = request(&client.model("double").unwrap(), 1);
    fill(&mut request, 3.0);
    request.infer().unwrap();
    go.send(()).unwrap();
    first.join().unwrap();
    let second = ground.fake().serve();
    let outputs = request.infer().unwrap();
    assert_eq!(outputs.get::<f32>("y").unwrap(), row(6.0));
    drop((request, client));
    second.join().unwrap();
}

#[test]
fn inputs_that_went_with_a_server_have_to_be_written_again() {
    let ground = Ground::new();
    let fake = ground.fake();
    let first = std::thread::spawn(move || {
        let mut peer = fake.accept();
        let entry = peer.next().unwrap();
        peer.handle(entry);
        peer.next().unwrap();
        drop(peer);
    });
    let client = ground.client();
    let mut request = request(&client.model("double").unwrap(), 1);
    fill(&mut request, 3.0);
    request.infer().unwrap();
    let error = request.infer().unwrap_err();
    assert!(matches!(error, InferError::ServerGone { .. }), "{error:?}");
    first.join().unwrap();
    let second = ground.fake().serve();
    for _ in 0..2 {
        let error = request.infer().unwrap_err();
        assert!(matches!(error, InferError::InputLost { .. }), "{error:?}");
        assert!(error.to_string().contains("\"x\""));
    }
    fill(&mut request, 4.0);
    let outputs = request.infer().unwrap();
    assert_eq!(outputs.get::<f32>("y").unwrap(), row(8.0));
    drop((request, client));
    second.join().unwrap();
}

fn drain(peer: &Peer) {
    let word = peer.memory.server_state();
    word.store(server_state::DRAINING, Ordering::Release);
}

#[test]
fn draining_server_executes_nothing_and_its_successor_takes_over() {
    let ground = Ground::new();
    let fake = ground.fake();
    let (drained, is_drained) = std::sync::mpsc::channel::<()>();
    let first = std::thread::spawn(move || {
        let mut peer = fake.accept();
        for index in 0..2 {
            let entry = peer.next().unwrap();
            if index == 0 {
                peer.handle(entry);
            } else {
                peer.refuse(&entry, Status::NotExecuted, [0; 2]);
                drain(&peer);
            }
        }
        drop(fake);
        drained.send(()).unwrap();
        // What it has it still finishes; then the client leaves.
        peer.run(&mut Peer::handle);
        peer
    });
    let client = ground.client();
    let model = client.model("double").unwrap();
    let mut request = request(&model, 1);
    fill(&mut request, 8.0);
    request.infer().unwrap();
    let error = request.infer().unwrap_err();
    assert!(matches!(error, InferError::NotExecuted(_)), "{error:?}");
    assert!(error.is_retryable() && !error.may_have_run());
    is_drained.recv().unwrap();
    // No successor yet: the word says so without a submission.
    for _ in 0..2 {
        let error = request.infer().unwrap_err();
        assert!(matches!(error, InferError::NotExecuted(_)), "{error:?}");
    }
    let second = ground.fake().serve();
    let outputs = loop {
        // The directory is left alone for a moment after a look in vain.
        match request.infer() {
            Ok(_) => break request.infer().unwrap(),
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(outputs.get::<f32>("y").unwrap(), row(16.0));
    assert_eq!(client.reconnects(), 1);
    // Nothing holds the session with the first server any more.
    let peer = first.join().unwrap();
    assert_eq!(peer.response_bytes_out(), 0);
    drop((request, model, client));
    second.join().unwrap();
}

#[test]
fn inputs_survive_a_server_that_drains_before_it_goes() {
    for is_told_by_word in [true, false] {
        let ground = Ground::new();
        let fake = ground.fake();
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let first = std::thread::spawn(move || {
            let mut peer = fake.accept();
            let entry = peer.next().unwrap();
            peer.handle(entry);
            if is_told_by_word {
                while gate.try_recv().is_err() {
                    peer.poll().into_iter().for_each(|entry| peer.handle(entry));
                }
                drain(&peer);
            }
            drop(fake);
            while gate.try_recv().is_err() {
                // Others than submissions are of no interest any more.
                if let Some(entry) = peer.poll()
                    && entry.kind == SubmissionKind::Submit as u8
                {
                    peer.refuse(&entry, Status::NotExecuted, [0; 2]);
                }
            }
            drop(peer);
        });
        let client = ground.client();
        let mut request = request(&client.model("double").unwrap(), 1);
        fill(&mut request, 6.0);
        request.infer().unwrap();
        if is_told_by_word {
            go.send(()).unwrap();
        }
        let error = loop {
            if let Err(error) = request.infer() {
                break error;
            }
        };
        assert!(matches!(error, InferError::NotExecuted(_)), "{error:?}");
        go.send(()).unwrap();
        first.join().unwrap();
        // All memory of the session is zeros now.
        assert!(matches!(request.infer(), Err(InferError::Connect(_))));
        let second = ground.fake().serve();
        let outputs = request.infer().unwrap();
        assert_eq!(outputs.get::<f32>("y").unwrap(), row(12.0));
        drop((request, client));
        second.join().unwrap();
    }
}

#[test]
fn what_is_written_between_two_servers_is_kept() {
    let ground = Ground::new();
    let fake = ground.fake();
    let first = std::thread::spawn(move || {
        let mut peer = fake.accept();
        peer.next().unwrap();
        drop(peer);
    });
    let client = ground.client();
    let mut request = request(&client.model("double").unwrap(), 1);
    assert!(request.infer().is_err());
    first.join().unwrap();
    fill(&mut request, 4.0);
    assert!(matches!(request.infer(), Err(InferError::Connect(_))));
    let second = ground.fake().serve();
    let outputs = request.infer().unwrap();
    assert_eq!(outputs.get::<f32>("y").unwrap(), row(8.0));
    drop((request, client));
    second.join().unwrap();
}

#[test]
fn successor_without_room_says_so() {
    let ground = Ground::new();
    let fake = ground.fake();
    let first = std::thread::spawn(move || {
        let mut peer = fake.accept();
        peer.read_socket();
        while peer.log.is_empty() {
            peer.next();
        }
        peer.die();
    });
    let client = ground.client();
    let model = client.model("double").unwrap();
    let mut large = request(&model, 4096);
    let mut others: Vec<_> = (0..2).map(|_| request(&model, 4096)).collect();
    assert!(large.infer().is_err());
    first.join().unwrap();
    let second = ground.fake().serve();
    // Made in the new session, where the old requests have yet to arrive.
    let newcomer = request(&model, 4096);
    others.iter_mut().for_each(|other| drop(other.infer()));
    let error = large.infer().unwrap_err();
    assert!(matches!(error, InferError::RegionFull(_)), "{error:?}");
    drop(newcomer);
    large.infer().unwrap();
    drop((large, others, model, client));
    second.join().unwrap();
}
