//! One entry through a ring, both sides in one thread: the cost without the way between two cores.

#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::hint::black_box;

use adjoin_schema::layout::{SessionLayout, wait};
use adjoin_shm::ring::{Consumer, Producer};
use adjoin_shm::{SessionMemory, doorbell};
use criterion::{Criterion, criterion_group, criterion_main};

fn ring(c: &mut Criterion) {
    let layout = SessionLayout::new(1 << 20, 1 << 20, 256).expect("a valid layout");
    let memory = SessionMemory::create(layout, 1).expect("memory for a session");
    let ring = memory.submission_ring();
    let (mut producer, mut consumer) = (Producer::new(), Consumer::new());
    c.bench_function("ring/push_peek_advance", |b| {
        b.iter(|| {
            producer
                .push(&ring, black_box([7; 8]))
                .expect("there is room");
            black_box(consumer.available(&ring).expect("an honest peer"));
            black_box(consumer.peek(&ring, 0));
            consumer.advance(&ring, 1);
        });
    });
}

fn doorbells(c: &mut Criterion) {
    let layout = SessionLayout::new(1 << 20, 1 << 20, 256).expect("a valid layout");
    let memory = SessionMemory::create(layout, 1).expect("memory for a session");
    c.bench_function("doorbell/peer_is_awake", |b| {
        b.iter(|| black_box(doorbell::wanted(memory.server_wait())))
    });
    c.bench_function("doorbell/announce_and_withdraw", |b| {
        b.iter(|| {
            doorbell::announce(memory.server_wait(), wait::ASLEEP);
            doorbell::withdraw(memory.server_wait());
        });
    });
}

criterion_group!(benches, ring, doorbells);
criterion_main!(benches);
