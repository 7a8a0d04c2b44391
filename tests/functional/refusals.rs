//! Wrong requests through the client library: a typed error that says what was wrong and what holds, and a
//! session that goes on.

use std::time::{Duration, Instant};

use adjoin_client::{Client, ClientOptions, ExportedMemory, InferError, Status, SubmitOptions};
use adjoin_tests::server::Setup;

fn add_works(client: &Client) {
    let model = client.model("add").unwrap();
    let mut request = adjoin_tests::add_request(&model, 1);
    request.input_mut::<f32>("a").unwrap().fill(1.0);
    request.input_mut::<f32>("b").unwrap().fill(2.0);
    assert_eq!(
        request.infer().unwrap().get::<f32>("sum").unwrap(),
        [3.0; 4]
    );
}

#[test]
fn unknown_models_and_tensors_are_named() {
    let server = Setup::new(&["add"]).start();
    let client = server.client();
    let error = client.model("subtract").unwrap_err();
    assert_eq!(error.status(), Some(Status::ModelNotFound));
    assert!(error.to_string().contains("subtract"), "{error}");

    let model = client.model("add").unwrap();
    let error = model.request().input("c", &[1, 4]).map(|_| ()).unwrap_err();
    assert!(
        error.to_string().contains("\"c\"") && error.to_string().contains("\"a\""),
        "{error}"
    );
    let error = model.request().input("a", &[1, 5]).map(|_| ()).unwrap_err();
    assert!(
        error.to_string().contains("[1,5]") && error.to_string().contains("[batch,4]"),
        "{error}"
    );
    let error = model
        .request()
        .input("a", &[1, 4])
        .unwrap()
        .build()
        .map(|_| ())
        .unwrap_err();
    assert!(error.to_string().contains("\"b\""), "{error}");
    let mut request = adjoin_tests::add_request(&model, 1);
    let error = request.input_mut::<i64>("a").map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("FP32"), "{error}");
    add_works(&client);
}

#[test]
fn deadlines_in_the_past_and_in_the_queue_are_kept() {
    let server = Setup::new(&["slow", "add"])
        .config("max_batch_size = 1")
        .start();
    let client = server.client();
    let slow = client.model("slow").unwrap();
    let request = || {
        slow.request()
            .input("x", &[1, 64])
            .unwrap()
            .build()
            .unwrap()
    };
    let past = SubmitOptions::new().deadline_at(Instant::now());
    std::thread::sleep(Duration::from_millis(1));
    let error = request()
        .submit_with(&past)
        .unwrap()
        .wait()
        .unwrap_err()
        .error;
    assert!(matches!(error, InferError::DeadlineExceeded(..)), "{error}");

    // A queue of some 8 ms each: the last ones cannot be there in 20 ms, and all end one way or the other.
    let soon = SubmitOptions::new().deadline_in(Duration::from_millis(20));
    let pending: Vec<_> = (0..20)
        .map(|_| request().submit_with(&soon).unwrap())
        .collect();
    let outcomes: Vec<_> = pending
        .into_iter()
        .map(|p| p.wait().map(|_| ()).map_err(|failed| failed.error))
        .collect();
    let late = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Err(InferError::DeadlineExceeded(..))))
        .count();
    let in_time = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(late + in_time, 20, "{outcomes:?}");
    assert!(late > 0, "160 ms of work met a deadline of 20 ms");
    add_works(&client);
}

#[test]
fn a_deadline_that_cannot_be_met_is_refused_before_anything_waits() {
    let server = Setup::new(&["slow"]).config("max_batch_size = 1").start();
    let client = server.client();
    let slow = client.model("slow").unwrap();
    let request = || {
        let request = slow.request().input("x", &[1, 64]).unwrap();
        request.build().unwrap()
    };
    // Some 8 ms each, one at a time.
    let waiting: Vec<_> = (0..30).map(|_| request().submit().unwrap()).collect();
    let soon = SubmitOptions::new().deadline_in(Duration::from_millis(120));
    let refused = request().submit_with(&soon).unwrap().wait().unwrap_err();
    let explanation = refused.error.explanation().unwrap();
    assert_eq!(explanation.status(), Status::DeadlineUnreachable);
    assert!(
        refused.error.to_string().contains("after its deadline"),
        "{}",
        refused.error
    );
    let statistics = server.control().statistics("slow");
    assert!(statistics.request_count < 30, "it waited behind all others");
    let late = SubmitOptions::new().deadline_in(Duration::from_secs(60));
    request().submit_with(&late).unwrap().wait().unwrap();
    for pending in waiting {
        pending.wait().unwrap();
    }
}

