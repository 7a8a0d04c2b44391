//! A run under a key that was seen before allocates nothing on this side of the C API.

#![allow(unsafe_code, reason = "counts allocations, which needs an allocator")]

mod library;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

use adjoin_backend::conformance::memory::{Placed, Room, Taker, Tensor};
use adjoin_backend::{Backend, BindingKey, Execution, ModelSource};

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

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn run_under_a_known_key_allocates_nothing() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models");
    let source = ModelSource {
        name: "add".into(),
        version: 1,
        path: models.join("add.onnx"),
        intra_op_threads: 1,
        parameters: BTreeMap::new(),
        placement: Default::default(),
        rows_max: Default::default(),
    };
    let model = library::backend().load(&source).unwrap();
    let mut instance = model.instance().unwrap();
    let shape = [2, 4];
    let [a, b] = [1.0_f32, 2.0].map(|value| Placed::new(&Tensor::new(&shape, &[value; 8])));
    let mut room = Room::new(a.input().dtype, &shape);
    let mut taker = Taker::default();
    let mut allocations = Vec::new();
    for key in [Some(1), Some(1), Some(1), None, Some(1)] {
        let before = COUNT.get();
        let execution = Execution {
            key: key.map(BindingKey),
            inputs: &[a.input(), b.input()],
            outputs: &mut [room.output()],
        };
        instance.run(execution, &mut taker).unwrap();
        allocations.push(COUNT.get() - before);
    }
    assert_eq!(allocations[1..3], [0, 0]);
    assert_eq!(allocations[4], 0);
    assert_eq!(room.tensor().f32s(), [3.0; 8]);
}
