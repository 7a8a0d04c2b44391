//! Batches: right answers for the right requests, and failures that stay with their batch.

use adjoin_backend::{ExecuteError, Execution, Input, Output};
use adjoin_cuda::{CopyForm, Path};
use adjoin_schema::DataType;
use adjoin_schema::layout::{RegionKind, SessionLayout};
use adjoin_shm::{Payload, SessionMemory};
use fake_cuda::harness::FakeCuda;

use crate::fixture::{Taker, affine, bytes_of, doubled_plus_one, load, run, transfers, values_of};

/// Requests of these rows, all values different.
fn requests(rows: &[usize], turn: usize) -> Vec<Vec<f32>> {
    let values = |(index, &rows): (usize, &usize)| {
        (0..rows * 4)
            .map(|value| (turn * 1000 + index * 100 + value) as f32)
            .collect()
    };
    rows.iter().enumerate().map(values).collect()
}

#[test]
fn every_request_gets_its_own_rows() {
    for delay in ["0", "0-300"] {
        let fake = FakeCuda::new().delay_us(delay);
        let report = fake.run("runs::every_request_gets_its_own_rows", || {
            let transfers = transfers();
            let model = load(&transfers, affine());
            let mut instance = model.instance().unwrap();
            for turn in 0..6 {
                for rows in [&[1][..], &[3, 1], &[1, 2, 2, 3], &[8]] {
                    let requests = requests(rows, turn);
                    assert_eq!(
                        run(&mut *instance, &requests).unwrap(),
                        doubled_plus_one(&requests)
                    );
                }
            }
            // Every size but in its first run was one launch.
            assert!(transfers.device().counters().uses(CopyForm::Kernel) >= 4 * 5);
        });
        report.assert_clean();
    }
}

#[test]
fn after_warm_up_nothing_is_allocated() {
    FakeCuda::new().run("runs::after_warm_up_nothing_is_allocated", || {
        let transfers = transfers();
        let mut instance = load(&transfers, affine()).instance().unwrap();
        let mut turns = |from: usize, to: usize| {
            for turn in from..to {
                let requests = requests(&[1, 2], turn);
                assert_eq!(
                    run(&mut *instance, &requests).unwrap(),
                    doubled_plus_one(&requests)
                );
            }
        };
        turns(0, 4);
        let before = fake_cuda::harness::counts();
        turns(4, 40);
        let after = fake_cuda::harness::counts();
        assert_eq!(before.device_allocations, after.device_allocations);
        assert_eq!(before.pinned_allocations, after.pinned_allocations);
    });
}

#[test]
fn registered_memory_is_read_and_written_by_the_device_alone() {
    let test = "runs::registered_memory_is_read_and_written_by_the_device_alone";
    let report = FakeCuda::new().run(test, || {
        let transfers = transfers();
        let mut instance = load(&transfers, affine()).instance().unwrap();
        let layout = SessionLayout::new(1 << 17, 1 << 17, 64).unwrap();
        let memory = SessionMemory::create(layout, 1).unwrap();
        let registry = transfers.registry();
        let keys = [memory.request(), memory.response()].map(|region| registry.register(region));
        registry.settle();
        let mut room = memory.response_arena().allocate(32).unwrap();
        let start = layout.payload(RegionKind::Request).start;
        let counters = transfers.device().counters();
        for _ in 0..3 {
            let input = memory.request().payload(start, 32).unwrap();
            let execution = Execution {
                key: None,
                inputs: &[Input::whole(DataType::Fp32, &[2, 4], input)],
                outputs: &mut [Output::Bound {
                    dtype: DataType::Fp32,
                    shape: &[2, 4],
                    payload: room.payload_mut(),
                }],
            };
            instance.run(execution, &mut Taker::default()).unwrap();
            assert_eq!(values_of(&room.payload().to_vec()), [1.0; 8]);
        }
        assert_eq!(counters.to_device.get(Path::Direct), 3 * 32);
        assert_eq!(counters.to_host.get(Path::Direct), 3 * 32);
        assert_eq!(
            counters.to_device.by_processor() + counters.to_host.by_processor(),
            0
        );
        drop(room);
        for key in keys {
            registry.retire(key, ());
        }
    });
    report.assert_clean();
}

/// Each of the batches waits in the middle of its run for the other one: with one at a time neither would come to an end.
#[test]
fn two_batches_of_one_model_overlap_and_each_has_its_own_answers() {
    let test = "runs::two_batches_of_one_model_overlap_and_each_has_its_own_answers";
    let report = FakeCuda::new().delay_us("0-300").run(test, || {
        let transfers = transfers();
        let model = load(&transfers, affine().line("meet 3 2"));
        assert_eq!(model.batches_at_once(), 2);
        std::thread::scope(|scope| {
            for batch in 0..model.batches_at_once() {
                let mut instance = model.instance().unwrap();
                scope.spawn(move || {
                    // By copies at first, by graphs of the same shapes from then on.
                    for turn in 0..6 {
                        let requests = requests(&[1, 2], 10 * turn + batch);
                        assert_eq!(
                            run(&mut *instance, &requests).unwrap(),
                            doubled_plus_one(&requests)
                        );
                    }
                });
            }
        });
    });
    report.assert_clean();
    assert!(report.graph_launches >= 2 * 4, "{report:#?}");
}

