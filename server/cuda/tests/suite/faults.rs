//! Failures of the driver, one at a time: each is a clean error, leaves nothing under way, and loses nothing.

use adjoin_cuda::{
    BatchSlot, CudaError, DeviceBuffer, Driver, Event, Lane, Path, RegionState, TransferSettings,
    Transfers,
};
use fake_cuda::harness::FakeCuda;

use crate::fixture::{
    Flag, Session, assert_answers, device, register_all, run_identity, sessions, settings, spec,
};

const COUNT: usize = 8;
const BYTES: usize = 20_000;

/// Runs a batch that fails, drops every session at once (the fake driver finds out if a transfer is under way), and
/// runs one that does not.
fn fails_once(test: &str, failure: &str, settings: TransferSettings, call: &str) {
    let report = FakeCuda::new().delay_us(300).fail(failure).run(test, || {
        let transfers = Transfers::start(&device(), settings).unwrap();
        let mut slot = BatchSlot::new(&transfers, spec(COUNT * BYTES, COUNT)).unwrap();
        let mut engine = Lane::new(transfers.device(), 8).unwrap();
        let mut doomed = sessions(COUNT, BYTES);
        let keys = register_all(&transfers, &doomed);
        let error = run_identity(&mut slot, &mut engine, &mut doomed).unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("{call} failed: ")),
            "{error}"
        );
        assert!(!error.is_sticky(), "{error}");
        for key in keys {
            transfers.registry().retire(key, ());
        }
        drop(doomed);
        transfers.registry().settle();
        assert_eq!(transfers.registry().stats().registered_bytes, 0);
        let mut others = sessions(COUNT, BYTES);
        register_all(&transfers, &others);
        run_identity(&mut slot, &mut engine, &mut others).unwrap();
        engine.settle().unwrap();
        assert_answers(&others);
    });
    report.assert_clean();
}

const NEVER: usize = usize::MAX;

#[test]
fn a_copy_in_the_middle_of_a_gather() {
    let test = "faults::a_copy_in_the_middle_of_a_gather";
    fails_once(
        test,
        "cuMemcpyHtoDAsync_v2:5:2",
        settings(0, NEVER),
        "cuMemcpyHtoDAsync_v2",
    );
}

#[test]
fn a_copy_in_the_middle_of_a_scatter() {
    let test = "faults::a_copy_in_the_middle_of_a_scatter";
    fails_once(
        test,
        "cuMemcpyDtoHAsync_v2:5:2",
        settings(0, NEVER),
        "cuMemcpyDtoHAsync_v2",
    );
}

#[test]
fn a_batched_copy() {
    fails_once(
        "faults::a_batched_copy",
        "cuMemcpyBatchAsync:2:1",
        settings(0, 2),
        "cuMemcpyBatchAsync",
    );
}

#[test]
fn a_launch() {
    fails_once(
        "faults::a_launch",
        "cuLaunchKernel:1:2",
        settings(NEVER, NEVER),
        "cuLaunchKernel",
    );
}

#[test]
fn the_engine() {
    let test = "faults::the_engine";
    fails_once(
        test,
        "cuMemcpyDtoDAsync_v2:1:2",
        settings(0, NEVER),
        "cuMemcpyDtoDAsync_v2",
    );
}

#[test]
fn an_event_between_gather_and_engine() {
    // Once for the engine, once for the scatter, once for the end.
    let test = "faults::an_event_between_gather_and_engine";
    fails_once(
        test,
        "cuEventRecord:1:2",
        settings(0, NEVER),
        "cuEventRecord",
    );
}

#[test]
fn an_event_between_engine_and_scatter() {
    let test = "faults::an_event_between_engine_and_scatter";
    fails_once(
        test,
        "cuEventRecord:2:2",
        settings(0, NEVER),
        "cuEventRecord",
    );
}

#[test]
fn the_event_at_the_end() {
    fails_once(
        "faults::the_event_at_the_end",
        "cuEventRecord:3:2",
        settings(0, NEVER),
        "cuEventRecord",
    );
}

#[test]
fn a_stream_that_cannot_wait() {
    let test = "faults::a_stream_that_cannot_wait";
    fails_once(
        test,
        "cuStreamWaitEvent:2:2",
        settings(0, NEVER),
        "cuStreamWaitEvent",
    );
}

