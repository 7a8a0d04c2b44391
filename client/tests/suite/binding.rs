//! What language bindings build upon: places that outlive a borrow, leases, and a descriptor to watch.
#![allow(unsafe_code, reason = "places are addresses")]

use std::time::{Duration, Instant};

use adjoin_client::{InputPlace, Lease, OutputPlace, Pending, TensorError, Watch};
use adjoin_schema::layout::{SubmissionKind, submit_flags, wait};
use rustix::event::{PollFd, PollFlags};

use crate::{Ground, fill, kinds, request, row};

fn write(place: &InputPlace, value: f32) {
    let count = usize::try_from(place.byte_size()).unwrap() / 4;
    // SAFETY: the place has that many aligned floats, and no request that uses it is under way.
    let values = unsafe { std::slice::from_raw_parts_mut(place.start().cast().as_ptr(), count) };
    values.fill(value);
}

fn read(place: &OutputPlace) -> Vec<f32> {
    let count = usize::try_from(place.byte_size()).unwrap() / 4;
    // SAFETY: the place has that many aligned floats, and its lease is not dropped.
    unsafe { std::slice::from_raw_parts(place.as_ptr().cast(), count) }.to_vec()
}

fn outputs(lease: &Lease) -> Vec<f32> {
    lease.outputs().get::<f32>("y").unwrap().to_vec()
}

fn is_readable(watch: &Watch, at_most: Duration) -> bool {
    let timeout = rustix::time::Timespec::try_from(at_most).unwrap();
    let mut fds = [PollFd::new(watch, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&timeout)).unwrap() > 0
}

fn until_answered(pending: &Pending, mut turn: impl FnMut()) {
    let began = Instant::now();
    while !pending.is_answered() {
        assert!(began.elapsed() < Duration::from_secs(20));
        turn();
    }
}

fn sleep_until_answered(watch: &mut Watch, pending: &Pending) {
    watch.add(pending);
    until_answered(pending, || {
        watch.arm();
        if !pending.is_answered() {
            assert!(is_readable(watch, Duration::from_secs(1)), "nobody told");
            assert!(watch.read());
        }
    });
}

#[test]
fn places_are_written_by_address_and_kept_from_other_requests() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let model = client.model("double").unwrap();
    let mut first = request(&model, 1);
    let place = first.input_place_at(0).unwrap();
    assert!(matches!(
        first.input_mut::<f32>("x"),
        Err(TensorError::Shared)
    ));
    write(&place, 3.0);
    let outputs = first.infer().unwrap();
    assert_eq!(outputs.get::<f32>("y").unwrap(), row(6.0));
    assert_eq!(read(&outputs.place_at(0).unwrap()), row(6.0));
    assert!(outputs.place_at(1).is_err());

    // The place outlives its request, and nobody else gets it.
    drop(first);
    let mut second = request(&model, 1);
    assert_ne!(second.input_place_at(0).unwrap().start(), place.start());
    second.copy_input_from(0, &place).unwrap();
    assert_eq!(second.infer().unwrap().get::<f32>("y").unwrap(), row(6.0));
    let mut larger = request(&model, 2);
    assert!(matches!(
        larger.copy_input_from(0, &place),
        Err(TensorError::SizeMismatch {
            given: 16,
            byte_size: 32
        })
    ));
    let at = place.start();
    drop(place);
    assert_eq!(request(&model, 1).input_place_at(0).unwrap().start(), at);
    drop((second, larger, model, client));
    server.join().unwrap();
}

#[test]
fn leases_keep_outputs_while_their_request_goes_on() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let mut request = request(&client.model("double").unwrap(), 1);
    let mut kept: Vec<Lease> = Vec::new();
    for run in 0..3u8 {
        fill(&mut request, f32::from(run));
        let (idle, lease) = request.submit().unwrap().wait().unwrap().split();
        request = idle;
        kept.push(lease);
    }
    let all: Vec<_> = kept.iter().map(outputs).collect();
    assert_eq!(all, [row(0.0), row(2.0), row(4.0)]);
    drop((request, client));
    // The session stays while a lease does.
    assert_eq!(outputs(&kept[1]), row(2.0));
    drop(kept);
    let peer = server.join().unwrap();
    assert_eq!(kinds(&peer.log, SubmissionKind::Forget).len(), 3);
    assert_eq!(peer.response_bytes_out(), 0);
}

