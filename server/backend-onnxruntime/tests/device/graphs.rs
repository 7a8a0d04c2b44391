//! CUDA graphs: captured once for each kind of batch in each slot, and replayed.

use std::sync::atomic::{AtomicBool, Ordering};

use adjoin_backend::DevicePlacement;
use fake_onnxruntime::harness::{self, FAIL};

use crate::fixture::{Machine, accelerated, add, add_of_rows, expect, fake};

fn graphs() -> DevicePlacement {
    DevicePlacement {
        graphs: Some(true),
        ..DevicePlacement::default()
    }
}

#[test]
fn each_size_of_a_batch_is_captured_once_and_replayed() {
    let test = "graphs::each_size_of_a_batch_is_captured_once_and_replayed";
    let report = fake().delay_us("0-200").run(test, || {
        let machine = Machine::new();
        let model = machine.try_load(&add_of_rows(), graphs(), 8).unwrap();
        let mut instances = [model.instance().unwrap(), model.instance().unwrap()];
        for turn in 0..5 {
            for instance in &mut instances {
                for rows in [&[1][..], &[2, 1], &[8]] {
                    expect(&mut **instance, turn, rows);
                }
            }
        }
        let report = harness::report();
        // Three sizes in each of two slots, whose buffers are others.
        assert_eq!((report.captures, report.replays), (6, 24), "{report:#?}");
        let told = &report.sessions[0][0].options;
        assert_eq!(told["enable_cuda_graph"], "1");
        drop((instances, model));
        machine.end();
    });
    report.assert_clean();
}

#[test]
fn a_size_is_captured_once_whichever_threads_bring_batches() {
    let test = "graphs::a_size_is_captured_once_whichever_threads_bring_batches";
    let report = fake().run(test, || {
        let machine = Machine::new();
        let model = machine.try_load(&add_of_rows(), graphs(), 8).unwrap();
        let mut instance = model.instance().unwrap();
        for turn in 0..4 {
            let instance = &mut instance;
            std::thread::scope(|scope| {
                let run = move || expect(&mut **instance, turn, &[2, 1]);
                scope.spawn(run).join().unwrap();
            });
        }
        let report = harness::report();
        assert_eq!((report.captures, report.replays), (1, 3), "{report:#?}");
        drop((instance, model));
        machine.end();
    });
    report.assert_clean();
}

