//! Whole batches as one graph.

use adjoin_cuda::{BatchGraph, BatchSlot, CudaError, Path};
use adjoin_shm::Payload;
use fake_cuda::harness::{FakeCuda, counts};

use crate::fixture::{SETTINGS, Session, content, register_all, sessions, spec, transfers};

const BYTES: usize = 40_000;

/// A batch of a model that gives back what it gets.
fn capture_identity(slot: &mut BatchSlot) -> BatchGraph {
    let byte_size = slot.spec().inputs[0];
    slot.capture::<CudaError>(&[], |lane, inputs, outputs| {
        lane.copy_on_device((&outputs[0], 0), (&inputs[0], 0), byte_size)
    })
    .unwrap()
}

#[test]
fn one_graph_serves_batches_from_other_places() {
    let test = "graphs::one_graph_serves_batches_from_other_places";
    let batches = [0..3, 3..6, 1..3, 5..6, 2..6];
    let report = FakeCuda::new().delay_us("0-200").run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        // The last two are staged.
        let mut sessions = sessions(6, BYTES);
        register_all(&transfers, &sessions[..4]);
        let mut slot = BatchSlot::new(&transfers, spec(4 * BYTES, 4)).unwrap();
        let graph = capture_identity(&mut slot);
        for batch in batches.clone() {
            for session in &mut sessions {
                session.output.write(&[0xEE; BYTES]);
            }
            let chosen = &mut sessions[batch.clone()];
            let mut run = slot.begin().unwrap();
            let pieces: Vec<Payload<'_>> = chosen.iter().map(Session::payload).collect();
            run.place_input(0, &pieces).unwrap();
            drop(pieces);
            run.place_output(0, chosen.iter_mut().map(Session::room))
                .unwrap();
            run.replay(&graph).unwrap();
            run.finish().unwrap();
            for (seed, session) in sessions.iter().enumerate() {
                let expected = if batch.contains(&seed) {
                    content(BYTES, seed)
                } else {
                    vec![0xEE; BYTES]
                };
                assert!(
                    session.answer() == expected,
                    "session {seed} in the batch of {batch:?}"
                );
            }
        }
        let staged = 5 * BYTES as u64;
        assert_eq!(
            transfers.device().counters().to_device.get(Path::Staged),
            staged
        );
        assert_eq!(
            transfers.device().counters().to_host.get(Path::Staged),
            staged
        );
    });
    if let Some(report) = report {
        report.assert_clean();
        assert_eq!(report.graph_launches, batches.len() as u64);
        assert_eq!(report.pageable(), 0);
    }
}

#[test]
fn a_graph_runs_where_it_belongs_and_when_all_is_placed() {
    let test = "graphs::a_graph_runs_where_it_belongs_and_when_all_is_placed";
    let report = FakeCuda::new().run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        let mut session = Session::new(BYTES, 0);
        register_all(&transfers, std::slice::from_ref(&session));
        let mut slot = BatchSlot::new(&transfers, spec(BYTES, 1)).unwrap();
        let mut other = BatchSlot::new(&transfers, spec(BYTES, 1)).unwrap();
        let graph = capture_identity(&mut slot);
        let reason = |error: CudaError| error.to_string();
        let mut run = other.begin().unwrap();
        assert!(reason(run.replay(&graph).unwrap_err()).contains("another slot"));
        drop(run);
        let mut run = slot.begin().unwrap();
        assert!(reason(run.replay(&graph).unwrap_err()).contains("input 0"));
        run.place_input(0, &[session.payload()]).unwrap();
        assert!(reason(run.replay(&graph).unwrap_err()).contains("output 0"));
        run.place_output(0, [session.room()]).unwrap();
        run.replay(&graph).unwrap();
        // The graph may be reading the table now.
        let twice = run
            .place_input(0, &[Payload::from_slice(&[0])])
            .unwrap_err();
        assert!(reason(twice).contains("twice"));
        run.finish().unwrap();
        // What was placed for one batch is not for the next.
        let mut run = slot.begin().unwrap();
        assert!(reason(run.replay(&graph).unwrap_err()).contains("input 0"));
        drop(run);
        assert!(session.answer() == content(BYTES, 0));
    });
    if let Some(report) = report {
        report.assert_clean();
    }
}

#[test]
fn an_engine_that_fails_in_a_capture_leaves_a_good_lane() {
    let test = "graphs::an_engine_that_fails_in_a_capture_leaves_a_good_lane";
    let report = FakeCuda::new().run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        let mut slot = BatchSlot::new(&transfers, spec(BYTES, 1)).unwrap();
        let failed = slot.capture(&[], |_, _, _| {
            Err(CudaError::Arguments {
                reason: "an engine that fails".to_owned(),
            })
        });
        assert!(matches!(failed, Err(CudaError::Arguments { .. })));
        // What may not be captured makes the capture fail, not the process.
        let refused = slot.capture(&[], |lane, _, _| lane.stream().synchronize());
        assert!(refused.is_err());
        slot.begin().unwrap().finish().unwrap();
        let graph = capture_identity(&mut slot);
        drop(slot);
        drop(graph);
    });
    if let Some(report) = report {
        report.assert_clean();
    }
}

#[test]
fn a_capture_whose_end_fails_leaves_a_good_lane() {
    let test = "graphs::a_capture_whose_end_fails_leaves_a_good_lane";
    let fake = FakeCuda::new().fail("cuStreamEndCapture:1:2");
    let report = fake.run(test, || {
        let transfers = transfers(SETTINGS);
        let mut slot = BatchSlot::new(&transfers, spec(BYTES, 1)).unwrap();
        let failed: Result<_, CudaError> = slot.capture(&[], |_, _, _| Ok(()));
        assert!(failed.unwrap_err().is_out_of_memory());
        slot.begin().unwrap().finish().unwrap();
        let graph = capture_identity(&mut slot);
        drop(slot);
        drop(graph);
    });
    report.assert_clean();
}

#[test]
fn a_graph_outlives_its_slot_in_memory_only() {
    let test = "graphs::a_graph_outlives_its_slot_in_memory_only";
    let report = FakeCuda::new().run(test, || {
        let transfers = transfers(SETTINGS);
        let mut slot = BatchSlot::new(&transfers, spec(BYTES, 1)).unwrap();
        let graph = capture_identity(&mut slot);
        drop(slot);
        assert!(
            counts().device_allocations_live >= 2,
            "buffers that the graph works on are kept"
        );
        drop(graph);
        assert_eq!(counts().device_allocations_live, 0);
    });
    report.assert_clean();
}
