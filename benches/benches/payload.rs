//! What a copy of a payload costs: the price that requests in place do not pay, and batches of several do.

#![allow(missing_docs, reason = "criterion's macros make public items")]

use adjoin_schema::layout::{RegionKind, SessionLayout};
use adjoin_shm::{AlignedBuffer, SessionMemory};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn gather(c: &mut Criterion) {
    let layout = SessionLayout::new(32 << 20, 1 << 20, 256).expect("a valid layout");
    let memory = SessionMemory::create(layout, 1).expect("memory for a session");
    let start = layout.payload(RegionKind::Request).start;
    let mut group = c.benchmark_group("payload/gather");
    for byte_size in [4 << 10, 64 << 10, 588 << 10, 18 << 20] {
        let mut buffer = AlignedBuffer::new(byte_size).expect("memory for a batch");
        group.throughput(Throughput::Bytes(byte_size as u64));
        group.bench_function(format!("{}_kib", byte_size >> 10), |b| {
            b.iter(|| {
                let payload = memory
                    .request()
                    .payload(start, byte_size as u64)
                    .expect("within the region");
                payload.copy_to(&mut buffer.payload_mut(byte_size));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, gather);
criterion_main!(benches);