#[test]
fn the_wait_at_the_end_and_the_one_after_it() {
    // The event cannot be asked, nor the stream: the context as a whole still can.
    let test = "faults::the_wait_at_the_end_and_the_one_after_it";
    let failures = "cuEventQuery:1:2,cuStreamSynchronize:1:2";
    fails_once(test, failures, settings(0, NEVER), "cuEventQuery");
}

/// Making a slot fails at the `call`-th call of a function; nothing of it is left.
fn no_slot(test: &str, failure: &str, call: &str) {
    let report = FakeCuda::new().fail(failure).run(test, || {
        let transfers = Transfers::start(&device(), settings(0, NEVER)).unwrap();
        let error = BatchSlot::new(&transfers, spec(COUNT * BYTES, COUNT)).unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("{call} failed: ")),
            "{error}"
        );
        let mut slot = BatchSlot::new(&transfers, spec(COUNT * BYTES, COUNT)).unwrap();
        let mut engine = Lane::new(transfers.device(), 8).unwrap();
        let mut sessions = sessions(COUNT, BYTES);
        register_all(&transfers, &sessions);
        run_identity(&mut slot, &mut engine, &mut sessions).unwrap();
        engine.settle().unwrap();
        assert_answers(&sessions);
    });
    report.assert_clean();
}

#[test]
fn no_device_memory_for_a_slot() {
    no_slot(
        "faults::no_device_memory_for_a_slot",
        "cuMemAlloc_v2:2:2",
        "cuMemAlloc_v2",
    );
}

#[test]
fn no_pinned_memory_for_a_slot() {
    no_slot(
        "faults::no_pinned_memory_for_a_slot",
        "cuMemHostAlloc:1:2",
        "cuMemHostAlloc",
    );
}

#[test]
fn no_event_for_a_slot() {
    no_slot(
        "faults::no_event_for_a_slot",
        "cuEventCreate:3:2",
        "cuEventCreate",
    );
}

#[test]
fn no_stream_for_a_slot() {
    no_slot(
        "faults::no_stream_for_a_slot",
        "cuStreamCreate:1:2",
        "cuStreamCreate",
    );
}

#[test]
fn no_kernels() {
    let fake = FakeCuda::new().fail("cuModuleLoadData:1:222,cuModuleGetFunction:2:500");
    let report = fake.run("faults::no_kernels", || {
        let device = device();
        for call in ["cuModuleLoadData", "cuModuleGetFunction"] {
            let error = Transfers::start(&device, settings(0, NEVER)).unwrap_err();
            assert!(
                error.to_string().starts_with(&format!("{call} failed: ")),
                "{error}"
            );
        }
        Transfers::start(&device, settings(0, NEVER)).unwrap();
    });
    report.assert_clean();
}

#[test]
fn a_device_that_is_full() {
    let fake = FakeCuda::new().set("FAKE_CUDA_MEMORY", COUNT * BYTES);
    let report = fake.run("faults::a_device_that_is_full", || {
        let transfers = Transfers::start(&device(), settings(0, NEVER)).unwrap();
        let error = BatchSlot::new(&transfers, spec(COUNT * BYTES, COUNT)).unwrap_err();
        assert!(error.is_out_of_memory(), "{error}");
        BatchSlot::new(&transfers, spec(COUNT * BYTES / 2, COUNT)).unwrap();
    });
    report.assert_clean();
}

/// Waits that fail although the context is sound: nobody can know what the device still does, so what it may touch is
/// kept until the reset.
#[test]
fn every_wait() {
    let failures = "cuEventQuery:1+:2,cuStreamSynchronize:1+:2,cuCtxSynchronize:1:2";
    let fake = FakeCuda::new().delay_us(20_000).fail(failures);
    let report = fake.run("faults::every_wait", || {
        let device = device();
        let transfers = Transfers::start(&device, settings(0, NEVER)).unwrap();
        let session = Session::new(BYTES, 0);
        let key = transfers.registry().register(session.memory.request());
        transfers.registry().settle();
        let mut slot = BatchSlot::new(&transfers, spec(BYTES, 1)).unwrap();
        let mut run = slot.begin().unwrap();
        run.gather(0, &[session.payload()]).unwrap();
        assert!(!run.finish().unwrap_err().is_sticky());
        assert!(device.is_lost(), "as good as lost");
        let flag = Flag::default();
        transfers.registry().retire(key, (flag.clone(), session));
        transfers.registry().settle();
        assert_eq!(flag.copies(), 2, "kept");
        device.reset(device.generation()).unwrap();
        transfers.registry().settle();
        assert_eq!(flag.copies(), 1);
    });
    report.assert_clean();
}

