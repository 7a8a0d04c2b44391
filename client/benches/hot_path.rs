//! What the client's hot path costs, against a scripted server in a thread: the best of many short stretches.
//! `cargo bench -p adjoin-client --features tokio`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_wrap,
    reason = "a bench prints, and fails by panicking"
)]

use std::time::{Duration, Instant};

use adjoin_schema::layout::{SubmissionKind, completion_flags};

#[path = "../tests/suite/fake.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod fake;
#[path = "../tests/suite/ground.rs"]
mod ground;

use ground::{Ground, options, request};

const TURNS: u32 = 200_000;
const STRETCH: u32 = 1000;

/// The best of many short stretches, for one turn.
fn best(mut turn: impl FnMut()) -> Duration {
    let stretches = (0..TURNS / STRETCH).map(|_| {
        let began = Instant::now();
        (0..STRETCH).for_each(|_| turn());
        began.elapsed() / STRETCH
    });
    stretches.min().unwrap()
}

fn per_turn(took: Duration) -> f64 {
    took.as_secs_f64() * 1e9 / f64::from(TURNS)
}

fn hot_path_in_nanoseconds() {
    let ground = Ground::new();
    let fake = ground.fake();
    let server = std::thread::spawn(move || {
        let mut peer = fake.accept();
        peer.may_sleep = false;
        while let Some(entry) = peer.next() {
            peer.log.clear();
            peer.handle(entry);
        }
    });
    let client = ground.connect(options().spin(Duration::from_millis(20)));
    let model = client.model("double").unwrap();
    for is_prepared in [true, false] {
        let builder = model.request_batch(1).unwrap().prepare(is_prepared);
        let mut request = builder.build().unwrap();
        let mut turn = || {
            let outputs = request.infer().unwrap();
            outputs.get_at::<f32>(0).unwrap()[0]
        };
        (0..10_000).for_each(|_| {
            turn();
        });
        println!(
            "round trip to a spinning thread, prepared {is_prepared}: {:?}",
            best(|| _ = turn())
        );
    }
    drop((model, client));
    server.join().unwrap();
}

/// The least that a server can do: a fixed completion for every submission.
fn floor_in_nanoseconds() {
    let ground = Ground::new();
    let fake = ground.fake();
    let server = std::thread::spawn(move || {
        let mut peer = fake.accept();
        peer.may_sleep = false;
        let first = peer.next().unwrap();
        peer.handle(first);
        let mut fixed = peer.last.unwrap();
        while let Some(entry) = peer.next() {
            peer.log.clear();
            if entry.kind == SubmissionKind::Submit as u8 {
                fixed.request_id = entry.request_id;
                fixed.flags = completion_flags::PREPARED | completion_flags::SAME_RESPONSE;
                peer.complete(fixed);
            }
        }
    });
    let client = ground.connect(options().spin(Duration::from_millis(20)));
    let model = client.model("double").unwrap();
    let mut request = request(&model, 1);
    let mut turn = || {
        request.infer().unwrap();
    };
    (0..10_000).for_each(|_| turn());
    println!(
        "round trip to a thread that does nothing else: {:?}",
        best(turn)
    );
    drop((request, model, client));
    server.join().unwrap();
}

#[cfg(feature = "tokio")]
fn awaited_in_nanoseconds() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let model = client.model("double").unwrap();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    runtime.block_on(async {
        let mut request = request(&model, 1);
        for count in [1000, 20_000] {
            let began = Instant::now();
            for _ in 0..count {
                request = request.submit().unwrap().await.unwrap().into_request();
            }
            let took = began.elapsed().as_nanos() / count;
            println!("awaited, both sides asleep: {took} ns");
        }
    });
    drop((model, client));
    server.join().unwrap();
}

/// Both sides in one thread: what the client's own instructions cost, without another core.
fn own_cost_in_nanoseconds() {
    let ground = Ground::new();
    let fake = ground.fake();
    let server = std::thread::spawn(move || {
        let mut peer = fake.accept();
        while !peer.read_socket() {}
        std::thread::sleep(Duration::from_millis(200));
        peer.read_socket();
        peer
    });
    let client = ground.client();
    let model = client.model("double").unwrap();
    let mut request = request(&model, 1);
    let mut peer = server.join().unwrap();
    // The best of many short stretches: what remains when nobody else wants the core.
    let (mut submit, mut finish) = (Duration::MAX, Duration::MAX);
    for _ in 0..TURNS / STRETCH {
        let (mut to_submit, mut to_finish) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..STRETCH {
            let began = Instant::now();
            let pending = request.submit().unwrap();
            to_submit += began.elapsed();
            let entry = peer.poll().unwrap();
            peer.log.clear();
            peer.handle(entry);
            let began = Instant::now();
            let response = pending.wait().unwrap();
            let value = response.get_at::<f32>(0).unwrap()[0];
            request = response.into_request();
            to_finish += began.elapsed();
            assert!(value.is_finite());
        }
        submit = submit.min(to_submit / STRETCH);
        finish = finish.min(to_finish / STRETCH);
    }
    let clock = {
        let began = Instant::now();
        (0..TURNS).for_each(|_| {
            std::hint::black_box(Instant::now().elapsed());
        });
        per_turn(began.elapsed()) / 2.0
    };
    println!(
        "one thread: submit {submit:?}, harvest + wait + get + back {finish:?} (each with a clock read of {clock:.0} ns)"
    );
}

fn main() {
    hot_path_in_nanoseconds();
    floor_in_nanoseconds();
    #[cfg(feature = "tokio")]
    awaited_in_nanoseconds();
    own_cost_in_nanoseconds();
}