#[test]
fn cancelled_requests_end_once_and_others_run() {
    let server = Setup::new(&["slow"]).config("max_batch_size = 1").start();
    let client = server.client();
    let slow = client.model("slow").unwrap();
    let mut pending: Vec<_> = (0..10)
        .map(|_| {
            slow.request()
                .input("x", &[1, 64])
                .unwrap()
                .build()
                .unwrap()
                .submit()
                .unwrap()
        })
        .collect();
    for pending in pending.iter_mut().skip(5) {
        pending.cancel();
    }
    let outcomes: Vec<_> = pending
        .into_iter()
        .map(|p| p.wait().map(|_| ()).map_err(|failed| failed.error))
        .collect();
    assert!(outcomes[..5].iter().all(Result::is_ok), "{outcomes:?}");
    let cancelled = outcomes[5..]
        .iter()
        .filter(|outcome| matches!(outcome, Err(InferError::Cancelled(..))))
        .count();
    assert!(cancelled >= 4, "{outcomes:?}");
    // Dropping without waiting cancels too, and gives the memory back.
    for _ in 0..200 {
        drop(
            slow.request()
                .input("x", &[8, 64])
                .unwrap()
                .build()
                .unwrap()
                .submit()
                .unwrap(),
        );
    }
    let mut request = slow
        .request()
        .input("x", &[1, 64])
        .unwrap()
        .build()
        .unwrap();
    assert!(request.infer().is_ok());
}

#[test]
fn a_client_that_never_releases_exhausts_only_itself() {
    let server = Setup::new(&["add"]).start();
    let options = ClientOptions::new()
        .request_bytes(4 << 20)
        .response_bytes(128 << 10);
    let (greedy, modest) = (
        options.connect(server.socket_dir()).unwrap(),
        server.client(),
    );
    let model = greedy.model("add").unwrap();
    let mut kept = Vec::new();
    let error = loop {
        let builder = model
            .request()
            .prepare(false)
            .input("a", &[32, 4])
            .unwrap()
            .input("b", &[32, 4])
            .unwrap();
        match builder.build().unwrap().submit().unwrap().wait() {
            Ok(response) => kept.push(response),
            Err(failed) => break failed.error,
        }
        assert!(kept.len() < 1000, "the response region never filled");
    };
    assert_eq!(error.status(), Some(Status::ResponseRegionFull), "{error}");
    assert!(error.to_string().contains("release"), "{error}");
    add_works(&modest);
    kept.truncate(kept.len() - 2);
    add_works(&greedy);
}

#[test]
fn a_server_without_a_device_takes_no_memory_of_one() {
    let server = Setup::new(&["add"]).start();
    let client = server.client();
    let memory = ExportedMemory {
        descriptor: std::fs::File::open("/dev/null").unwrap().into(),
        byte_size: 2 << 20,
        device_uuid: [1; 16],
    };
    let error = client.attach_device(memory).unwrap_err();
    assert_eq!(error.status(), Some(Status::DeviceUnavailable), "{error}");
    assert!(error.to_string().contains("uses no GPU"), "{error}");
    add_works(&client);
}

#[test]
fn sizes_and_quotas_are_refused_when_the_session_is_opened() {
    let limits = "[limits]\nsessions = 3\nsession_bytes = 4194304\nuser_bytes = 6291456";
    let server = Setup::new(&["add"]).config(limits).start();
    let open = |bytes| {
        ClientOptions::new()
            .request_bytes(bytes)
            .response_bytes(1 << 20)
            .connect(server.socket_dir())
    };
    let error = open(8 << 20).unwrap_err();
    assert_eq!(error.status(), Some(Status::MemoryQuotaExceeded));
    assert!(
        error.to_string().contains("9437184") && error.to_string().contains("4194304"),
        "{error}"
    );
    let error = open(1).unwrap_err();
    assert_eq!(error.status(), Some(Status::RegionSizeInvalid));
    let first = open(1 << 20).unwrap();
    let second = open(1 << 20).unwrap();
    let error = open(2 << 20).unwrap_err();
    assert_eq!(
        error.status(),
        Some(Status::MemoryQuotaExceeded),
        "6 MiB for the user, 4 are taken"
    );
    let third = open(1 << 20).unwrap();
    let error = open(1 << 20).unwrap_err();
    assert!(
        matches!(
            error.status(),
            Some(Status::TooManySessions | Status::MemoryQuotaExceeded)
        ),
        "{error}"
    );
    drop(second);
    adjoin_tests::wait_for("a session is free again", || open(1 << 20).ok());
    add_works(&first);
    add_works(&third);
}

#[test]
fn nobody_there_and_wrong_places_say_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let error = Client::connect(directory.path()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&*directory.path().to_string_lossy()),
        "{error}"
    );
}