/// What an engine has enqueued before it fails does not reach into the next batch.
#[test]
fn an_engine_that_fails_midway() {
    let test = "faults::an_engine_that_fails_midway";
    let report = FakeCuda::new().delay_us(5_000).run_anywhere(test, || {
        let transfers = Transfers::start(&device(), settings(0, NEVER)).unwrap();
        let mut slot = BatchSlot::new(&transfers, spec(BYTES, 1)).unwrap();
        let mut engine = Lane::new(transfers.device(), 8).unwrap();
        let mut sessions = sessions(1, BYTES);
        register_all(&transfers, &sessions);
        let mut run = slot.begin().unwrap();
        let failed: Result<(), CudaError> = run.compute_in(&mut engine, |lane, inputs, _| {
            for _ in 0..40 {
                lane.clear_range(&inputs[0], 0, BYTES)?;
            }
            Err(CudaError::Arguments {
                reason: "an engine that fails".to_owned(),
            })
        });
        assert!(failed.is_err());
        drop(run);
        // What is left of it would come between gather and copy here: those lie further apart than two of its steps.
        let mut run = slot.begin().unwrap();
        run.gather(0, &[sessions[0].payload()]).unwrap();
        let mut other = Lane::new(transfers.device(), 8).unwrap();
        run.compute_in(&mut other, |lane, inputs, outputs| {
            for _ in 0..3 {
                lane.clear_range(&outputs[0], 0, BYTES)?;
            }
            lane.copy_on_device((&outputs[0], 0), (&inputs[0], 0), BYTES)
        })
        .unwrap();
        run.scatter(0, [sessions[0].room()]).unwrap();
        run.finish().unwrap();
        other.settle().unwrap();
        assert_answers(&sessions);
    });
    if let Some(report) = report {
        report.assert_clean();
    }
}

#[test]
fn a_lane_that_is_dropped_waits() {
    let test = "faults::a_lane_that_is_dropped_waits";
    // The machine's own driver may be done with it before anybody looks.
    let report = FakeCuda::new().delay_us(20_000).run(test, || {
        let device = device();
        let buffer = DeviceBuffer::new(&device, BYTES).unwrap();
        let mut lane = Lane::new(&device, 8).unwrap();
        lane.clear_range(&buffer, 0, BYTES).unwrap();
        assert!(!lane.is_settled().unwrap());
        drop(lane);
        let mut lane = Lane::new(&device, 8).unwrap();
        lane.clear_range(&buffer, 0, BYTES).unwrap();
        lane.settle().unwrap();
        assert!(lane.is_settled().unwrap());
        assert!(matches!(
            lane.clear_range(&buffer, 1, BYTES),
            Err(CudaError::OutOfRange { .. })
        ));
    });
    report.assert_clean();
}

/// Registrations end with their context, so a second device stages while the registry's own is lost.
#[test]
fn a_second_device_while_the_registry_of_the_first_is_lost() {
    let fake = FakeCuda::new()
        .set("FAKE_CUDA_DEVICES", 2)
        .fail("exec.copy:2:700");
    let report = fake.run(
        "faults::a_second_device_while_the_registry_of_the_first_is_lost",
        || {
            let driver = Driver::find().unwrap();
            let (first, second) = (driver.device(0).unwrap(), driver.device(1).unwrap());
            let transfers = Transfers::start(&first, settings(0, NEVER)).unwrap();
            let registry = transfers.registry().clone();
            let others = Transfers::with_registry(&second, registry, settings(0, NEVER)).unwrap();
            let mut sessions = sessions(1, BYTES);
            register_all(&transfers, &sessions);
            let mut slot = BatchSlot::new(&transfers, spec(BYTES, 1)).unwrap();
            let mut engine = Lane::new(&first, 8).unwrap();
            assert!(
                run_identity(&mut slot, &mut engine, &mut sessions)
                    .unwrap_err()
                    .is_sticky()
            );
            assert!(first.is_lost() && !second.is_lost());
            let mut slot = BatchSlot::new(&others, spec(BYTES, 1)).unwrap();
            let mut engine = Lane::new(&second, 8).unwrap();
            run_identity(&mut slot, &mut engine, &mut sessions).unwrap();
            engine.settle().unwrap();
            assert_answers(&sessions);
            assert_eq!(second.counters().to_device.get(Path::Staged), BYTES as u64);
            first.reset(first.generation()).unwrap();
            transfers.registry().rebuild();
            transfers.registry().settle();
            run_identity(&mut slot, &mut engine, &mut sessions).unwrap();
            engine.settle().unwrap();
            assert_eq!(second.counters().to_device.get(Path::Direct), BYTES as u64);
        },
    );
    report.assert_clean();
}

