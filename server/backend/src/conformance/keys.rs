//! What an engine keeps under a key must never be used for anything else.

use super::memory::{Placed, Room, Taker, Tensor};
use super::suite::{Suite, add_case, bound};
use crate::{BindingKey, Execution, Instance, Output};

/// More than an engine will keep.
const MANY: u64 = 2500;

fn placed(inputs: &[Tensor; 2]) -> [Placed; 2] {
    inputs.each_ref().map(Placed::new)
}

fn expect_bound(
    instance: &mut dyn Instance,
    key: u64,
    inputs: &[Placed; 2],
    room: &mut Room,
    sum: &Tensor,
) {
    let [a, b] = inputs;
    bound(instance, Some(key), &[a, b], room).unwrap();
    assert_eq!(&room.tensor(), sum);
}

pub(super) fn new_bytes(suite: &Suite<'_>) {
    let mut instance = suite.add();
    let (inputs, sum) = add_case(3, 0);
    let mut inputs = placed(&inputs);
    let mut room = Room::new(sum.dtype, &sum.shape);
    expect_bound(&mut *instance, 7, &inputs, &mut room, &sum);
    for seed in 1..20 {
        let ([a, b], sum) = add_case(3, seed);
        inputs[0].write(&a.bytes);
        inputs[1].write(&b.bytes);
        expect_bound(&mut *instance, 7, &inputs, &mut room, &sum);
    }
}

pub(super) fn other_memory(suite: &Suite<'_>) {
    let mut instance = suite.add();
    let (first, first_sum) = add_case(3, 1);
    let (second, second_sum) = add_case(3, 2);
    let (first, second) = (placed(&first), placed(&second));
    let mut first_room = Room::new(first_sum.dtype, &first_sum.shape);
    expect_bound(&mut *instance, 7, &first, &mut first_room, &first_sum);

    // Other inputs and another output under the same key.
    let mut second_room = Room::new(second_sum.dtype, &second_sum.shape);
    expect_bound(&mut *instance, 7, &second, &mut second_room, &second_sum);
    assert_eq!(first_room.tensor(), first_sum, "the old output was written");

    // One of the inputs alone, and the output alone.
    let mixed = [&first[0], &second[1]];
    bound(&mut *instance, Some(7), &mixed, &mut second_room).unwrap();
    let (a, b) = (add_case(3, 1).0, add_case(3, 2).0);
    let sum: Vec<f32> = a[0]
        .f32s()
        .iter()
        .zip(b[1].f32s())
        .map(|(a, b)| a + b)
        .collect();
    assert_eq!(second_room.tensor().f32s(), sum);
    bound(&mut *instance, Some(7), &mixed, &mut first_room).unwrap();
    assert_eq!(first_room.tensor().f32s(), sum);

    // Memory that is gone, and new memory, perhaps in its place.
    drop(first);
    drop(first_room);
    for seed in 3..10 {
        let (inputs, sum) = add_case(3, seed);
        let mut room = Room::new(sum.dtype, &sum.shape);
        expect_bound(&mut *instance, 7, &placed(&inputs), &mut room, &sum);
    }
}

pub(super) fn other_shape(suite: &Suite<'_>) {
    let mut instance = suite.add();
    let (inputs, sum) = add_case(4, 1);
    let mut inputs = placed(&inputs);
    let mut room = Room::new(sum.dtype, &sum.shape);
    expect_bound(&mut *instance, 7, &inputs, &mut room, &sum);

    // The same memory, with a shape that does not belong to it.
    for placed in &mut inputs {
        placed.shape = vec![2, 4];
    }
    let [a, b] = &inputs;
    bound(&mut *instance, Some(7), &[a, b], &mut room).unwrap_err();
    for placed in &mut inputs {
        placed.shape = vec![4, 4];
    }
    expect_bound(&mut *instance, 7, &inputs, &mut room, &sum);

    // Smaller and larger batches under the key.
    for batch in [1, 9, 2] {
        let (inputs, sum) = add_case(batch, 5);
        let mut room = Room::new(sum.dtype, &sum.shape);
        expect_bound(&mut *instance, 7, &placed(&inputs), &mut room, &sum);
    }
}

pub(super) fn other_outputs(suite: &Suite<'_>) {
    let mut instance = suite.add();
    let (inputs, sum) = add_case(2, 1);
    let placed = placed(&inputs);
    let inputs = placed.each_ref().map(Placed::input);
    let mut room = Room::new(sum.dtype, &sum.shape);
    for _ in 0..2 {
        expect_bound(&mut *instance, 7, &placed, &mut room, &sum);
        for _ in 0..2 {
            let mut taker = Taker::default();
            let mut outputs = [Output::Unbound];
            run_keyed(&mut *instance, &inputs, &mut outputs, &mut taker);
            assert_eq!(taker.taken, [(0, sum.clone())]);
        }
        let mut taker = Taker::default();
        run_keyed(&mut *instance, &inputs, &mut [Output::Skipped], &mut taker);
        assert_eq!(taker.offered, 0);
    }
}

fn run_keyed<'a>(
    instance: &mut dyn Instance,
    inputs: &[crate::Input<'a>],
    outputs: &mut [Output<'a>],
    taker: &mut Taker,
) {
    let execution = Execution {
        key: Some(BindingKey(7)),
        inputs,
        outputs,
    };
    instance.run(execution, taker).unwrap();
}

pub(super) fn many(suite: &Suite<'_>) {
    let mut instance = suite.add();
    let (inputs, sum) = add_case(1, 1);
    let inputs = placed(&inputs);
    let mut room = Room::new(sum.dtype, &sum.shape);
    for key in (0..MANY).chain(0..10) {
        expect_bound(
            &mut *instance,
            key.wrapping_mul(1 << 32),
            &inputs,
            &mut room,
            &sum,
        );
    }
}
