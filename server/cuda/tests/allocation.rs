//! A batch in a warm slot allocates nothing in this process, whatever form its copies have.

#![allow(unsafe_code, reason = "counts allocations, which needs an allocator")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

#[allow(dead_code, reason = "the suite uses more of it")]
#[path = "suite/fixture.rs"]
mod fixture;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use adjoin_cuda::{
    BatchSlot, CudaError, FloatType, Lane, Normalize, NormalizeInput, SlotSpec, TransferSettings,
};
use adjoin_shm::Payload;
use fake_cuda::harness::FakeCuda;

use crate::fixture::{Session, assert_answers, register_all, sessions, settings, spec, transfers};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: hands every call on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

// The fake driver is a library with an allocator of its own, so what it allocates does not count.
#[global_allocator]
static ALLOCATOR: Counting = Counting;

const COUNT_OF_SESSIONS: usize = 8;
const BYTES: usize = 10_000;

fn batch(slot: &mut BatchSlot, engine: &mut Lane, sessions: &mut [Session]) {
    let pieces: [Payload<'_>; COUNT_OF_SESSIONS] = std::array::from_fn(|at| sessions[at].payload());
    let mut run = slot.begin().unwrap();
    let byte_size = run.gather(0, &pieces).unwrap();
    run.compute_in::<_, CudaError>(engine, |lane, inputs, outputs| {
        lane.copy_on_device((&outputs[0], 0), (&inputs[0], 0), byte_size)
    })
    .unwrap();
    run.scatter(0, sessions.iter_mut().map(Session::room))
        .unwrap();
    run.finish().unwrap();
    engine.settle().unwrap();
}

fn allocates_nothing(test: &str, settings: TransferSettings) {
    let report = FakeCuda::new().run_anywhere(test, || {
        let transfers = transfers(settings);
        let mut sessions = sessions(COUNT_OF_SESSIONS, BYTES);
        register_all(&transfers, &sessions);
        let spec = spec(COUNT_OF_SESSIONS * BYTES, COUNT_OF_SESSIONS);
        let mut slot = BatchSlot::new(&transfers, spec).unwrap();
        let mut engine = Lane::new(transfers.device(), 8).unwrap();
        batch(&mut slot, &mut engine, &mut sessions);
        let before = COUNT.get();
        for _ in 0..10 {
            batch(&mut slot, &mut engine, &mut sessions);
        }
        assert_eq!(COUNT.get() - before, 0, "allocations in ten batches");
        assert_answers(&sessions);
        // That something would have been counted.
        drop(std::hint::black_box(Box::new(1)));
        assert!(COUNT.get() > before);
    });
    if let Some(report) = report {
        report.assert_clean();
    }
}

/// As many images of `BYTES` pixels, in a batch that is made of them on the device.
#[test]
fn of_pixels() {
    let report = FakeCuda::new().run_anywhere("of_pixels", || {
        let transfers = transfers(settings(0, usize::MAX));
        let sessions = sessions(COUNT_OF_SESSIONS, BYTES);
        register_all(&transfers, &sessions);
        let pixels = COUNT_OF_SESSIONS * BYTES;
        let spec = SlotSpec {
            inputs: vec![4 * pixels],
            pixels: vec![pixels],
            outputs: Vec::new(),
            pieces_max: COUNT_OF_SESSIONS,
        };
        let made = NormalizeInput {
            input: 0,
            normalize: Normalize {
                height: 100,
                width: 100,
                channels: 1,
                scale: 1.0,
                mean: [0.0; 4],
                deviation: [1.0; 4],
                to: FloatType::Fp32,
            },
            images: u32::try_from(COUNT_OF_SESSIONS).unwrap(),
        };
        let mut slot = BatchSlot::new(&transfers, spec).unwrap();
        let mut batch = || {
            let pieces: [Payload<'_>; COUNT_OF_SESSIONS] =
                std::array::from_fn(|at| sessions[at].payload());
            let mut run = slot.begin().unwrap();
            run.gather(0, &pieces).unwrap();
            run.normalize(&made).unwrap();
            run.finish().unwrap();
        };
        batch();
        let before = COUNT.get();
        for _ in 0..10 {
            batch();
        }
        assert_eq!(COUNT.get() - before, 0, "allocations in ten batches");
    });
    if let Some(report) = report {
        report.assert_clean();
        assert_eq!(report.kernels, 11);
    }
}

#[test]
fn by_one_copy_each() {
    allocates_nothing("by_one_copy_each", settings(0, usize::MAX));
}

#[test]
fn by_one_call() {
    allocates_nothing("by_one_call", settings(0, 2));
}

#[test]
fn by_a_kernel() {
    allocates_nothing("by_a_kernel", settings(usize::MAX, usize::MAX));
}
