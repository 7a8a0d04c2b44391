//! Regions that are registered, refused, retired, and used meanwhile.

use adjoin_cuda::{BatchSlot, Lane, Path, Refusal, RegionState, Registry};
use fake_cuda::harness::{FakeCuda, counts};

use crate::fixture::{
    Flag, SETTINGS, Session, assert_answers, device, register_all, run_identity, sessions, spec,
    transfers,
};

const BYTES: usize = 64 << 10;

#[test]
fn a_region_retired_during_a_transfer_stays_until_its_end() {
    let test = "registry::a_region_retired_during_a_transfer_stays_until_its_end";
    let report = FakeCuda::new().delay_us(50_000).run(test, || {
        let transfers = transfers(SETTINGS);
        let session = Session::new(BYTES, 3);
        let key = transfers.registry().register(session.memory.request());
        transfers.registry().settle();
        let mut slot = BatchSlot::new(&transfers, spec(BYTES, 1)).unwrap();
        let mut run = slot.begin().unwrap();
        run.gather(0, &[session.payload()]).unwrap();
        // The client dies: the session's memory goes with it, but for the mapping that the device reads.
        let flag = Flag::default();
        let owner = (flag.clone(), session);
        transfers.registry().retire(key, owner);
        transfers.registry().settle();
        assert_eq!(flag.copies(), 2, "the owner is kept while the device reads");
        assert_eq!(counts().registrations_live, 1);
        assert_eq!(transfers.registry().stats().retired, 1);
        assert_eq!(transfers.registry().state(key), None);
        run.finish().unwrap();
        transfers.registry().settle();
        assert_eq!(flag.copies(), 1, "and goes when it has read");
        assert_eq!(counts().registrations_live, 0);
        assert_eq!(transfers.registry().stats().registered_bytes, 0);
    });
    report.assert_clean();
}

#[test]
fn a_run_that_is_given_up_waits_before_it_lets_go() {
    let test = "registry::a_run_that_is_given_up_waits_before_it_lets_go";
    let report = FakeCuda::new().delay_us(20_000).run(test, || {
        let transfers = transfers(SETTINGS);
        let session = Session::new(BYTES, 3);
        let key = transfers.registry().register(session.memory.request());
        transfers.registry().settle();
        let mut slot = BatchSlot::new(&transfers, spec(BYTES, 1)).unwrap();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut run = slot.begin().unwrap();
            run.gather(0, &[session.payload()]).unwrap();
            panic!("an engine that panics");
        }));
        assert!(outcome.is_err());
        // Unregistered and unmapped at once now: the fake driver finds out if a copy is still under way.
        transfers.registry().retire(key, session);
        transfers.registry().settle();
        assert_eq!(counts().to_device_registered, BYTES as u64);
    });
    report.assert_clean();
}

#[test]
fn what_exceeds_the_budget_is_staged_until_there_is_room() {
    let test = "registry::what_exceeds_the_budget_is_staged_until_there_is_room";
    let report = FakeCuda::new().run_anywhere(test, || {
        let mut sessions = sessions(3, BYTES);
        let region_bytes = sessions[0].memory.request().byte_size();
        let transfers = transfers(adjoin_cuda::TransferSettings {
            registered_bytes: 2 * region_bytes,
            ..SETTINGS
        });
        let registry = transfers.registry();
        let keys: Vec<_> = sessions
            .iter()
            .map(|session| registry.register(session.memory.request()))
            .collect();
        registry.settle();
        assert_eq!(registry.state(keys[1]), Some(RegionState::Registered));
        let refused = RegionState::Refused(Refusal::Budget {
            wanted: region_bytes,
            left: 0,
            limit: 2 * region_bytes,
        });
        assert_eq!(registry.state(keys[2]), Some(refused));
        let mut slot = BatchSlot::new(&transfers, spec(3 * BYTES, 3)).unwrap();
        let mut engine = Lane::new(transfers.device(), 8).unwrap();
        run_identity(&mut slot, &mut engine, &mut sessions).unwrap();
        engine.settle().unwrap();
        assert_answers(&sessions);
        let counters = transfers.device().counters();
        assert_eq!(counters.to_device.get(Path::Staged), BYTES as u64);
        // One leaves, and the third gets its room.
        registry.retire(keys[0], ());
        registry.settle();
        // The release was queued by the end of the retirement, and is done with what it queues.
        registry.settle();
        assert_eq!(registry.state(keys[2]), Some(RegionState::Registered));
        assert_eq!(registry.stats().registered_bytes, 2 * region_bytes);
    });
    if let Some(report) = report {
        report.assert_clean();
    }
}