/// A failure that spoils the context, while copies over sessions' memory go on: sessions die, nothing is unmapped
/// before the reset; afterwards everything works again.
fn lost_and_found(test: &str, failure: &str) {
    let report = FakeCuda::new().delay_us(5_000).fail(failure).run(test, || {
        let device = device();
        let transfers = Transfers::start(&device, settings(0, NEVER)).unwrap();
        let mut slot = BatchSlot::new(&transfers, spec(COUNT * BYTES, COUNT)).unwrap();
        let mut engine = Lane::new(&device, 8).unwrap();
        let mut doomed = sessions(COUNT, BYTES);
        let keys = register_all(&transfers, &doomed);
        let bystander = Session::new(BYTES, 0);
        let bystander_key = transfers.registry().register(bystander.memory.request());
        transfers.registry().settle();
        let error = run_identity(&mut slot, &mut engine, &mut doomed).unwrap_err();
        assert!(error.is_sticky(), "{error}");
        assert!(device.is_lost());
        // Everything is refused now, and says why.
        assert_eq!(
            slot.begin().unwrap_err(),
            CudaError::ContextLost { device: 0 }
        );
        assert!(BatchSlot::new(&transfers, spec(1, 1)).is_err());
        // The clients go while the engine copies on: their regions stay mapped until the reset, and so does that of
        // one that was in no batch.
        let survivors = doomed.split_off(COUNT / 2);
        let (first, second) = (Flag::default(), Flag::default());
        for key in &keys[..COUNT] {
            transfers.registry().retire(*key, first.clone());
        }
        transfers
            .registry()
            .retire(bystander_key, (second.clone(), bystander));
        drop(doomed);
        transfers.registry().settle();
        assert!(device.quarantined() > 0);
        assert!(
            first.copies() > 1 && second.copies() == 2,
            "owners are kept"
        );
        let generation = device.generation();
        assert_eq!(device.reset(generation).unwrap(), generation + 1);
        assert!(!device.is_lost());
        assert_eq!(second.copies(), 1, "the reset lets go of what no lane held");
        // A second one who saw the same loss resets nothing.
        assert_eq!(device.reset(generation).unwrap(), generation + 1);
        assert_eq!(
            slot.begin().unwrap_err(),
            CudaError::ContextGone {
                device: 0,
                generation
            }
        );
        drop((slot, engine));
        transfers.registry().settle();
        assert_eq!(first.copies(), 1, "and of what lanes held");
        let registry = transfers.registry().clone();
        registry.rebuild();
        registry.settle();
        for key in &keys[COUNT..] {
            assert_eq!(registry.state(*key), Some(RegionState::Registered));
        }
        let transfers = Transfers::with_registry(&device, registry, settings(0, NEVER)).unwrap();
        let mut slot = BatchSlot::new(&transfers, spec(COUNT * BYTES, COUNT)).unwrap();
        let mut engine = Lane::new(&device, 8).unwrap();
        let mut sessions = sessions(COUNT / 2, BYTES);
        register_all(&transfers, &sessions);
        run_identity(&mut slot, &mut engine, &mut sessions).unwrap();
        engine.settle().unwrap();
        assert_answers(&sessions);
        drop(survivors);
    });
    report.assert_clean();
    assert_eq!(report.resets, 1);
}