#[test]
fn leases_that_take_turns_cost_no_preparation() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let model = client.model("double").unwrap();
    let mut one = request(&model, 1);
    let mut last: Option<Lease> = None;
    let mut free: Option<Lease> = None;
    for run in 0..10u8 {
        fill(&mut one, f32::from(run));
        if let Some(lease) = free.take() {
            one.take_back(lease);
        }
        let (idle, lease) = one.submit().unwrap().wait().unwrap().split();
        one = idle;
        if let Some(last) = &last {
            assert_eq!(outputs(last), row(2.0 * f32::from(run - 1)));
        }
        assert_eq!(outputs(&lease), row(2.0 * f32::from(run)));
        free = last.replace(lease);
    }
    // That of another request is of no use, and just ends.
    let mut other = request(&model, 1);
    other.take_back(last.unwrap());
    fill(&mut other, 50.0);
    assert_eq!(other.infer().unwrap().get::<f32>("y").unwrap(), row(100.0));
    drop((one, free, other, model, client));
    let peer = server.join().unwrap();
    let submits = kinds(&peer.log, SubmissionKind::Submit);
    let prepares = submits
        .iter()
        .filter(|entry| entry.flags == submit_flags::PREPARE);
    assert_eq!((submits.len(), prepares.count()), (11, 3));
    assert_eq!(peer.response_bytes_out(), 0);
}

#[test]
fn lease_of_a_response_that_is_not_prepared_is_released() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let builder = client.model("double").unwrap().request_batch(1).unwrap();
    let mut request = builder.prepare(false).build().unwrap();
    fill(&mut request, 1.0);
    let (mut request, lease) = request.submit().unwrap().wait().unwrap().split();
    let place = lease.outputs().place_at(0).unwrap();
    let part = place.writable().unwrap();
    request.take_back(lease);
    // SAFETY: the part is private once written, and has the bytes of four floats.
    unsafe { part.start().cast::<f32>().as_ptr().write(-1.0) };
    fill(&mut request, 2.0);
    let outputs = request.infer().unwrap();
    assert_eq!(outputs.get::<f32>("y").unwrap(), row(4.0));
    drop((request, place, part, client));
    let peer = server.join().unwrap();
    assert_eq!(kinds(&peer.log, SubmissionKind::Release).len(), 2);
    assert_eq!(peer.response_bytes_out(), 0);
}

#[test]
fn duplicate_has_the_bytes_and_does_not_wait() {
    let ground = Ground::new();
    let mut held = None;
    let server = ground.fake().serve_by(move |peer, entry| {
        if entry.kind == SubmissionKind::Submit as u8 && held.is_none() {
            held = Some(entry);
        } else if entry.kind == SubmissionKind::Cancel as u8 {
            // It runs to its end all the same, much later.
        } else {
            // Its answer stands before the second one's, so that the client has taken both when it ends.
            if let Some(held) = held.filter(|_| entry.kind == SubmissionKind::Submit as u8) {
                peer.handle(held);
            }
            peer.handle(entry);
        }
    });
    let client = ground.client();
    let mut first = request(&client.model("double").unwrap(), 1);
    fill(&mut first, 7.0);
    let pending = first.submit().unwrap();
    let mut second = pending.duplicate().unwrap();
    drop(pending);
    assert_eq!(second.infer().unwrap().get::<f32>("y").unwrap(), row(14.0));
    drop((second, client));
    let peer = server.join().unwrap();
    assert_eq!(kinds(&peer.log, SubmissionKind::Cancel).len(), 1);
    assert_eq!(peer.response_bytes_out(), 0);
}

#[test]
fn what_is_written_at_a_kept_address_between_two_servers_goes_along() {
    let ground = Ground::new();
    let fake = ground.fake();
    let first = std::thread::spawn(move || {
        let mut peer = fake.accept();
        peer.next().unwrap();
        peer.die();
    });
    let client = ground.client();
    let mut request = request(&client.model("double").unwrap(), 1);
    let place = request.input_place_at(0).unwrap();
    let id = request.place_id();
    assert!(request.infer().is_err());
    first.join().unwrap();
    // Nothing was left yet.
    assert!(!request.catch_up(0, id, &place).unwrap());
    write(&place, 3.0);
    assert!(request.infer().unwrap_err().is_retryable());
    assert_ne!(request.place_id(), id);
    write(&place, 4.0);
    assert!(!request.catch_up(0, id - 1, &place).unwrap());
    assert!(request.catch_up(1, id, &place).is_err());
    assert!(request.catch_up(0, id, &place).unwrap());
    let second = ground.fake().serve();
    assert_eq!(request.infer().unwrap().get::<f32>("y").unwrap(), row(8.0));
    // It has moved for good.
    assert!(!request.catch_up(0, id, &place).unwrap());
    drop((request, place, client));
    second.join().unwrap();
}

