//! Servers that break the protocol: an error, never a panic.

use std::sync::atomic::Ordering;

use adjoin_client::{InferError, TensorError};
use adjoin_schema::DataType;
use adjoin_schema::descriptor::{DescriptorWriter, ResponseDescriptor, TensorDescriptor};
use adjoin_schema::layout::{CompletionEntry, SubmissionEntry, completion_flags};
use adjoin_schema::limits::DESCRIPTOR_BYTES_MAX;
use adjoin_schema::status::Status;

use crate::fake::Peer;
use crate::{Ground, request};

/// What a request meets whose server does this with it.
fn meet(lie: impl FnMut(&mut Peer, SubmissionEntry) + Send + 'static) -> InferError {
    let ground = Ground::new();
    let server = ground.fake().serve_by(lie);
    let client = ground.client();
    let mut request = request(&client.model("double").unwrap(), 1);
    let error = request.infer().unwrap_err();
    drop((request, client));
    server.join().unwrap();
    error
}

fn ok(entry: &SubmissionEntry) -> CompletionEntry {
    CompletionEntry::failure(entry.request_id, Status::Ok, [0; 2])
}

fn assert_protocol(error: &InferError, what: &str) {
    assert!(matches!(error, InferError::Protocol { .. }), "{error:?}");
    assert!(error.to_string().contains(what), "{error}");
}

#[test]
fn unknown_requests_are_found_out() {
    for wrong in [0, 1, 7, 8, 9, u64::MAX, 1 << 32, 2 << 32 | 1] {
        let error = meet(move |peer, entry| {
            if entry.request_id == wrong {
                return peer.complete(ok(&SubmissionEntry {
                    request_id: 3 << 32,
                    ..entry
                }));
            }
            peer.complete(ok(&SubmissionEntry {
                request_id: wrong,
                ..entry
            }));
        });
        assert_protocol(&error, "which is not out");
    }
}

#[test]
fn request_that_is_completed_twice_is_found_out() {
    let ground = Ground::new();
    let server = ground.fake().serve_by(|peer, entry| {
        peer.refuse(&entry, Status::QueueFull, [1, 0]);
        if peer.log.len() == 2 {
            peer.refuse(&peer.log[0].clone(), Status::QueueFull, [1, 0]);
        }
    });
    let client = ground.client();
    let mut request = request(&client.model("double").unwrap(), 1);
    let errors: Vec<InferError> = (0..4).map(|_| request.infer().unwrap_err()).collect();
    let is_violation = |error: &InferError| matches!(error, InferError::Protocol { .. });
    // The second completion of the first request may come with or after that of the second one.
    assert!(
        errors.iter().any(is_violation) || client.model("double").is_err(),
        "{errors:?}"
    );
    drop((request, client));
    server.join().unwrap();
}

#[test]
fn impossible_indices_are_found_out() {
    for tail in [9, 1 << 31, u32::MAX] {
        let error = meet(move |peer, _| {
            let ring = peer.memory.completion_ring();
            ring.tail.store(tail, Ordering::Release);
            peer.wake();
        });
        assert_protocol(&error, "impossible");
    }
    for head in [40, u32::MAX] {
        let ground = Ground::new();
        let server = ground.fake().serve_by(move |peer, entry| {
            peer.handle(entry);
            peer.memory
                .submission_ring()
                .head
                .store(head, Ordering::Release);
        });
        let client = ground.client();
        let mut request = request(&client.model("double").unwrap(), 1);
        // The head is only looked at when the ring seems full.
        let error = (0..100).find_map(|_| request.infer().err());
        assert_protocol(&error.unwrap(), "impossible");
        drop((request, client));
        server.join().unwrap();
    }
}

#[test]
fn responses_outside_their_region_are_found_out() {
    let places = [
        (u64::MAX, 64, "outside its region"),
        (256 << 10, 64, "outside its region"),
        (0, u32::MAX, "bytes"),
        (0, DESCRIPTOR_BYTES_MAX + 1, "bytes"),
        (0, 0, "not valid"),
        (0, 64, "not valid"),
        (4096, 128, "not valid"),
    ];
    for (response_offset, response_size, what) in places {
        let error = meet(move |peer, entry| {
            if entry.size == 0 {
                return;
            }
            peer.complete(CompletionEntry {
                response_offset,
                response_size,
                // There is no last time.
                flags: completion_flags::SAME_RESPONSE,
                ..ok(&entry)
            });
        });
        assert_protocol(&error, what);
    }
}

/// Completes with a response that describes this output.
fn describe(peer: &mut Peer, entry: &SubmissionEntry, output: TensorDescriptor<'_>) {
    let mut writer = DescriptorWriter::new();
    let response = ResponseDescriptor {
        model_version: 1,
        outputs: [output].into_iter().collect(),
    };
    let bytes = writer.response(&response).unwrap();
    let arena = peer.memory.response_arena();
    let mut range = arena.allocate(bytes.len() as u64).unwrap();
    range.write(bytes);
    peer.complete(CompletionEntry {
        response_offset: range.offset(),
        response_size: u32::try_from(bytes.len()).unwrap(),
        ..ok(entry)
    });
}

#[test]
fn outputs_outside_their_region_are_found_out() {
    let tensor = |offset, byte_size| TensorDescriptor {
        name: "y",
        dtype: DataType::Fp32,
        shape: [i64::try_from(byte_size / 4).unwrap()]
            .into_iter()
            .collect(),
        region: 0,
        offset,
        byte_size,
    };
    for (offset, byte_size) in [
        (0, 16),
        (8192 + 8, 16),
        (256 << 10, 16),
        (u64::MAX - 63, 128),
        (8192, 1 << 40),
    ] {
        let error = meet(move |peer, entry| {
            if entry.size > 0 {
                describe(peer, &entry, tensor(offset, byte_size));
            }
        });
        assert_protocol(&error, "not valid");
    }
}

#[test]
fn strings_of_any_size_are_bytes() {
    let ground = Ground::new();
    let server = ground.fake().serve_by(|peer, entry| {
        if entry.size > 0 {
            let output = TensorDescriptor {
                name: "y",
                dtype: DataType::Bytes,
                shape: [1].into_iter().collect(),
                region: 0,
                offset: 8192,
                byte_size: 7,
            };
            describe(peer, &entry, output);
        }
    });
    let client = ground.client();
    let mut request = request(&client.model("double").unwrap(), 1);
    let outputs = request.infer().unwrap();
    assert_eq!(outputs.get::<u8>("y").unwrap().len(), 7);
    assert!(matches!(
        outputs.get::<f32>("y"),
        Err(TensorError::DataTypeMismatch { .. })
    ));
    drop((request, client));
    server.join().unwrap();
}

#[test]
fn statuses_from_the_future_are_errors() {
    let error = meet(|peer, entry| {
        peer.complete(CompletionEntry {
            status: 12_345,
            ..ok(&entry)
        });
    });
    assert_eq!(error.status(), Some(Status::Internal));
}

#[test]
fn garbage_on_the_socket_ends_the_session() {
    for garbage in [&b"??"[..], &[0xff; 300]] {
        let ground = Ground::new();
        let fake = ground.fake();
        let server = std::thread::spawn(move || {
            let peer = fake.accept();
            peer.socket.send(garbage, &[]).unwrap();
            // Until the client has left.
            while !peer.socket.is_hung_up() {
                std::thread::yield_now();
            }
        });
        let client = ground.client();
        let error = client.model("double").unwrap_err();
        assert!(matches!(error, InferError::Protocol { .. }), "{error:?}");
        server.join().unwrap();
    }
}