/// What a server does: one call, and batches of sessions that were there before are direct again.
#[test]
fn a_device_is_rebuilt_with_the_registrations_that_it_had() {
    let test = "faults::a_device_is_rebuilt_with_the_registrations_that_it_had";
    let report = FakeCuda::new().fail("exec.copy:2:214").run(test, || {
        let lost = Transfers::start(&device(), settings(0, NEVER)).unwrap();
        let mut sessions = sessions(COUNT, BYTES);
        let keys = register_all(&lost, &sessions);
        let mut slot = BatchSlot::new(&lost, spec(COUNT * BYTES, COUNT)).unwrap();
        let mut engine = Lane::new(lost.device(), 8).unwrap();
        assert!(
            run_identity(&mut slot, &mut engine, &mut sessions)
                .unwrap_err()
                .is_sticky()
        );
        drop((slot, engine));
        let transfers = lost.rebuild().unwrap();
        assert!(!transfers.device().is_lost());
        assert_eq!(transfers.thresholds(), lost.thresholds());
        transfers.registry().settle();
        for key in keys {
            let state = transfers.registry().state(key);
            assert_eq!(state, Some(RegionState::Registered));
        }
        let mut slot = BatchSlot::new(&transfers, spec(COUNT * BYTES, COUNT)).unwrap();
        let mut engine = Lane::new(transfers.device(), 8).unwrap();
        let counters = transfers.device().counters();
        let before = counters.to_device.get(Path::Direct);
        run_identity(&mut slot, &mut engine, &mut sessions).unwrap();
        engine.settle().unwrap();
        assert_answers(&sessions);
        let direct = counters.to_device.get(Path::Direct) - before;
        assert_eq!(direct, (COUNT * BYTES) as u64);
        assert_eq!(counters.to_device.by_processor(), 0);
    });
    report.assert_clean();
    assert_eq!(report.resets, 1);
}

#[test]
fn an_illegal_address_in_the_third_copy() {
    lost_and_found(
        "faults::an_illegal_address_in_the_third_copy",
        "exec.copy:3:700",
    );
}

#[test]
fn a_call_that_finds_the_device_gone() {
    lost_and_found(
        "faults::a_call_that_finds_the_device_gone",
        "cuMemcpyHtoDAsync_v2:6:719",
    );
}

#[test]
fn what_was_made_before_a_reset_is_refused_with_what_was_made_after_it() {
    let test = "faults::what_was_made_before_a_reset_is_refused_with_what_was_made_after_it";
    let report = FakeCuda::new().run(test, || {
        let device = device();
        let old = Transfers::start(&device, settings(NEVER, NEVER)).unwrap();
        let old_buffer = DeviceBuffer::new(&device, BYTES).unwrap();
        let old_event = Event::new(&device).unwrap();
        device.reset(device.generation()).unwrap();
        let gone = CudaError::ContextGone {
            device: 0,
            generation: 1,
        };
        // Its kernels are gone, so the driver would get their stale handles.
        assert_eq!(BatchSlot::new(&old, spec(BYTES, 1)).unwrap_err(), gone);
        let mut lane = Lane::new(&device, 8).unwrap();
        let buffer = DeviceBuffer::new(&device, BYTES).unwrap();
        assert_eq!(lane.stream().wait(&old_event).unwrap_err(), gone);
        assert_eq!(lane.stream().record(&old_event).unwrap_err(), gone);
        assert_eq!(lane.clear_range(&old_buffer, 0, BYTES).unwrap_err(), gone);
        let copied = lane.copy_on_device((&buffer, 0), (&old_buffer, 0), BYTES);
        assert_eq!(copied.unwrap_err(), gone);
        lane.clear_range(&buffer, 0, BYTES).unwrap();
        lane.settle().unwrap();
    });
    report.assert_clean();
}

#[test]
fn a_device_that_does_not_come_back() {
    let failures = "exec.copy:1:700,cuDevicePrimaryCtxRetain:2:999";
    let report =
        FakeCuda::new()
            .fail(failures)
            .run("faults::a_device_that_does_not_come_back", || {
                let device = device();
                let transfers = Transfers::start(&device, settings(0, NEVER)).unwrap();
                let mut slot = BatchSlot::new(&transfers, spec(BYTES, 1)).unwrap();
                let mut engine = Lane::new(&device, 8).unwrap();
                let mut sessions = vec![Session::new(BYTES, 0)];
                register_all(&transfers, &sessions);
                assert!(
                    run_identity(&mut slot, &mut engine, &mut sessions)
                        .unwrap_err()
                        .is_sticky()
                );
                let generation = device.generation();
                let error = device.reset(generation).unwrap_err();
                assert!(
                    matches!(error, CudaError::NotRecovered { device: 0, .. }),
                    "{error}"
                );
                assert!(device.is_lost());
                // Tried again, it comes back.
                assert_eq!(device.reset(generation).unwrap(), generation + 1);
            });
    report.assert_clean();
}
