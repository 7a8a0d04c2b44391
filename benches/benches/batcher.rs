//! The batcher's queue and policy: one request alone, and batches out of many sessions.

#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::hint::black_box;

use adjoin_server::batch::policy::{BatchPolicy, Decision};
use adjoin_server::batch::queue::{BatchQueue, Ticket};
use adjoin_server::batch::queue_policy::TimeoutAction;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

fn ticket(flow: u64, request_id: u64) -> Ticket {
    Ticket {
        flow,
        request_id,
        priority: 1,
        rows: 1,
        compatibility: 7,
        enqueued_ns: request_id,
        deadline_ns: u64::MAX,
        timeout_ns: u64::MAX,
        timeout_action: TimeoutAction::Reject,
    }
}

fn policy() -> BatchPolicy {
    BatchPolicy {
        max_batch_size: 32,
        preferred_batch_sizes: [8, 16].into_iter().collect(),
        max_queue_delay_ns: 0,
    }
}

fn turn(queue: &mut BatchQueue<u64>, policy: &BatchPolicy, taken: &mut Vec<(Ticket, u64)>) {
    let facts = queue.facts(policy.max_batch_size);
    if let Decision::Dispatch { rows_max } = policy.decide(black_box(1_000_000), facts) {
        queue.take(rows_max, |_, _| true, taken);
    }
}

fn batcher(c: &mut Criterion) {
    let policy = policy();
    c.bench_function("batcher/alone", |b| {
        let (mut queue, mut taken) = (BatchQueue::new(4096), Vec::new());
        b.iter(|| {
            queue.push(ticket(1, 1), 1).expect("there is room");
            turn(&mut queue, &policy, &mut taken);
            taken.clear();
        });
    });
    for sessions in [16u64, 256] {
        c.bench_function(&format!("batcher/{sessions}_sessions_x4"), |b| {
            b.iter_batched(
                || {
                    let mut queue = BatchQueue::new(4096);
                    for id in 0..4 * sessions {
                        queue
                            .push(ticket(id % sessions, id), id)
                            .expect("there is room");
                    }
                    (queue, Vec::new())
                },
                |(mut queue, mut taken)| {
                    while !queue.is_empty() {
                        turn(&mut queue, &policy, &mut taken);
                    }
                    taken.len()
                },
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, batcher);
criterion_main!(benches);