#[test]
fn a_refusal_of_the_driver_is_told_and_the_region_is_staged() {
    let test = "registry::a_refusal_of_the_driver_is_told_and_the_region_is_staged";
    let report = FakeCuda::new()
        .fail("cuMemHostRegister_v2:2:2")
        .run(test, || {
            let transfers = transfers(SETTINGS);
            let mut sessions = sessions(2, BYTES);
            let registry = transfers.registry();
            let keys: Vec<_> = sessions
                .iter()
                .map(|session| registry.register(session.memory.request()))
                .collect();
            registry.settle();
            let Some(RegionState::Refused(Refusal::Driver(error))) = registry.state(keys[1]) else {
                panic!("{:?}", registry.state(keys[1]));
            };
            assert!(error.is_out_of_memory(), "{error}");
            assert!(
                error.to_string().contains("CUDA_ERROR_OUT_OF_MEMORY"),
                "{error}"
            );
            let mut slot = BatchSlot::new(&transfers, spec(2 * BYTES, 2)).unwrap();
            let mut engine = Lane::new(transfers.device(), 8).unwrap();
            run_identity(&mut slot, &mut engine, &mut sessions).unwrap();
            engine.settle().unwrap();
            assert_answers(&sessions);
            let stats = registry.stats();
            assert_eq!((stats.registered, stats.refused), (1, 1));
            assert_eq!(
                stats.registered_bytes,
                sessions[0].memory.request().byte_size()
            );
        });
    report.assert_clean();
}

#[test]
fn sessions_come_and_go_while_batches_run() {
    let test = "registry::sessions_come_and_go_while_batches_run";
    let report = FakeCuda::new().delay_us("0-200").run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for seed in 0..60 {
                    let session = Session::new(BYTES, seed);
                    let keys = session.register(transfers.registry());
                    for key in keys {
                        transfers.registry().retire(key, ());
                    }
                    drop(session);
                }
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut slot = BatchSlot::new(&transfers, spec(2 * BYTES, 2)).unwrap();
                    let mut engine = Lane::new(transfers.device(), 8).unwrap();
                    for _ in 0..20 {
                        // Registered or not yet: either way it is answered.
                        let mut sessions = sessions(2, BYTES);
                        let keys: Vec<_> = sessions
                            .iter()
                            .flat_map(|session| session.register(transfers.registry()))
                            .collect();
                        run_identity(&mut slot, &mut engine, &mut sessions).unwrap();
                        assert_answers(&sessions);
                        for key in keys {
                            transfers.registry().retire(key, ());
                        }
                    }
                    engine.settle().unwrap();
                });
            }
        });
    });
    if let Some(report) = report {
        report.assert_clean();
    }
}

#[test]
fn a_registry_that_ends_leaves_leases_what_they_need() {
    let test = "registry::a_registry_that_ends_leaves_leases_what_they_need";
    let report = FakeCuda::new().run(test, || {
        let device = device();
        let registry = Registry::start(&device, 1 << 30).unwrap();
        let session = Session::new(BYTES, 1);
        let _ = registry.register(session.memory.request());
        registry.settle();
        let payload = session.payload();
        let lease = registry
            .lease(payload.as_ptr(), payload.byte_size())
            .unwrap();
        assert!(
            registry.lease(payload.as_ptr(), 1 << 30).is_none(),
            "longer than the region"
        );
        drop(registry);
        assert_eq!(counts().registrations_live, 1);
        drop(lease);
        assert_eq!(counts().registrations_live, 0);
    });
    report.assert_clean();
}

#[test]
fn all_regions_at_once() {
    // 64 registrations, each found by its own address.
    let report = FakeCuda::new().run_anywhere("registry::all_regions_at_once", || {
        let transfers = transfers(SETTINGS);
        let sessions = sessions(32, BYTES);
        register_all(&transfers, &sessions);
        for session in &sessions {
            let payload = session.payload();
            let lease = transfers
                .registry()
                .lease(payload.as_ptr(), payload.byte_size());
            assert!(lease.is_some());
        }
        let elsewhere = [0_u8; 16];
        assert!(transfers.registry().lease(elsewhere.as_ptr(), 16).is_none());
    });
    if let Some(report) = report {
        report.assert_clean();
    }
}
