//! Awaited requests.

use std::time::Duration;

use adjoin_client::{InferError, Model};
use adjoin_schema::layout::{SubmissionEntry, SubmissionKind, wait};
use tokio::runtime::{Builder, Runtime};

use crate::{Ground, fill, options, request, row};

fn runtimes() -> [Runtime; 2] {
    let one = Builder::new_current_thread().enable_all().build();
    let many = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    [one.unwrap(), many.unwrap()]
}

async fn run(model: Model, runs: u8, base: f32) {
    let mut request = request(&model, 1);
    for run in 0..runs {
        let value = base + f32::from(run);
        fill(&mut request, value);
        let response = request.submit().unwrap().await.unwrap();
        assert_eq!(response.get::<f32>("y").unwrap(), row(2.0 * value));
        request = response.into_request();
    }
}

#[test]
fn many_tasks_await_their_own_answers() {
    for runtime in runtimes() {
        let ground = Ground::new();
        // Late and the wrong way round, so that most tasks really sleep.
        let server = ground.fake().serve_by(|peer, entry| {
            std::thread::sleep(Duration::from_micros(50));
            let mut entries: Vec<SubmissionEntry> = vec![entry];
            entries.extend(std::iter::from_fn(|| peer.poll()));
            // Only answers change places.
            let is_submit = |entry: &SubmissionEntry| entry.kind == SubmissionKind::Submit as u8;
            let (submits, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_submit);
            others.into_iter().for_each(|entry| peer.handle(entry));
            submits
                .into_iter()
                .rev()
                .for_each(|entry| peer.handle(entry));
        });
        let client = ground.connect(options().ring_entries(64));
        let model = client.model("double").unwrap();
        runtime.block_on(async {
            let tasks: Vec<_> = (0..32u8)
                .map(|task| tokio::spawn(run(model.clone(), 50, 1000.0 * f32::from(task))))
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        drop((model, client));
        drop(runtime);
        let peer = server.join().unwrap();
        assert_ne!(peer.wakes & wait::SOCKET, 0);
        assert_eq!(peer.response_bytes_out(), 0);
    }
}

#[test]
fn session_outlives_runtimes_and_mixes_with_threads() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let model = client.model("double").unwrap();
    let kept = runtimes();
    for runtime in &kept {
        runtime.block_on(run(model.clone(), 5, 0.0));
    }
    for runtime in runtimes() {
        runtime.block_on(run(model.clone(), 5, 0.0));
    }
    std::thread::scope(|scope| {
        let blocking = model.clone();
        scope.spawn(move || {
            let mut request = request(&blocking, 1);
            for value in 0..200u8 {
                fill(&mut request, f32::from(value));
                let outputs = request.infer().unwrap();
                assert_eq!(
                    outputs.get::<f32>("y").unwrap(),
                    row(2.0 * f32::from(value))
                );
            }
        });
        for runtime in &kept {
            let model = model.clone();
            scope.spawn(move || runtime.block_on(run(model, 200, 5.0)));
        }
    });
    drop((model, client));
    // The drivers do not hold the session, though their runtimes are still there.
    server.join().unwrap();
    drop(kept);
}

#[test]
fn death_of_the_server_wakes_every_task() {
    for runtime in runtimes() {
        let ground = Ground::new();
        let fake = ground.fake();
        let server = std::thread::spawn(move || {
            let mut peer = fake.accept();
            for _ in 0..8 {
                peer.next().unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
            peer.die();
        });
        let client = ground.client();
        let model = client.model("double").unwrap();
        runtime.block_on(async {
            let tasks: Vec<_> = (0..8)
                .map(|_| {
                    let pending = request(&model, 1).submit().unwrap();
                    tokio::spawn(async move { pending.await.unwrap_err() })
                })
                .collect();
            for task in tasks {
                let failed = task.await.unwrap();
                assert!(matches!(failed.error, InferError::ServerGone { .. }));
                assert!(failed.request.is_some());
            }
        });
        server.join().unwrap();
    }
}

#[test]
fn dropped_future_cancels_and_leaves_the_others_alone() {
    for runtime in runtimes() {
        let ground = Ground::new();
        let mut script = 0;
        let mut held = None;
        let server = ground.fake().serve_by(move |peer, entry| {
            script += 1;
            if script == 1 {
                held = Some(entry);
            } else if entry.kind == SubmissionKind::Cancel as u8 {
                peer.handle(held.take().unwrap());
            } else {
                peer.handle(entry);
            }
        });
        let client = ground.client();
        let model = client.model("double").unwrap();
        runtime.block_on(async {
            let stuck = request(&model, 1).submit().unwrap();
            let outcome = tokio::time::timeout(Duration::from_millis(20), stuck).await;
            assert!(outcome.is_err());
            run(model.clone(), 5, 1.0).await;
        });
        drop((model, client));
        drop(runtime);
        let peer = server.join().unwrap();
        assert_eq!(peer.response_bytes_out(), 0);
    }
}
