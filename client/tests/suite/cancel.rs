//! Requests that nobody wants any more, and what becomes of their memory.

use std::sync::mpsc;
use std::time::Duration;

use adjoin_client::{InferError, Status};
use adjoin_schema::layout::{SubmissionEntry, SubmissionKind};

use crate::{Ground, fill, kinds, request, row};

fn is(entry: &SubmissionEntry, kind: SubmissionKind) -> bool {
    entry.kind == kind as u8
}

#[test]
fn cancelled_request_is_answered_once_and_usable_again() {
    let ground = Ground::new();
    let mut held = None;
    let server = ground.fake().serve_by(move |peer, entry| {
        if is(&entry, SubmissionKind::Submit) && held.is_none() {
            held = Some(entry);
        } else if is(&entry, SubmissionKind::Cancel) {
            let meant = held.unwrap();
            assert_eq!(meant.request_id, entry.request_id);
            peer.refuse(&meant, Status::Cancelled, [0; 2]);
        } else {
            peer.handle(entry);
        }
    });
    let client = ground.client();
    let mut pending = request(&client.model("double").unwrap(), 1)
        .submit()
        .unwrap();
    assert!(!pending.is_done());
    pending.cancel();
    pending.cancel();
    let failed = pending.wait().unwrap_err();
    assert!(matches!(failed.error, InferError::Cancelled(_)));
    let mut request = failed.request.unwrap();
    fill(&mut request, 4.0);
    let outputs = request.infer().unwrap();
    assert_eq!(outputs.get::<f32>("y").unwrap(), row(8.0));
    drop((request, client));
    let peer = server.join().unwrap();
    assert_eq!(kinds(&peer.log, SubmissionKind::Cancel).len(), 1);
}

#[test]
fn memory_of_a_dropped_request_waits_for_its_answer() {
    let ground = Ground::new();
    let (go, gate) = mpsc::channel::<()>();
    let server = ground.fake().serve_by(move |peer, entry| {
        let is_large = is(&entry, SubmissionKind::Submit) && peer.log.len() == 1;
        if is_large {
            // The server is at it, whatever is cancelled meanwhile.
            gate.recv().unwrap();
        }
        peer.handle(entry);
    });
    let client = ground.client();
    let model = client.model("double").unwrap();
    let rows = 8192; // 128 KiB: two do not fit
    let pending = request(&model, rows).submit().unwrap();
    drop(pending);
    assert!(model.request_batch(rows).unwrap().build().is_err());
    // Small ones still go, beside it.
    let mut small = request(&model, 1);
    fill(&mut small, 1.0);
    let small = small.submit().unwrap();
    assert!(model.request_batch(rows).unwrap().build().is_err());
    go.send(()).unwrap();
    assert_eq!(small.wait().unwrap().get::<f32>("y").unwrap(), row(2.0));
    let again = model.request_batch(rows).unwrap().build().unwrap();
    drop((again, model, client));
    let peer = server.join().unwrap();
    let submits = kinds(&peer.log, SubmissionKind::Submit);
    let cancels = kinds(&peer.log, SubmissionKind::Cancel);
    assert_eq!(cancels[0].request_id, submits[0].request_id);
    // The dropped request had been prepared meanwhile, and the server was told to forget it.
    assert!(!kinds(&peer.log, SubmissionKind::Forget).is_empty());
    assert_eq!(peer.response_bytes_out(), 0);
}

#[test]
fn response_of_a_dropped_one_shot_request_is_released() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let model = client.model("double").unwrap();
    let one_shot = || {
        let builder = model.request_batch(1).unwrap().prepare(false);
        builder.build().unwrap()
    };
    // Dropped ones count as in flight until they are answered.
    let submit = || {
        let mut request = one_shot();
        loop {
            match request.submit() {
                Ok(pending) => break pending,
                Err(failed) => request = failed.request.unwrap(),
            }
        }
    };
    for _ in 0..20 {
        drop(submit());
    }
    // Answered, but never taken.
    let mut pending = submit();
    assert!(pending.wait_for(Duration::from_secs(20)));
    drop(pending);
    let _ = submit().wait().unwrap();
    drop((model, client));
    let peer = server.join().unwrap();
    let submits = kinds(&peer.log, SubmissionKind::Submit).len();
    assert_eq!(kinds(&peer.log, SubmissionKind::Release).len(), submits);
    assert_eq!(peer.response_bytes_out(), 0);
}

#[test]
fn timed_out_request_is_cancelled_and_a_patient_one_goes_on() {
    let ground = Ground::new();
    let (go, gate) = mpsc::channel::<()>();
    let mut script = 0;
    let server = ground.fake().serve_by(move |peer, entry| {
        script += 1;
        if script == 1 {
            gate.recv().unwrap();
        }
        peer.handle(entry);
    });
    let client = ground.client();
    let model = client.model("double").unwrap();
    let mut patient = request(&model, 1);
    fill(&mut patient, 3.0);
    let mut patient = patient.submit().unwrap();
    let hasty = request(&model, 1).submit().unwrap();
    let failed = hasty.wait_timeout(Duration::from_millis(20)).unwrap_err();
    assert!(matches!(failed.error, InferError::Timeout { .. }));
    assert!(failed.error.may_have_run() && failed.request.is_none());
    assert!(!patient.wait_for(Duration::from_millis(20)));
    go.send(()).unwrap();
    let response = patient.wait_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(response.get::<f32>("y").unwrap(), row(6.0));
    drop((response, model, client));
    let peer = server.join().unwrap();
    assert_eq!(kinds(&peer.log, SubmissionKind::Cancel).len(), 1);
}
