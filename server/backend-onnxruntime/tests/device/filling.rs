//! Batches that are filled up to one of few sizes.

use std::collections::BTreeMap;

use adjoin_backend::conformance::onnx::Graph;
use fake_onnxruntime::harness;

use crate::fixture::{Machine, accelerated, add, add_of_rows, double, expect, fake, request};

const FP32: u64 = 1;

fn runs() -> BTreeMap<i64, u64> {
    harness::report().runs_by_rows
}

#[test]
fn batches_have_few_sizes_and_everybody_gets_his_rows() {
    let test = "filling::batches_have_few_sizes_and_everybody_gets_his_rows";
    let report = fake().delay_us("0-200").run(test, || {
        let machine = Machine::new();
        let model = machine.load(&add_of_rows(), 32);
        let mut instance = model.instance().unwrap();
        expect(&mut *instance, 0, &[3]);
        expect(&mut *instance, 1, &[4, 5]);
        expect(&mut *instance, 2, &[9, 1, 7]);
        expect(&mut *instance, 3, &[32]);
        assert_eq!(runs(), BTreeMap::from([(3, 1), (10, 1), (20, 1), (32, 1)]));
        let sizes = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32];
        assert_eq!(model.prepared_sizes(), sizes);
        drop((instance, model));
        machine.end();
    });
    report.assert_clean();
}

#[test]
fn the_rest_of_a_batch_is_zeros_whatever_was_there() {
    let test = "filling::the_rest_of_a_batch_is_zeros_whatever_was_there";
    let report = fake().run(test, || {
        let machine = Machine::new();
        // Each value of a row, twice, and what all rows add up to.
        let graph = Graph::default()
            .node("ReduceSum", &["a"], &["all"])
            .node("Add", &["a", "b"], &["twice"])
            .node("Add", &["twice", "all"], &["sum"])
            .input("a", FP32, &["rows", "4"])
            .input("b", FP32, &["rows", "4"])
            .output("sum", FP32, &["rows", "4"])
            .model();
        let model = machine.load(&graph, 16);
        let mut instance = model.instance().unwrap();
        for (turn, rows) in [(1, 16), (2, 9), (3, 13), (4, 9)] {
            let values = request(turn, rows);
            let total: f32 = values.iter().sum();
            let expected: Vec<f32> = values.iter().map(|value| 2.0 * value + total).collect();
            let answers = double(&mut *instance, &[values]).unwrap();
            for (answer, expected) in answers[0].iter().zip(&expected) {
                assert!(
                    (answer - expected).abs() < expected * 1e-5,
                    "{answer} for {expected}"
                );
            }
        }
        assert_eq!(runs(), BTreeMap::from([(10, 2), (14, 1), (16, 1)]));
        drop((instance, model));
        machine.end();
    });
    report.assert_clean();
}

#[test]
fn a_model_may_say_its_sizes_or_that_it_has_none() {
    let test = "filling::a_model_may_say_its_sizes_or_that_it_has_none";
    fake().run(test, || {
        let machine = Machine::new();
        let load = |graph: &[u8], sizes: &str| {
            machine.try_load(graph, accelerated("cuda", &[("batch_sizes", sizes)]), 16)
        };
        for (sizes, expected) in [("2,6", 6), ("all", 5)] {
            let model = load(&add_of_rows(), sizes).unwrap();
            let mut instance = model.instance().unwrap();
            let before = runs();
            expect(&mut *instance, 0, &[2, 3]);
            let count = |runs: &BTreeMap<i64, u64>| runs.get(&expected).copied().unwrap_or(0);
            assert_eq!(count(&runs()), count(&before) + 1, "{sizes}");
        }
        let refused = load(&add_of_rows(), "17").unwrap_err().to_string();
        assert!(refused.contains("16 rows at most"), "{refused}");
        let open = load(&add(&["batch", "length"]), "2")
            .unwrap_err()
            .to_string();
        assert!(open.contains("no more open than their rows"), "{open}");
        machine.end();
    });
}
