//! Batches gathered from the regions of many sessions, and scattered to them.

use adjoin_cuda::{BatchSlot, BatchSlots, CopyForm, CudaError, Lane, Path, Thresholds};
use adjoin_shm::Region;
use fake_cuda::harness::{FakeCuda, counts};

use crate::fixture::{
    SETTINGS, Session, assert_answers, device, register_all, run_identity, sessions, settings,
    spec, transfers,
};

/// 32 requests of an image each: 224 x 224 x 3 bytes.
const COUNT: usize = 32;
const IMAGE: usize = 150_528;

/// Any time an operation may take: a copy that did not wait for what it needs would come too early.
const ANY_DELAY: &str = "0-300";

fn one_form(test: &str, form: CopyForm, kernel_below: usize, batched_from: usize) {
    let report = FakeCuda::new().delay_us(ANY_DELAY).run_anywhere(test, || {
        let transfers = transfers(settings(kernel_below, batched_from));
        let mut sessions = sessions(COUNT, IMAGE);
        register_all(&transfers, &sessions);
        let mut slot = BatchSlot::new(&transfers, spec(COUNT * IMAGE, COUNT)).unwrap();
        let mut engine = Lane::new(transfers.device(), 8).unwrap();
        run_identity(&mut slot, &mut engine, &mut sessions).unwrap();
        assert_answers(&sessions);
        engine.settle().unwrap();
        let counters = transfers.device().counters();
        let bytes = (COUNT * IMAGE) as u64;
        assert_eq!(counters.to_device.get(Path::Direct), bytes);
        assert_eq!(counters.to_host.get(Path::Direct), bytes);
        assert_eq!(
            counters.to_device.by_processor() + counters.to_host.by_processor(),
            0
        );
        assert_eq!(counters.uses(form), 2);
    });
    if let Some(report) = report {
        report.assert_clean();
        let bytes = (COUNT * IMAGE) as u64;
        assert_eq!(report.to_device_registered, bytes);
        assert_eq!(report.to_host_registered, bytes);
        // Beside the table of a kernel nothing passed through pinned or pageable memory.
        let table = if form == CopyForm::Kernel {
            0
        } else {
            report.to_device_pinned
        };
        assert_eq!(table + report.to_host_pinned + report.pageable(), 0);
    }
}

#[test]
fn by_one_copy_each() {
    one_form("gather::by_one_copy_each", CopyForm::Copies, 0, usize::MAX);
}

#[test]
fn by_one_call() {
    one_form("gather::by_one_call", CopyForm::Batched, 0, 2);
}

#[test]
fn by_a_kernel() {
    one_form(
        "gather::by_a_kernel",
        CopyForm::Kernel,
        usize::MAX,
        usize::MAX,
    );
}

#[test]
fn pieces_side_by_side_are_one_copy() {
    let test = "gather::pieces_side_by_side_are_one_copy";
    let report = FakeCuda::new().run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        let mut sessions = sessions(1, 4 * IMAGE);
        register_all(&transfers, &sessions);
        let mut slot = BatchSlot::new(&transfers, spec(4 * IMAGE, 4)).unwrap();
        let mut engine = Lane::new(transfers.device(), 8).unwrap();
        let mut run = slot.begin().unwrap();
        let whole = sessions[0].payload();
        let parts: Vec<_> = (0..4)
            .map(|part| whole.part(part * IMAGE, IMAGE).unwrap())
            .collect();
        run.gather(0, &parts).unwrap();
        run.compute_in(&mut engine, |lane, inputs, outputs| {
            lane.copy_on_device((&outputs[0], 0), (&inputs[0], 0), 4 * IMAGE)
        })
        .unwrap();
        let (first, rest) = sessions[0].room().split_at(IMAGE);
        run.scatter(0, [first, rest]).unwrap();
        run.finish().unwrap();
        engine.settle().unwrap();
        assert_answers(&sessions);
        assert_eq!(transfers.device().counters().uses(CopyForm::Contiguous), 2);
    });
    if let Some(report) = report {
        report.assert_clean();
    }
}