/// While one model captures, the driver refuses much of what other threads ask that have not said that this is none of their
/// business: batches of a model that is served go on, and the capture is not spoiled.
#[test]
fn a_model_is_loaded_with_its_graphs_while_another_is_served() {
    let test = "graphs::a_model_is_loaded_with_its_graphs_while_another_is_served";
    let report = fake().delay_us("0-200").run(test, || {
        let machine = Machine::new();
        let served = machine.try_load(&add_of_rows(), graphs(), 8).unwrap();
        let mut instance = served.instance().unwrap();
        expect(&mut *instance, 0, &[2]);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for turn in 0.. {
                    expect(&mut *instance, turn % 100, &[2]);
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
            for turn in 0..5 {
                let model = machine.try_load(&add_of_rows(), graphs(), 8).unwrap();
                let mut instance = model.instance().unwrap();
                for rows in 1..=8 {
                    expect(&mut *instance, turn, &[rows]);
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
        let report = harness::report();
        assert_eq!(report.captures, 1 + 5 * 8, "{report:#?}");
        drop((instance, served));
        machine.end();
    });
    report.assert_clean();
}

/// Whether the last session of a model that does not say has graphs, after it was run.
fn has_graphs_by_itself(machine: &Machine, graph: &[u8]) -> bool {
    let placement = DevicePlacement::default();
    let model = machine.try_load(graph, placement, 8).unwrap();
    let before = harness::report();
    let mut instance = model.instance().unwrap();
    expect(&mut *instance, 0, &[2, 1]);
    let report = harness::report();
    let last = report.sessions.last().unwrap();
    let is_told = last[0].options.contains_key("enable_cuda_graph");
    assert_eq!(report.captures > before.captures, is_told, "{report:#?}");
    is_told
}

#[test]
fn a_model_that_does_not_say_has_graphs_where_a_trial_shows_that_it_can() {
    let test = "graphs::a_model_that_does_not_say_has_graphs_where_a_trial_shows_that_it_can";
    fake().run(test, || {
        let machine = Machine::new();
        assert!(has_graphs_by_itself(&machine, &add_of_rows()));
        assert!(!has_graphs_by_itself(&machine, &add(&["batch", "length"])));
        machine.end();
    });
}

#[test]
fn a_trial_that_fails_is_a_model_without_graphs() {
    for (number, failure) in ["capture:1", "session:1", "run:1", "run:2"]
        .into_iter()
        .enumerate()
    {
        let fake = fake().set(FAIL, failure);
        fake.run(
            "graphs::a_trial_that_fails_is_a_model_without_graphs",
            || {
                let machine = Machine::new();
                assert!(!has_graphs_by_itself(&machine, &add_of_rows()), "{number}");
                machine.end();
            },
        );
    }
}

#[test]
fn graphs_of_buffers_that_were_given_back_are_not_replayed() {
    let test = "graphs::graphs_of_buffers_that_were_given_back_are_not_replayed";
    let report = fake().run(test, || {
        let machine = Machine::new();
        // Made for two rows, and grows.
        let model = machine.try_load(&add_of_rows(), graphs(), 2).unwrap();
        let mut instance = model.instance().unwrap();
        for turn in 0..3 {
            expect(&mut *instance, turn, &[2]);
        }
        expect(&mut *instance, 3, &[2, 2, 2]);
        for turn in 4..7 {
            expect(&mut *instance, turn, &[2]);
        }
        let report = harness::report();
        assert_eq!((report.captures, report.replays), (3, 4), "{report:#?}");
        drop((instance, model));
        machine.end();
    });
    report.assert_clean();
}

#[test]
fn there_is_a_limit_to_the_graphs_of_a_session() {
    fake().run(
        "graphs::there_is_a_limit_to_the_graphs_of_a_session",
        || {
            let machine = Machine::new();
            let each_size = accelerated("cuda", &[("batch_sizes", "all")]);
            let placement = DevicePlacement {
                graphs: Some(true),
                ..each_size
            };
            let model = machine.try_load(&add_of_rows(), placement, 100).unwrap();
            let mut instance = model.instance().unwrap();
            for turn in 0..2 {
                for rows in 1..=100 {
                    expect(&mut *instance, turn, &[rows]);
                }
            }
            let report = harness::report();
            assert_eq!((report.captures, report.replays), (64, 64), "{report:#?}");
            drop((instance, model));
            machine.end();
        },
    );
}

#[test]
fn what_cannot_be_captured_runs_without() {
    let fake = fake().set(FAIL, "capture:1");
    fake.run("graphs::what_cannot_be_captured_runs_without", || {
        let machine = Machine::new();
        let model = machine.try_load(&add_of_rows(), graphs(), 8).unwrap();
        let mut instance = model.instance().unwrap();
        for turn in 0..3 {
            expect(&mut *instance, turn, &[2]);
            expect(&mut *instance, turn, &[3]);
        }
        let report = harness::report();
        // The size of the failed capture has no graph from then on; the other one has.
        assert_eq!((report.captures, report.replays), (1, 2), "{report:#?}");
        drop((instance, model));
        machine.end();
    });
}

#[test]
fn graphs_are_for_models_that_leave_no_more_open_than_their_rows() {
    let test = "graphs::graphs_are_for_models_that_leave_no_more_open_than_their_rows";
    fake().run(test, || {
        let machine = Machine::new();
        let refused = machine.refusal(&add(&["batch", "length"]), graphs(), 8);
        for word in ["optimization.cuda.graphs", "\"a\"", "[-1, -1]"] {
            assert!(
                refused.contains(word),
                "{refused:?} should contain {word:?}"
            );
        }
        machine.end();
    });
}
