//! One request after another: prepared, one-shot, refused.

use std::time::{Duration, Instant};

use adjoin_client::{InferError, RequestError, Status, SubmitOptions, TensorError};
use adjoin_schema::layout::{SubmissionKind, submit_flags};

use crate::{Ground, fill, kinds, request, row};

#[test]
fn prepared_request_is_described_once_and_never_released() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let mut request = request(&client.model("double").unwrap(), 1);
    for run in 0..5u8 {
        fill(&mut request, f32::from(run));
        let outputs = request.infer().unwrap();
        assert_eq!(outputs.get::<f32>("y").unwrap(), row(2.0 * f32::from(run)));
        assert_eq!(outputs.shape("y").unwrap(), [1, 4]);
        let stats = outputs.stats();
        assert_eq!((stats.batch_size, stats.model_version), (1, 3));
        assert_eq!(stats.queue, Duration::from_micros(1));
        assert_eq!(stats.execute, Duration::from_micros(2));
    }
    assert!(request.is_prepared());
    drop(request);
    drop(client);
    let peer = server.join().unwrap();
    let submits = kinds(&peer.log, SubmissionKind::Submit);
    assert_eq!(submits[0].flags, submit_flags::PREPARE);
    assert!(submits[0].size > 0);
    assert!(submits[1..].iter().all(|entry| {
        entry.flags == submit_flags::PREPARED && (entry.offset, entry.size) == (0, 0)
    }));
    assert!(kinds(&peer.log, SubmissionKind::Release).is_empty());
    let forgets = kinds(&peer.log, SubmissionKind::Forget);
    assert_eq!(forgets.len(), 1);
    assert_eq!(forgets[0].prepared_id, submits[0].prepared_id);
    assert_eq!(peer.response_bytes_out(), 0);
}

#[test]
fn one_shot_request_is_released_with_its_generation() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let model = client.model("double").unwrap();
    let builder = model.request_batch(2).unwrap().prepare(false);
    let mut request = builder.build().unwrap();
    for run in 0..4u8 {
        fill(&mut request, f32::from(run));
        let outputs = request.infer().unwrap();
        let expected = [2.0 * f32::from(run); 8];
        assert_eq!(outputs.get_at::<f32>(0).unwrap(), expected);
    }
    assert!(!request.is_prepared());
    drop((request, model, client));
    let peer = server.join().unwrap();
    let submits = kinds(&peer.log, SubmissionKind::Submit);
    assert!(submits.iter().all(|e| e.flags == 0 && e.size > 0));
    let releases = kinds(&peer.log, SubmissionKind::Release);
    let generations: Vec<u32> = releases.iter().map(|e| e.generation).collect();
    assert_eq!(generations, [1, 2, 3, 4]);
    assert_eq!(peer.response_bytes_out(), 0);
}

#[test]
fn declined_preparation_is_not_asked_for_again() {
    let ground = Ground::new();
    let server = ground.fake().serve_by(|peer, entry| {
        peer.prepares = false;
        peer.handle(entry);
    });
    let client = ground.client();
    let mut request = request(&client.model("double").unwrap(), 1);
    for _ in 0..3 {
        request.infer().unwrap();
    }
    drop(request);
    drop(client);
    let peer = server.join().unwrap();
    let flags: Vec<u8> = kinds(&peer.log, SubmissionKind::Submit)
        .iter()
        .map(|e| e.flags)
        .collect();
    assert_eq!(flags, [submit_flags::PREPARE, 0, 0]);
    assert_eq!(kinds(&peer.log, SubmissionKind::Release).len(), 3);
    assert!(kinds(&peer.log, SubmissionKind::Forget).is_empty());
}

#[test]
fn forgotten_preparation_is_described_again_unseen() {
    let ground = Ground::new();
    let server = ground.fake().serve_by(|peer, entry| {
        if peer.log.len() == 3 {
            peer.forget_all();
        }
        peer.handle(entry);
    });
    let client = ground.client();
    let mut request = request(&client.model("double").unwrap(), 1);
    for run in 0..5u8 {
        fill(&mut request, f32::from(run));
        let outputs = request.infer().unwrap();
        assert_eq!(outputs.get::<f32>("y").unwrap(), row(2.0 * f32::from(run)));
    }
    drop(request);
    drop(client);
    let peer = server.join().unwrap();
    let flags: Vec<u8> = kinds(&peer.log, SubmissionKind::Submit)
        .iter()
        .map(|e| e.flags)
        .collect();
    let (ask, run) = (submit_flags::PREPARE, submit_flags::PREPARED);
    assert_eq!(flags, [ask, run, run, ask, run, run]);
}