#[test]
fn regions_that_are_not_registered_are_staged_and_counted() {
    let test = "gather::regions_that_are_not_registered_are_staged_and_counted";
    let report = FakeCuda::new().delay_us(ANY_DELAY).run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        let mut sessions = sessions(8, IMAGE);
        // Half of them: a batch has both kinds.
        register_all(&transfers, &sessions[..4]);
        let mut slot = BatchSlot::new(&transfers, spec(8 * IMAGE, 8)).unwrap();
        let mut engine = Lane::new(transfers.device(), 8).unwrap();
        run_identity(&mut slot, &mut engine, &mut sessions).unwrap();
        engine.settle().unwrap();
        assert_answers(&sessions);
        let counters = transfers.device().counters();
        for bytes in [&counters.to_device, &counters.to_host] {
            assert_eq!(bytes.get(Path::Direct), 4 * IMAGE as u64);
            assert_eq!(bytes.get(Path::Staged), 4 * IMAGE as u64);
            assert_eq!(bytes.get(Path::Pageable), 0);
        }
    });
    if let Some(report) = report {
        report.assert_clean();
        assert_eq!(report.to_device_pinned, 4 * IMAGE as u64);
        assert_eq!(report.pageable(), 0);
    }
}

#[test]
fn without_staging_memory_the_driver_copies_and_it_is_counted() {
    let test = "gather::without_staging_memory_the_driver_copies_and_it_is_counted";
    let report = FakeCuda::new().delay_us(ANY_DELAY).run_anywhere(test, || {
        let transfers = transfers(adjoin_cuda::TransferSettings {
            staging_bytes: 0,
            ..SETTINGS
        });
        let mut sessions = sessions(4, IMAGE);
        register_all(&transfers, &sessions[..2]);
        let mut slot = BatchSlot::new(&transfers, spec(4 * IMAGE, 4)).unwrap();
        let mut engine = Lane::new(transfers.device(), 8).unwrap();
        run_identity(&mut slot, &mut engine, &mut sessions).unwrap();
        engine.settle().unwrap();
        assert_answers(&sessions);
        let counters = transfers.device().counters();
        assert_eq!(counters.to_device.get(Path::Pageable), 2 * IMAGE as u64);
        assert_eq!(counters.to_host.get(Path::Pageable), 2 * IMAGE as u64);
    });
    if let Some(report) = report {
        report.assert_clean();
        assert_eq!(report.pageable(), 4 * IMAGE as u64);
    }
}

#[test]
fn neighbours_of_two_registrations_are_two_copies() {
    let test = "gather::neighbours_of_two_registrations_are_two_copies";
    let report = FakeCuda::new().run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        let sessions = sessions(16, 4096);
        register_all(&transfers, &sessions);
        let regions = || {
            let memories = sessions.iter().map(|session| &session.memory);
            memories.flat_map(|memory| [memory.request(), memory.response()])
        };
        let whole = |region: &'_ Region| {
            let payload = region.payload(0, region.byte_size()).unwrap();
            (payload.as_ptr().addr(), payload.byte_size())
        };
        // The system puts mappings that are made one after the other side by side.
        let pairs = regions().flat_map(|first| regions().map(move |second| (first, second)));
        let touch = |(first, second): &(&Region, &Region)| {
            let (start, byte_size) = whole(first);
            start + byte_size == whole(second).0
        };
        let (first, second) = pairs.into_iter().find(touch).unwrap();
        let pieces = [
            first.payload(first.byte_size() - 1024, 1024).unwrap(),
            second.payload(0, 1024).unwrap(),
        ];
        assert!(pieces[0].is_followed_by(&pieces[1]));
        let mut slot = BatchSlot::new(&transfers, spec(2048, 2)).unwrap();
        let mut run = slot.begin().unwrap();
        run.gather(0, &pieces).unwrap();
        run.finish().unwrap();
        assert_eq!(transfers.device().counters().uses(CopyForm::Copies), 1);
    });
    if let Some(report) = report {
        report.assert_clean();
    }
}