#[test]
fn a_lost_device_is_told_from_other_failures_and_its_plan_can_be_dropped() {
    let test = "runs::a_lost_device_is_told_from_other_failures_and_its_plan_can_be_dropped";
    for failure in ["exec.copy:4:700", "cuLaunchHostFunc:2:719"] {
        let report = FakeCuda::new().fail(failure).delay_us(100).run(test, || {
            let lost = transfers();
            let model = load(&lost, affine());
            let mut instances: Vec<_> = (0..2).map(|_| model.instance().unwrap()).collect();
            let requests = requests(&[1, 2], 0);
            let outcomes: Vec<_> = (0..6)
                .map(|turn| run(&mut *instances[turn % 2], &requests))
                .collect();
            let is_lost = |outcome: &Result<_, ExecuteError>| {
                matches!(outcome, Err(ExecuteError::DeviceLost { .. }))
            };
            let first = outcomes.iter().position(is_lost).unwrap();
            assert!(outcomes[..first].iter().all(Result::is_ok), "{outcomes:?}");
            assert!(outcomes[first..].iter().all(is_lost), "{outcomes:?}");
            assert!(model.is_on_device());
            // As the server does: what is in the old context goes on another thread, before the reset.
            std::thread::spawn(move || drop((instances, model)))
                .join()
                .unwrap();
            let back = lost.rebuild().unwrap();
            let mut instance = load(&back, affine()).instance().unwrap();
            assert_eq!(
                run(&mut *instance, &requests).unwrap(),
                doubled_plus_one(&requests)
            );
        });
        report.assert_clean();
        assert_eq!(report.resets, 1);
    }
}

#[test]
fn outputs_without_room_go_to_the_sink_and_skipped_ones_nowhere() {
    let test = "runs::outputs_without_room_go_to_the_sink_and_skipped_ones_nowhere";
    FakeCuda::new().run(test, || {
        let mut instance = load(&transfers(), affine()).instance().unwrap();
        let bytes = bytes_of(&[1.0, 2.0, 3.0, 4.0]);
        for turn in 0..3 {
            let inputs = [Input::whole(
                DataType::Fp32,
                &[1, 4],
                Payload::from_slice(&bytes),
            )];
            let mut taker = Taker::default();
            let execution = Execution {
                key: None,
                inputs: &inputs,
                outputs: &mut [Output::Unbound],
            };
            instance.run(execution, &mut taker).unwrap();
            let (index, shape, bytes) = &taker.0[0];
            assert_eq!((*index, shape.as_slice()), (0, &[1, 4][..]), "turn {turn}");
            assert_eq!(values_of(bytes), [3.0, 5.0, 7.0, 9.0]);
            let execution = Execution {
                key: None,
                inputs: &inputs,
                outputs: &mut [Output::Skipped],
            };
            let mut taker = Taker::default();
            instance.run(execution, &mut taker).unwrap();
            assert!(taker.0.is_empty());
        }
    });
}

#[test]
fn shapes_outside_of_the_profile_are_refused_before_anything_is_enqueued() {
    let test = "runs::shapes_outside_of_the_profile_are_refused_before_anything_is_enqueued";
    FakeCuda::new().run(test, || {
        let mut instance = load(&transfers(), affine()).instance().unwrap();
        let many = requests(&[9], 0);
        let error = run(&mut *instance, &many).unwrap_err();
        assert!(matches!(&error, ExecuteError::Mismatch { reason } if reason.contains("outside of the optimization profile")), "{error}");
        let few = requests(&[2], 0);
        assert_eq!(run(&mut *instance, &few).unwrap(), doubled_plus_one(&few));
    });
}

#[test]
fn a_plan_that_writes_more_than_at_its_largest_input_is_not_run() {
    let test = "runs::a_plan_that_writes_more_than_at_its_largest_input_is_not_run";
    FakeCuda::new().run(test, || {
        let transfers = transfers();
        let grown = affine().line("grow y 3");
        let mut instance = load(&transfers, grown).instance().unwrap();
        let error = run(&mut *instance, &requests(&[2], 0)).unwrap_err();
        assert!(error.to_string().contains("bytes"), "{error}");
    });
}

#[test]
fn a_run_that_tensorrt_refuses_fails_alone() {
    let report = FakeCuda::new().run("runs::a_run_that_tensorrt_refuses_fails_alone", || {
        let transfers = transfers();
        let mut faulty = load(&transfers, affine().line("fault enqueue 2"))
            .instance()
            .unwrap();
        let mut other = load(&transfers, affine()).instance().unwrap();
        let requests = requests(&[1, 1], 0);
        assert_eq!(
            run(&mut *faulty, &requests).unwrap(),
            doubled_plus_one(&requests)
        );
        for _ in 0..3 {
            let error = run(&mut *faulty, &requests).unwrap_err();
            assert!(error.to_string().contains("enqueueV3"), "{error}");
            assert_eq!(
                run(&mut *other, &requests).unwrap(),
                doubled_plus_one(&requests)
            );
        }
    });
    report.assert_clean();
}

#[test]
fn failures_of_the_driver_fail_the_batch_and_leave_nothing_under_way() {
    // Copies and launches that fail when they are asked for, some while batches are captured.
    for failure in [
        "cuMemcpyHtoDAsync_v2:4:1",
        "cuMemcpyDtoHAsync_v2:6:1",
        "cuGraphInstantiateWithFlags:1:2",
        "cuGraphLaunch:2:1",
    ] {
        let fake = FakeCuda::new().fail(failure).delay_us("0-200");
        let test = "runs::failures_of_the_driver_fail_the_batch_and_leave_nothing_under_way";
        let report = fake.run(test, || {
            let transfers = transfers();
            let mut instance = load(&transfers, affine()).instance().unwrap();
            let mut right = 0;
            for turn in 0..12 {
                let requests = requests(&[1, 2], turn);
                if let Ok(answer) = run(&mut *instance, &requests) {
                    assert_eq!(answer, doubled_plus_one(&requests));
                    right += 1;
                }
            }
            assert!(
                right >= 10,
                "one failure, and {right} of 12 batches were right"
            );
        });
        report.assert_clean();
    }
}