#[test]
fn submitted_request_comes_back_as_response_and_request() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let mut request = request(&client.model("double").unwrap(), 1);
    for run in 0..3u8 {
        fill(&mut request, f32::from(run));
        let mut pending = request.submit().unwrap();
        assert!(pending.wait_for(Duration::from_secs(20)));
        assert!(pending.is_done());
        let response = pending.wait().unwrap();
        assert_eq!(response.get::<f32>("y").unwrap(), row(2.0 * f32::from(run)));
        assert_eq!(response.bytes("y").unwrap().len(), 16);
        request = response.into_request();
    }
    drop((request, client));
    server.join().unwrap();
}

#[test]
fn deadline_and_priority_travel() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let mut request = request(&client.model("double").unwrap(), 1);
    let before = adjoin_shm::clock::now_ns();
    let options = SubmitOptions::new()
        .deadline_in(Duration::from_secs(5))
        .priority(2);
    request.infer_with(&options).unwrap();
    let at = SubmitOptions::new().deadline_at(Instant::now() + Duration::from_secs(7));
    request.infer_with(&at).unwrap();
    request.infer().unwrap();
    let after = adjoin_shm::clock::now_ns();
    drop((request, client));
    let peer = server.join().unwrap();
    let submits = kinds(&peer.log, SubmissionKind::Submit);
    let seconds = |count: u64| before + count * 1_000_000_000..=after + count * 1_000_000_000;
    assert!(seconds(5).contains(&submits[0].deadline_ns));
    assert!(seconds(7).contains(&submits[1].deadline_ns));
    assert_eq!(submits[2].deadline_ns, 0);
    assert_eq!(submits[0].priority, 2);
}

#[test]
fn statuses_are_typed_and_explained() {
    let ground = Ground::new();
    let cases = [
        (Status::ModelNotFound, [0, 0]),
        (Status::VersionNotFound, [9, 0]),
        (Status::ShapeMismatch, [0, 1]),
        (Status::QueueFull, [32, 0]),
        (Status::DeadlineExceeded, [1000, 5_001_000]),
        (Status::ResponseRegionFull, [10, 5]),
        (Status::ModelNotReady, [0, 0]),
        (Status::Cancelled, [0, 0]),
        (Status::NotExecuted, [0, 0]),
        (Status::ExecutionFailed, [0, 0]),
        (Status::OutputTooLarge, [99, 0]),
        (Status::Internal, [0, 0]),
    ];
    let mut script = cases.into_iter();
    let server = ground.fake().serve_by(move |peer, entry| {
        if let Some((status, detail)) = script.next() {
            peer.refuse(&entry, status, detail);
        }
    });
    let client = ground.client();
    let mut request = request(&client.model("double").unwrap(), 1);
    let mut texts = Vec::new();
    for (status, _) in cases {
        let error = request.infer().unwrap_err();
        assert_eq!(error.status(), Some(status));
        assert_eq!(error.is_retryable(), status.is_retryable(), "{error}");
        texts.push(error.to_string());
    }
    assert!(
        texts[0].contains("no model named \"double\""),
        "{}",
        texts[0]
    );
    assert!(texts[2].contains("input \"x\" has shape [1,4]; the model takes [rows,4]"));
    assert!(texts[4].contains("5000 us before"), "{}", texts[4]);
    assert!(texts[8].contains("send it again"), "{}", texts[8]);
    drop((request, client));
    server.join().unwrap();
}