#[test]
fn place_that_went_with_its_server_is_not_taken_for_zeros() {
    let ground = Ground::new();
    let fake = ground.fake();
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let first = std::thread::spawn(move || {
        let mut peer = fake.accept();
        let entry = peer.next().unwrap();
        peer.refuse(&entry, adjoin_client::Status::NotExecuted, [0; 2]);
        gate.recv().unwrap();
        // Its memory goes too.
        drop(peer);
    });
    let client = ground.client();
    let mut request = request(&client.model("double").unwrap(), 1);
    let place = request.input_place_at(0).unwrap();
    let id = request.place_id();
    write(&place, 3.0);
    assert!(request.infer().unwrap_err().is_retryable());
    assert!(request.catch_up(0, id, &place).unwrap());
    go.send(()).unwrap();
    first.join().unwrap();
    assert!(!request.catch_up(0, id, &place).unwrap());
    let second = ground.fake().serve();
    assert_eq!(request.infer().unwrap().get::<f32>("y").unwrap(), row(6.0));
    drop((request, place, client));
    second.join().unwrap();
}

#[test]
fn watch_is_readable_once_armed_and_when_the_session_ends() {
    let ground = Ground::new();
    let server = ground.fake().serve_by(|peer, entry| {
        std::thread::sleep(Duration::from_millis(2));
        peer.handle(entry);
    });
    let client = ground.client();
    let model = client.model("double").unwrap();
    let first = request(&model, 1).submit().unwrap();
    let mut watch = first.watch().unwrap();
    assert!(watch.is_of(&first));
    // Without being armed it looks by itself, and no packet comes.
    until_answered(&first, || watch.look());
    assert!(first.wait().is_ok() && !is_readable(&watch, Duration::ZERO));

    for _ in 0..3 {
        let pending = request(&model, 1).submit().unwrap();
        sleep_until_answered(&mut watch, &pending);
        assert!(pending.wait().is_ok());
    }
    watch.look();
    drop((model, client));
    let peer = server.join().unwrap();
    assert_ne!(peer.wakes & wait::SOCKET, 0);
    // It did not keep the session.
    assert!(is_readable(&watch, Duration::from_millis(500)));
    assert!(!watch.read());
}

#[test]
fn every_watch_is_told_of_its_own_whoever_takes_the_completions() {
    const RUNS: usize = 300;
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let model = client.model("double").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let model = model.clone();
            scope.spawn(move || {
                let mut own = Some(request(&model, 1));
                let mut watch: Option<Watch> = None;
                for _ in 0..RUNS {
                    let pending = own.take().unwrap().submit().unwrap();
                    let watch = watch.get_or_insert_with(|| pending.watch().unwrap());
                    sleep_until_answered(watch, &pending);
                    own = Some(pending.wait().unwrap().into_request());
                }
            });
        }
        let mut own = request(&model, 1);
        for _ in 0..RUNS {
            own.infer().unwrap();
        }
    });
    drop((model, client));
    server.join().unwrap();
}

#[test]
fn one_request_is_watched_by_several_loops() {
    let ground = Ground::new();
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let server = ground.fake().serve_by(move |peer, entry| {
        if entry.kind == SubmissionKind::Submit as u8 {
            gate.recv().unwrap();
        }
        peer.handle(entry);
    });
    let client = ground.client();
    let pending = request(&client.model("double").unwrap(), 1)
        .submit()
        .unwrap();
    let mut watches: [Watch; 3] = std::array::from_fn(|_| pending.watch().unwrap());
    for watch in &mut watches {
        assert!(watch.add(&pending));
        watch.arm();
    }
    go.send(()).unwrap();
    // The last one takes the packet and the completion, and has to tell the others.
    let [first, second, last] = &mut watches;
    assert!(is_readable(last, Duration::from_secs(20)));
    assert!(last.read() && pending.is_answered());
    for watch in [first, second] {
        assert!(is_readable(watch, Duration::ZERO), "nobody told");
        assert!(watch.read());
    }
    assert!(pending.wait().is_ok());
    drop((watches, client));
    server.join().unwrap();
}

#[test]
fn watch_tells_of_the_death_of_the_server() {
    let ground = Ground::new();
    let fake = ground.fake();
    let server = std::thread::spawn(move || {
        let mut peer = fake.accept();
        peer.next().unwrap();
        peer.die();
    });
    let client = ground.client();
    let pending = request(&client.model("double").unwrap(), 1)
        .submit()
        .unwrap();
    let mut watch = pending.watch().unwrap();
    watch.arm();
    until_answered(&pending, || {
        if is_readable(&watch, Duration::from_millis(500)) {
            assert!(!watch.read());
        }
    });
    assert!(pending.wait().is_err());
    server.join().unwrap();
}
