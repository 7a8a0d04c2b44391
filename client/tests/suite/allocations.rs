//! Counts what each thread allocates, to hold the promise of the hot path.
#![allow(unsafe_code, reason = "an allocator is unsafe by nature")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use crate::{Ground, fill, options, request, row};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    // A thread that ends has no counter any more, and nobody asks for it.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promised for this call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, byte_size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promised for this call.
        unsafe { System.realloc(old, layout, byte_size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised for this call.
        unsafe { System.dealloc(old, layout) }
    }
}

fn allocations(run: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    run();
    COUNT.get() - before
}

#[test]
fn known_requests_allocate_nothing() {
    for spin in [Duration::ZERO, Duration::from_micros(100)] {
        for may_prepare in [true, false] {
            let ground = Ground::new();
            let server = ground.fake().serve();
            let client = ground.connect(options().spin(spin));
            let model = client.model("double").unwrap();
            let builder = model.request_batch(1).unwrap().prepare(may_prepare);
            let mut request = builder.build().unwrap();
            let mut turn = |value: f32| {
                request.input_mut::<f32>("x").unwrap().fill(value);
                let outputs = request.infer().unwrap();
                assert_eq!(outputs.get::<f32>("y").unwrap(), row(2.0 * value));
            };
            turn(1.0);
            turn(2.0);
            turn(3.0);
            assert_eq!(
                allocations(|| (0..100u8).for_each(|run| turn(run.into()))),
                0
            );
            drop((request, model, client));
            server.join().unwrap();
        }
    }
}

#[test]
fn known_requests_allocate_nothing_when_pipelined() {
    let ground = Ground::new();
    let server = ground.fake().serve();
    let client = ground.client();
    let model = client.model("double").unwrap();
    let mut pair = [request(&model, 1), request(&model, 1)].map(Some);
    let mut turn = |value: f32| {
        let pending = pair.each_mut().map(|place| {
            let mut request = place.take().unwrap();
            fill(&mut request, value);
            request.submit().unwrap()
        });
        for (place, pending) in pair.iter_mut().zip(pending) {
            *place = Some(pending.wait().unwrap().into_request());
        }
    };
    turn(1.0);
    turn(2.0);
    assert_eq!(
        allocations(|| (0..100u8).for_each(|run| turn(run.into()))),
        0
    );
    drop((pair, model, client));
    server.join().unwrap();
}