#[test]
fn names_that_nothing_can_have_are_not_sent() {
    let ground = Ground::new();
    // It would end the session at a question that breaks the protocol, as the real server does.
    let server = ground.fake().serve();
    let client = ground.client();
    let model = client.model("double").unwrap();
    let names = [
        "",
        "a b",
        ".a",
        "\u{fc}",
        &"n".repeat(129),
        &"n".repeat(257),
    ];
    for name in names.into_iter().chain([&*"n".repeat(1 << 20)]) {
        let error = client.model(name).unwrap_err();
        assert!(matches!(error, InferError::ModelNotFound(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("1 to 128") && text.len() < 400, "{text}");
        assert!(name.len() < 128 || text.contains(&format!("{} bytes", name.len())));
    }
    let longest = client.model(&"n".repeat(128)).unwrap_err();
    assert!(longest.to_string().contains("is loaded"), "{longest}");
    for label in ["l".repeat(65), "\u{fc}".repeat(33), "l".repeat(1 << 20)] {
        let error = model.label(&label).unwrap_err();
        assert!(matches!(error, InferError::VersionNotFound(_)), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("at most 64 bytes") && text.contains("\"double\""),
            "{text}"
        );
        assert!(
            text.len() < 400 && text.contains(&format!("{} bytes)", label.len())),
            "{text}"
        );
    }
    // The longest that is possible is asked for.
    model.label(&"l".repeat(64)).unwrap();
    assert_eq!(client.reconnects(), 0);
    drop((model, client));
    server.join().unwrap();
}

#[test]
fn unknown_model_is_an_error_by_name() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let error = client.model("nope").unwrap_err();
    assert!(matches!(error, InferError::ModelNotFound(_)), "{error:?}");
    assert!(error.to_string().contains("\"nope\""), "{error}");
    let model = client.model("double").unwrap();
    assert_eq!(model.info().engine, "fake");
    assert_eq!(model.version(3).unwrap().info().version, 3);
    assert!(model.label(&"l".repeat(65)).is_err());
    let mut labelled = request(&model.label("stable").unwrap(), 1);
    labelled.infer().unwrap();
    drop((labelled, model, client));
    server.join().unwrap();
}

#[test]
fn wrong_requests_are_refused_before_they_are_sent() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let model = client.model("double").unwrap();
    let shape = |dims: &[i64]| model.request().input("x", dims).unwrap_err();
    for dims in [&[1][..], &[1, 5], &[-1, 4], &[1, 4, 1]] {
        let error = shape(dims);
        assert!(matches!(error, RequestError::ShapeMismatch { .. }));
    }
    assert_eq!(
        shape(&[2, 5]).to_string(),
        r#"input "x" has shape [2,5]; the model takes [rows,4]"#
    );
    let builder = || model.request().input("x", &[1, 4]).unwrap();
    let unknown = model.request().input("z", &[1]).unwrap_err();
    assert!(matches!(unknown, RequestError::InputUnknown { .. }));
    assert!(unknown.to_string().contains(r#"it takes "x""#));
    let repeated = builder().input("x", &[1, 4]).unwrap_err();
    assert!(matches!(repeated, RequestError::InputRepeated { .. }));
    let missing = model.request().build().unwrap_err();
    assert!(matches!(missing, RequestError::InputMissing { .. }));
    let output = builder().outputs(&["q"]).build().unwrap_err();
    assert!(matches!(output, RequestError::OutputUnknown { .. }));
    let size = model.request().input_with_bytes("x", &[1, 4], 17);
    assert!(matches!(size, Err(RequestError::ByteSize { .. })));
    let huge = model.request().input("x", &[i64::MAX, 4]).unwrap_err();
    assert!(matches!(huge, RequestError::ByteSize { .. }));

    let mut request = builder().outputs(&["y"]).build().unwrap();
    let error = request.input_mut::<f64>("x").unwrap_err();
    assert!(
        matches!(error, TensorError::DataTypeMismatch { .. }),
        "{error:?}"
    );
    assert!(matches!(
        request.input_mut::<f32>("w"),
        Err(TensorError::NameUnknown { .. })
    ));
    assert!(matches!(
        request.input_mut_at::<f32>(1),
        Err(TensorError::IndexOutOfRange { index: 1, count: 1 })
    ));
    assert_eq!(request.input_bytes_mut("x").unwrap().len(), 16);
    let outputs = request.infer().unwrap();
    assert!(matches!(
        outputs.get::<i32>("y"),
        Err(TensorError::DataTypeMismatch { .. })
    ));
    assert!(outputs.bytes_at(1).is_err());
    assert_eq!(outputs.output_at(0).unwrap().name, "y");
    assert!(outputs.output_at(1).is_none());
    drop((request, model, client));
    server.join().unwrap();
}

#[test]
fn full_region_says_needed_and_free() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let model = client.model("double").unwrap();
    let rows = 4096; // 64 KiB
    let mut held: Vec<_> = std::iter::from_fn(|| {
        let builder = model.request_batch(rows).unwrap();
        builder.build().ok()
    })
    .collect();
    assert_eq!(held.len(), 3);
    let error = model.request_batch(rows).unwrap().build().unwrap_err();
    let RequestError::RegionFull(full) = error else {
        panic!("{error:?}");
    };
    assert_eq!(full.needed, 64 << 10);
    assert!(full.free < 64 << 10, "{full}");
    held.pop();
    model.request_batch(rows).unwrap().build().unwrap();
    drop((held, model, client));
    server.join().unwrap();
}

#[test]
fn requests_made_one_after_another_lie_side_by_side() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let model = client.model("double").unwrap();
    let mut requests: Vec<_> = (0..8).map(|_| request(&model, 4)).collect();
    let starts: Vec<usize> = requests
        .iter_mut()
        .map(|request| request.input_bytes_mut_at(0).unwrap().as_ptr() as usize)
        .collect();
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == 64));
    // Their descriptors do not come between.
    for request in &mut requests {
        request.infer().unwrap();
    }
    drop((requests, model, client));
    server.join().unwrap();
}
