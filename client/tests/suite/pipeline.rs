//! Several requests under way.

use std::collections::VecDeque;

use adjoin_client::InferError;
use adjoin_schema::layout::{SubmissionEntry, SubmissionKind};

use crate::{Ground, fill, request, row};

#[test]
fn completions_find_their_requests_in_any_order() {
    let ground = Ground::new();
    let mut held: Vec<SubmissionEntry> = Vec::new();
    let server = ground.fake().serve_by(move |peer, entry| {
        if entry.kind != SubmissionKind::Submit as u8 {
            return peer.handle(entry);
        }
        held.push(entry);
        if held.len() == 4 {
            for entry in held.drain(..).rev() {
                peer.handle(entry);
            }
        }
    });
    let client = ground.client();
    let model = client.model("double").unwrap();
    let mut requests: Vec<_> = (0..4).map(|_| request(&model, 1)).collect();
    for round in 0..50u8 {
        for (index, request) in (0u8..).zip(&mut requests) {
            fill(request, f32::from(round) + 10.0 * f32::from(index));
        }
        let pending: Vec<_> = requests
            .drain(..)
            .map(|request| request.submit().unwrap())
            .collect();
        for (index, pending) in (0u8..).zip(pending) {
            let response = pending.wait().unwrap();
            let expected = row(2.0 * (f32::from(round) + 10.0 * f32::from(index)));
            assert_eq!(response.get::<f32>("y").unwrap(), expected);
            requests.push(response.into_request());
        }
    }
    drop((requests, model, client));
    server.join().unwrap();
}

#[test]
fn more_than_the_ring_holds_is_refused_and_the_request_comes_back() {
    let ground = Ground::new();
    let mut held: Vec<SubmissionEntry> = Vec::new();
    let server = ground.fake().serve_by(move |peer, entry| {
        if entry.kind != SubmissionKind::Submit as u8 {
            return peer.handle(entry);
        }
        held.push(entry);
        if held.len() == 8 {
            held.drain(..).for_each(|entry| peer.handle(entry));
        }
    });
    let client = ground.client();
    let model = client.model("double").unwrap();
    let mut pending: VecDeque<_> = (0..7)
        .map(|_| request(&model, 1).submit().unwrap())
        .collect();
    let eighth = request(&model, 1);
    let ninth = request(&model, 1);
    pending.push_back(eighth.submit().unwrap());
    let failed = ninth.submit().unwrap_err();
    assert!(matches!(
        failed.error,
        InferError::TooManyInFlight { limit: 8 }
    ));
    assert!(failed.error.is_retryable());
    let ninth = failed.request.unwrap();
    pending.pop_front().unwrap().wait().unwrap();
    let mut ninth = ninth.submit().unwrap();
    assert!(!ninth.is_done());
    drop((ninth, pending, model, client));
    server.join().unwrap();
}

#[test]
fn many_more_requests_than_places_pass_through() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let model = client.model("double").unwrap();
    let mut idle: Vec<_> = (0..8).map(|_| request(&model, 1)).collect();
    let mut under_way = VecDeque::new();
    let mut sent = 0u16;
    let mut received = 0u16;
    while received < 1000 {
        while sent < 1000
            && let Some(mut next) = idle.pop()
        {
            fill(&mut next, f32::from(sent));
            under_way.push_back((sent, next.submit().unwrap()));
            sent += 1;
        }
        let (number, pending) = under_way.pop_front().unwrap();
        let response = pending.wait().unwrap();
        assert_eq!(
            response.get::<f32>("y").unwrap(),
            row(2.0 * f32::from(number))
        );
        idle.push(response.into_request());
        received += 1;
    }
    drop((idle, model, client));
    server.join().unwrap();
}

#[test]
fn entries_that_find_the_ring_full_are_sent_before_the_next_submission() {
    const REQUESTS: usize = 40;
    let ground = Ground::new();
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let server = ground.fake().serve_by(move |peer, entry| {
        // At the first of them the server stops for a while: the ring has room for 32 more.
        if entry.kind == SubmissionKind::Forget as u8 && peer.log.len() == REQUESTS + 1 {
            gate.recv().unwrap();
        }
        peer.handle(entry);
    });
    let client = ground.client();
    let model = client.model("double").unwrap();
    let mut requests: Vec<_> = (0..REQUESTS).map(|_| request(&model, 1)).collect();
    for request in &mut requests {
        request.infer().unwrap();
    }
    let mut last = requests.pop().unwrap();
    drop(requests);
    let mut others: Vec<_> = (0..4).map(|_| request(&model, 1)).collect();
    let error = last.infer().unwrap_err();
    assert!(
        matches!(error, InferError::SubmissionRingFull { entries: 32 }),
        "{error:?}"
    );
    go.send(()).unwrap();
    // Also those whose numbers were given back, and are taken again.
    others.push(last);
    for request in &mut others {
        fill(request, 2.0);
        while let Err(error) = request.infer() {
            assert!(error.is_retryable(), "{error:?}");
            std::thread::yield_now();
        }
        let outputs = request.infer().unwrap();
        assert_eq!(outputs.get::<f32>("y").unwrap(), row(4.0));
    }
    drop((others, model, client));
    let peer = server.join().unwrap();
    let forgets = crate::kinds(&peer.log, SubmissionKind::Forget);
    assert_eq!(forgets.len(), REQUESTS + 4);
    assert_eq!(peer.response_bytes_out(), 0);
}
