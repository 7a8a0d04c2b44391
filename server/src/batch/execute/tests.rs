//! Batches of a fake engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use adjoin_backend::{OutputSink, strings};
use adjoin_schema::DataType;
use adjoin_shm::AlignedBytes;
use bytes::Bytes;
use tokio::sync::oneshot::Receiver;

use super::*;
use crate::engine::ticket;
use crate::metrics::Metrics;
use crate::model::Models;
use crate::model::request::{Request, Sink, Source};
use crate::model::version::Next;
use crate::testing;

/// Gives back the strings that it gets, as they lie.
fn echo(execution: Execution<'_, '_>, sink: &mut dyn OutputSink) -> Result<Copied, ExecuteError> {
    let input = &execution.inputs[0];
    let rows = usize::try_from(input.shape[0]).unwrap_or(0);
    if strings::end(input.payload, 0, rows) != Some(input.payload.byte_size()) {
        return Err(ExecuteError::Mismatch {
            reason: "no strings".into(),
        });
    }
    sink.accept(0, input.dtype, input.shape, input.payload)?;
    Ok(Copied::default())
}

/// What a batch of these requests answers to each, and how many executions that took.
fn answers(requests: &[(i64, &[u8])]) -> (Vec<Option<Vec<u8>>>, u64) {
    let metrics = Metrics::new("test");
    let string = |name| vec![testing::tensor(name, DataType::Bytes, &[1])];
    let model = testing::Fake::boxed(string("x"), string("y"), echo);
    let version = testing::version(&metrics, "echo", model, testing::settings(8));
    let models = Models::default();
    testing::serve(&models, Arc::clone(&version));
    let mut receivers = Vec::new();
    for &(rows, bytes) in requests {
        let shape = [rows, 1];
        let given = [("x", DataType::Bytes, shape.as_slice(), bytes)];
        let (job, receiver) = testing::job(&models, "echo", &given, &[]).unwrap();
        let request = Arc::clone(&job.request);
        receivers.push((request, receiver));
        version.enqueue(ticket(&job, 0, 0, 0, 1), job, 1).unwrap();
    }
    let Next::Run(mut batch) = version.next(1, &mut Vec::new()) else {
        panic!("no batch was formed");
    };
    let executed = run(
        &version,
        &mut batch.instance,
        batch.jobs,
        |_, job, outcome| {
            if let Sink::Reply(Some(reply)) = job.sink {
                let response = Some(job.response);
                reply
                    .send(Outcome {
                        response,
                        ..outcome
                    })
                    .unwrap();
            }
        },
    );
    executed.count(&version);
    let answer = |(request, mut receiver): (Arc<Request>, Receiver<Outcome>)| {
        let outcome = receiver.try_recv().unwrap();
        let block = outcome.response.filter(|_| outcome.status == Status::Ok)?;
        Some(block.private_output(&request, 0)?.bytes.to_vec())
    };
    let answers = receivers.into_iter().map(answer).collect();
    (answers, version.metrics().statistics().execution_count)
}

#[test]
fn strings_of_several_requests_are_joined_and_each_gets_its_own_rows() {
    let requests: [(i64, &[u8]); 3] = [
        (1, b"\x02\0\0\0ab"),
        (2, b"\0\0\0\0\x01\0\0\0c"),
        (1, b"\x03\0\0\0def"),
    ];
    let wanted = requests.map(|(_, bytes)| Some(bytes.to_vec())).to_vec();
    assert_eq!(answers(&requests), (wanted, 1));
}

#[test]
fn lying_lengths_reach_no_neighbour() {
    // The first would take the second's bytes as its own; the third puts a string in place of the second's.
    let secret: &[u8] = b"\x06\0\0\0secret";
    let (answers, executions) = answers(&[
        (1, b"\x0a\0\0\0"),
        (1, secret),
        (1, b"\x01\0\0\0x\x01\0\0\0y"),
    ]);
    assert_eq!(answers, [None, Some(secret.to_vec()), None]);
    assert_eq!(executions, 1, "those that lie do not run");
}

/// Whether the engine reads a request of private bytes that begin so many bytes behind a multiple of 64 where they lie,
/// and what is counted of it: bytes copied as of a message, and requests in place.
fn read_in_place(offset: usize) -> (bool, u64, u64) {
    let metrics = Metrics::new("test");
    let address = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&address);
    let row = |name| vec![testing::tensor(name, DataType::Fp32, &[4])];
    let model = testing::Fake::boxed(row("x"), row("y"), move |execution, _| {
        seen.store(
            execution.inputs[0].payload.as_ptr().addr(),
            Ordering::Relaxed,
        );
        Ok(Copied::default())
    });
    let version = testing::version(&metrics, "model", model, testing::settings(8));
    let models = Models::default();
    testing::serve(&models, Arc::clone(&version));
    let given = [("x", DataType::Fp32, [1, 4].as_slice(), [0; 16].as_slice())];
    let (mut job, _receiver) = testing::job(&models, "model", &given, &[]).unwrap();
    let bytes = Bytes::from_owner(AlignedBytes::zeroed(offset + 16)).slice(offset..);
    let place = bytes.as_ptr().addr();
    Arc::get_mut(&mut job.request).unwrap().source = Source::Owned([bytes].into_iter().collect());
    version.enqueue(ticket(&job, 0, 0, 0, 1), job, 1).unwrap();
    let Next::Run(mut batch) = version.next(1, &mut Vec::new()) else {
        panic!("no batch was formed");
    };
    let executed = run(
        &version,
        &mut batch.instance,
        batch.jobs,
        |_, _, outcome| {
            assert_eq!(outcome.status, Status::Ok);
        },
    );
    executed.count(&version);
    let counted = version.metrics().statistics();
    (
        address.load(Ordering::Relaxed) == place,
        counted.copied[CopyPath::MessageBody as usize],
        counted.in_place_count,
    )
}

#[test]
fn private_bytes_are_read_where_they_lie_if_they_are_aligned_and_count_as_copied_by_the_transport()
{
    assert_eq!(read_in_place(0), (true, 0, 0));
    assert_eq!(read_in_place(64), (true, 0, 0));
    for offset in [1, 8, 63] {
        assert_eq!(read_in_place(offset), (false, 16, 0), "{offset}");
    }
}
