//! One session, many threads.

use std::time::Duration;

use crate::{Ground, fill, options, request, row};

#[test]
fn threads_share_a_session() {
    for spin in [Duration::ZERO, Duration::from_micros(100)] {
        let ground = Ground::new();
        let server = ground.fake().serve();
        let client = ground.connect(options().ring_entries(16).spin(spin));
        let model = client.model("double").unwrap();
        std::thread::scope(|scope| {
            for thread in 0..6u8 {
                let model = model.clone();
                scope.spawn(move || {
                    let mut request = request(&model, 1);
                    for run in 0..200u8 {
                        let value = f32::from(run) + 1000.0 * f32::from(thread);
                        fill(&mut request, value);
                        let outputs = request.infer().unwrap();
                        assert_eq!(outputs.get::<f32>("y").unwrap(), row(2.0 * value));
                    }
                });
            }
        });
        drop((model, client));
        let peer = server.join().unwrap();
        assert_eq!(peer.response_bytes_out(), 0);
    }
}

#[test]
fn requests_and_their_answers_move_between_threads() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let model = client.model("double").unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let mut sum = 0.0;
        while let Ok(pending) = receive.recv() {
            let pending: adjoin_client::Pending = pending;
            sum += pending.wait().unwrap().get::<f32>("y").unwrap()[0];
        }
        sum
    });
    for run in 0..40u8 {
        let mut request = request(&model, 1);
        fill(&mut request, f32::from(run));
        let mut request = Some(request);
        while let Some(next) = request.take() {
            match next.submit() {
                Ok(pending) => send.send(pending).unwrap(),
                Err(failed) => {
                    assert!(failed.error.is_retryable(), "{failed}");
                    std::thread::yield_now();
                    request = failed.request;
                }
            }
        }
    }
    drop(send);
    assert!((waiter.join().unwrap() - 2.0 * 780.0).abs() < 0.1);
    drop((model, client));
    server.join().unwrap();
}

#[test]
fn handles_may_cross_threads() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    send::<adjoin_client::Client>();
    sync::<adjoin_client::Client>();
    send::<adjoin_client::Model>();
    sync::<adjoin_client::Model>();
    send::<adjoin_client::Request>();
    send::<adjoin_client::Pending>();
    send::<adjoin_client::Response>();
    send::<adjoin_client::FailedRequest>();
    sync::<adjoin_client::FailedRequest>();
}
