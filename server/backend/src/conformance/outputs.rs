//! Where results go.

use adjoin_schema::DataType;

use super::memory::{Placed, Room, Taker, Tensor};
use super::onnx::Graph;
use super::suite::{Scratch, Suite, add_case, bound, expect, unbound as run_unbound};
use crate::{BindingKey, ExecuteError, Execution, Output};

pub(super) fn guards(suite: &Suite<'_>) {
    let mut instance = suite.add();
    for batch in 1..20 {
        let (inputs, sum) = add_case(batch, 1);
        let [a, b] = inputs.map(|tensor| Placed::new(&tensor));
        let mut room = Room::new(sum.dtype, &sum.shape);
        for key in [None, Some(u64::from(batch)), Some(u64::from(batch))] {
            bound(&mut *instance, key, &[&a, &b], &mut room).unwrap();
            // Looks at the guards too.
            assert_eq!(room.tensor(), sum);
        }
    }
}

pub(super) fn unbound(suite: &Suite<'_>) {
    let mut instance = suite.add();
    for batch in [1, 7] {
        let (inputs, sum) = add_case(batch, 2);
        let placed = inputs.map(|tensor| Placed::new(&tensor));
        let inputs = placed.each_ref().map(Placed::input);
        for _ in 0..2 {
            let results = run_unbound(&mut *instance, &inputs, 1).unwrap();
            assert_eq!(results, std::slice::from_ref(&sum));
        }
    }
}

pub(super) fn skipped(suite: &Suite<'_>) {
    let mut instance = suite.add();
    let (inputs, sum) = add_case(3, 3);
    let placed = inputs.clone().map(|tensor| Placed::new(&tensor));
    let inputs_placed = placed.each_ref().map(Placed::input);
    let mut taker = Taker::default();
    let execution = Execution {
        key: None,
        inputs: &inputs_placed,
        outputs: &mut [Output::Skipped],
    };
    instance.run(execution, &mut taker).unwrap();
    assert_eq!(taker.offered, 0);
    expect(&mut *instance, &inputs, &sum);
}

pub(super) fn empty_batch(suite: &Suite<'_>) {
    let mut instance = suite.add();
    let (inputs, sum) = add_case(0, 1);
    assert_eq!(sum.shape, [0, 4]);
    expect(&mut *instance, &inputs, &sum);
    let (inputs, sum) = add_case(2, 1);
    expect(&mut *instance, &inputs, &sum);
}

/// An engine may well forget to write an output that it has no operator for.
pub(super) fn handed_out(suite: &Suite<'_>) {
    const FP32: u64 = 1;
    let graph = Graph::default()
        .node("Relu", &["x"], &["y"])
        .input("x", FP32, &["n"])
        .output("x", FP32, &["n"])
        .output("y", FP32, &["n"]);
    let scratch = Scratch::new(suite, &graph.model());
    let model = suite.load(&scratch.source()).unwrap();
    let mut instance = model.instance().unwrap();
    let x = Tensor::new(&[3], &[-1.0_f32, 0.0, 2.0]);
    let y = Tensor::new(&[3], &[0.0_f32, 0.0, 2.0]);
    let placed = Placed::new(&x);
    let inputs = [placed.input()];
    for key in [None, Some(1), Some(1)] {
        let (mut same, mut relu) = (Room::new(x.dtype, &x.shape), Room::new(y.dtype, &y.shape));
        let execution = Execution {
            key: key.map(BindingKey),
            inputs: &inputs,
            outputs: &mut [same.output(), relu.output()],
        };
        instance.run(execution, &mut Taker::default()).unwrap();
        assert_eq!(same.tensor(), x);
        assert_eq!(relu.tensor(), y);
        let results = run_unbound(&mut *instance, &inputs, 2).unwrap();
        assert_eq!(results, [x.clone(), y.clone()]);
    }
}

pub(super) fn full_sink(suite: &Suite<'_>) {
    let mut instance = suite.add();
    let (inputs, sum) = add_case(2, 1);
    let placed = inputs.clone().map(|tensor| Placed::new(&tensor));
    let inputs_placed = placed.each_ref().map(Placed::input);
    let mut full = Taker {
        bytes_max: sum.bytes.len() - 1,
        ..Taker::default()
    };
    let execution = Execution {
        key: None,
        inputs: &inputs_placed,
        outputs: &mut [Output::Unbound],
    };
    let error = instance.run(execution, &mut full).unwrap_err();
    let ExecuteError::NoRoom(error) = error else {
        panic!("{error}");
    };
    assert_eq!(error.byte_size, sum.bytes.len() as u64);
    assert_eq!(full.offered, 1);
    expect(&mut *instance, &inputs, &sum);
}

pub(super) fn wrong_room(suite: &Suite<'_>) {
    let mut instance = suite.add();
    let (inputs, sum) = add_case(2, 1);
    let [a, b] = inputs.clone().map(|tensor| Placed::new(&tensor));
    let rooms = [
        // Another type, another size, another rank, more rows and fewer than come out.
        Room::of_size(DataType::Int32, &sum.shape, sum.bytes.len()),
        Room::of_size(sum.dtype, &sum.shape, sum.bytes.len() - 4),
        Room::of_size(sum.dtype, &sum.shape, sum.bytes.len() + 4),
        Room::new(sum.dtype, &[8]),
        Room::new(sum.dtype, &[3, 4]),
        Room::new(sum.dtype, &[1, 4]),
    ];
    for mut room in rooms {
        let error = bound(&mut *instance, None, &[&a, &b], &mut room).unwrap_err();
        assert!(!matches!(error, ExecuteError::NoRoom(_)), "{error}");
        assert!(room.is_untouched());
    }
    expect(&mut *instance, &inputs, &sum);
}

pub(super) fn copies(suite: &Suite<'_>) {
    let mut instance = suite.add();
    let (inputs, sum) = add_case(5, 1);
    let input_bytes: usize = inputs.iter().map(|tensor| tensor.bytes.len()).sum();
    let [a, b] = inputs.map(|tensor| Placed::new(&tensor));
    let mut room = Room::new(sum.dtype, &sum.shape);
    for key in [None, Some(1), Some(1)] {
        let copied = bound(&mut *instance, key, &[&a, &b], &mut room).unwrap();
        let (expected_in, expected_out) = if suite.options.copies_payload {
            (input_bytes as u64, sum.bytes.len() as u64)
        } else {
            (0, 0)
        };
        assert_eq!(copied.input_bytes, expected_in);
        assert_eq!(copied.output_bytes, expected_out);
    }
}