#[test]
fn a_warm_slot_allocates_nothing() {
    let report = FakeCuda::new().run("gather::a_warm_slot_allocates_nothing", || {
        let transfers = transfers(settings(usize::MAX, usize::MAX));
        let mut sessions = sessions(8, 4096);
        // One of them is staged: its memory is had in the first batch and kept.
        register_all(&transfers, &sessions[..7]);
        let slots = BatchSlots::new(&transfers, &spec(8 * 4096, 8), 2).unwrap();
        let mut engine = Lane::new(transfers.device(), 8).unwrap();
        let mut batch = || {
            let mut slot = slots.acquire();
            run_identity(&mut slot, &mut engine, &mut sessions).unwrap();
            engine.settle().unwrap();
        };
        batch();
        batch();
        let warm = counts();
        for _ in 0..20 {
            batch();
        }
        let then = counts();
        assert_eq!(then.device_allocations, warm.device_allocations);
        assert_eq!(then.pinned_allocations, warm.pinned_allocations);
        assert_eq!(then.registrations, warm.registrations);
        assert_eq!(then.handles_live, warm.handles_live);
        assert!(
            then.kernels > warm.kernels,
            "the batches after the warm-up did run"
        );
        assert_answers(&sessions);
    });
    report.assert_clean();
}

#[test]
fn two_slots_run_at_once() {
    let report =
        FakeCuda::new()
            .delay_us(ANY_DELAY)
            .run_anywhere("gather::two_slots_run_at_once", || {
                let transfers = transfers(SETTINGS);
                let slots = BatchSlots::new(&transfers, &spec(4 * IMAGE, 4), 2).unwrap();
                std::thread::scope(|scope| {
                    for _ in 0..3 {
                        scope.spawn(|| {
                            let mut sessions = sessions(4, IMAGE);
                            let keys = register_all(&transfers, &sessions);
                            let mut engine = Lane::new(transfers.device(), 8).unwrap();
                            for _ in 0..10 {
                                let mut slot = slots.acquire();
                                run_identity(&mut slot, &mut engine, &mut sessions).unwrap();
                            }
                            engine.settle().unwrap();
                            assert_answers(&sessions);
                            for key in keys {
                                transfers.registry().retire(key, ());
                            }
                        });
                    }
                });
                transfers.registry().settle();
                assert_eq!(transfers.registry().stats().registered_bytes, 0);
            });
    if let Some(report) = report {
        report.assert_clean();
    }
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_left_under_way() {
    let test = "gather::what_does_not_fit_is_refused_and_nothing_is_left_under_way";
    let report = FakeCuda::new().delay_us(200).run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        let mut sessions = sessions(4, IMAGE);
        register_all(&transfers, &sessions);
        let mut slot = BatchSlot::new(&transfers, spec(3 * IMAGE, 3)).unwrap();
        let mut run = slot.begin().unwrap();
        let pieces: Vec<_> = sessions.iter().map(Session::payload).collect();
        let error = run.gather(0, &pieces).unwrap_err();
        assert_eq!(
            error,
            CudaError::TooManyPieces {
                pieces: 4,
                limit: 3
            }
        );
        assert!(matches!(
            run.gather(1, &pieces[..1]),
            Err(CudaError::NoSuchTensor { index: 1, .. })
        ));
        drop(pieces);
        run.gather(0, &[sessions[0].payload()]).unwrap();
        let twice = run.gather(0, &[sessions[1].payload()]).unwrap_err();
        assert_eq!(twice.to_string(), "input 0 is copied twice in one run");
        let rooms: Vec<_> = sessions.iter_mut().map(Session::room).collect();
        let error = run.scatter(0, rooms).unwrap_err();
        // Bytes or pieces: the fourth is one too many in both.
        let fits = matches!(
            error,
            CudaError::OutOfRange { .. } | CudaError::TooManyPieces { .. }
        );
        assert!(fits, "{error}");
        drop(run);
        // The slot is as good as before.
        let mut engine = Lane::new(transfers.device(), 8).unwrap();
        run_identity(&mut slot, &mut engine, &mut sessions[..3]).unwrap();
        engine.settle().unwrap();
        assert_answers(&sessions[..3]);
    });
    if let Some(report) = report {
        report.assert_clean();
    }
}

#[test]
fn thresholds_are_measured() {
    let report = FakeCuda::new().run_anywhere("gather::thresholds_are_measured", || {
        let device = device();
        let kernels = adjoin_cuda::Kernels::load(&device).unwrap();
        let thresholds = Thresholds::measure(&device, &kernels).unwrap();
        // Times are the machine's own: what can be said is that a form comes out for anything.
        let form = thresholds.choose(1, 4096, true);
        assert_eq!(form, CopyForm::Contiguous);
        assert!(thresholds.batched_from_pieces >= 2);
    });
    if let Some(report) = report {
        report.assert_clean();
        assert!(report.kernels > 0 && report.batched_calls > 0);
    }
}
