//! Operations that wait for the next server: until their own deadlines, or until they are interrupted. A wait that
//! heeds neither ends with the test's watchdog.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use adjoin_client::{ConnectError, InferError, Request, RequestError, SubmitOptions};

use crate::{Ground, fill, options, request, row};

const SHORT: Duration = Duration::from_millis(20);
const HOUR: Duration = Duration::from_secs(3600);

/// Ways to say it.
fn limits() -> [SubmitOptions; 4] {
    let options = SubmitOptions::new();
    let (soon, late) = (Instant::now() + SHORT, Instant::now() + HOUR);
    [
        options.deadline_in(SHORT),
        options.deadline_at(soon),
        options.give_up_at(soon),
        options.deadline_at(soon).give_up_at(late),
    ]
}

/// Requests whose server was killed, of a client that is patient beyond measure.
fn orphans(ground: &Ground, options: adjoin_client::ClientOptions) -> [Request; 2] {
    let fake = ground.fake();
    let server = std::thread::spawn(move || {
        let mut peer = fake.accept();
        peer.next();
        peer.die();
    });
    let client = ground.connect(options.reconnect_timeout(HOUR).answer_timeout(HOUR));
    let model = client.model("double").unwrap();
    let mut requests = [request(&model, 1), request(&model, 1)];
    for request in &mut requests {
        fill(request, 3.0);
    }
    let outcome = requests[0].infer();
    assert!(matches!(outcome, Err(InferError::ServerGone { .. })));
    server.join().unwrap();
    requests
}

fn check_unavailable(error: &InferError) {
    let is_unavailable = matches!(
        error,
        InferError::Connect(ConnectError::NoServer { .. } | ConnectError::Timeout { .. })
    );
    assert!(is_unavailable, "{error:?}");
    assert!(error.is_retryable() && !error.may_have_run());
}

#[test]
fn submission_waits_for_a_server_no_longer_than_its_deadline() {
    let ground = Ground::new();
    let [mut request, _] = orphans(&ground, options());
    for limit in limits() {
        check_unavailable(&request.infer_with(&limit).unwrap_err());
    }
    let server = ground.fake().serve();
    let outputs = request.infer().unwrap();
    assert_eq!(outputs.get::<f32>("y").unwrap(), row(6.0));
    drop(request);
    server.join().unwrap();
}

#[test]
fn building_waits_for_a_server_no_longer_than_it_may() {
    let ground = Ground::new();
    let fake = ground.fake();
    let server = std::thread::spawn(move || {
        let mut peer = fake.accept();
        peer.next();
        peer.die();
    });
    let client = ground.connect(options().reconnect_timeout(HOUR));
    let model = client.model("double").unwrap();
    assert!(request(&model, 1).infer().is_err());
    server.join().unwrap();
    let builder = model.request_batch(1).unwrap();
    let error = builder.give_up_at(Instant::now() + SHORT).build();
    let Err(RequestError::Session(error)) = error else {
        panic!("{error:?}");
    };
    check_unavailable(&error);
}

#[test]
fn submission_waits_for_a_handshake_no_longer_than_its_deadline() {
    let ground = Ground::new();
    let [mut request, _] = orphans(&ground, options());
    // It takes connections and says nothing.
    let fake = ground.fake();
    for limit in limits() {
        check_unavailable(&request.infer_with(&limit).unwrap_err());
    }
    drop(fake);
    let server = ground.fake().serve();
    request.infer().unwrap();
    drop(request);
    server.join().unwrap();
}

#[test]
fn submission_waits_for_another_thread_that_connects_no_longer_than_its_deadline() {
    let ground = Ground::new();
    let is_watched = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_watched);
    let (asked, is_asked) = channel::<()>();
    let options = options().interrupt(move || {
        if flag.load(Ordering::Relaxed) {
            let _ = asked.send(());
        }
        false
    });
    let [mut patient, mut hasty] = orphans(&ground, options);
    let client = patient.client().clone();
    is_watched.store(true, Ordering::Relaxed);
    let waits = std::thread::spawn(move || {
        let outputs = patient.infer().unwrap();
        assert_eq!(outputs.get::<f32>("y").unwrap(), row(6.0));
    });
    // It was asked when it took the turn, and is asked again while it waits for a server.
    (0..2).for_each(|_| is_asked.recv().unwrap());
    for limit in limits() {
        check_unavailable(&hasty.infer_with(&limit).unwrap_err());
    }
    assert_eq!(client.reconnects(), 0);
    assert_ne!(client.session_id(), 0);
    let server = ground.fake().serve();
    waits.join().unwrap();
    assert_eq!(client.reconnects(), 1);
    drop((hasty, client));
    server.join().unwrap();
}

#[test]
fn wait_for_a_server_is_interrupted() {
    let ground = Ground::new();
    let is_wanted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_wanted);
    let options = options().interrupt(move || flag.load(Ordering::Relaxed));
    let [mut request, _] = orphans(&ground, options);
    let client = request.client().clone();
    let signal = std::thread::spawn(move || {
        std::thread::sleep(SHORT);
        is_wanted.store(true, Ordering::Relaxed);
    });
    let error = request.infer().unwrap_err();
    let is_interrupted =
        |error: &InferError| matches!(error, InferError::Connect(ConnectError::Interrupted));
    assert!(is_interrupted(&error), "{error:?}");
    assert!(!error.is_retryable() && !error.may_have_run());
    signal.join().unwrap();
    let error = client.model("double").unwrap_err();
    assert!(is_interrupted(&error), "{error:?}");
}

#[test]
fn wait_for_the_description_of_a_model_is_interrupted() {
    let ground = Ground::new();
    let fake = ground.fake();
    let (end, is_over) = channel::<()>();
    let server = std::thread::spawn(move || {
        let peer = fake.accept();
        // Never a word after the handshake.
        let _ = is_over.recv();
        drop(peer);
    });
    let is_wanted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_wanted);
    let options = options()
        .answer_timeout(HOUR)
        .interrupt(move || flag.load(Ordering::Relaxed));
    let client = ground.connect(options);
    let signal = std::thread::spawn(move || {
        std::thread::sleep(SHORT);
        is_wanted.store(true, Ordering::Relaxed);
    });
    let error = client.model("double").unwrap_err();
    let is_interrupted = matches!(error, InferError::Connect(ConnectError::Interrupted));
    assert!(is_interrupted, "{error:?}");
    signal.join().unwrap();
    drop(end);
    server.join().unwrap();
}
