//! Whole batches as one graph.

use adjoin_cuda::{BatchSlot, CudaError, Graph, Lane, Stream};
use adjoin_shm::Payload;
use fake_cuda::harness::{FakeCuda, counts};

use crate::fixture::{SETTINGS, Session, content, register_all, sessions, spec, transfers};

const BYTES: usize = 40_000;

/// A batch in which output and input are one buffer on the device would be no test: the output is filled by a copy that is
/// captured in the slot's own lane.
fn capture_identity(slot: &mut BatchSlot) -> Graph {
    slot.capture::<CudaError>(|_: &Stream, _, _| Ok(()))
        .unwrap()
}

#[test]
fn one_graph_serves_batches_from_other_places() {
    let test = "graphs::one_graph_serves_batches_from_other_places";
    let report = FakeCuda::new().delay_us("0-200").run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        let mut sessions = sessions(6, BYTES);
        // The last one is staged.
        register_all(&transfers, &sessions[..5]);
        let mut slot = BatchSlot::new(&transfers, spec(4 * BYTES, 4)).unwrap();
        let graph = capture_identity(&mut slot);
        let mut engine = Lane::new(transfers.device(), 8).unwrap();
        for chosen in [[0, 1, 2], [3, 1, 5], [5, 4, 0]] {
            // What the graph scatters is what the output holds from here on.
            engine
                .clear_range(slot.output(0).unwrap(), 0, 3 * BYTES)
                .unwrap();
            engine.settle().unwrap();
            let inputs: Vec<Vec<u8>> = chosen.iter().map(|&at| content(BYTES, at)).collect();
            let mut rooms = Vec::new();
            for (at, session) in sessions.iter_mut().enumerate() {
                if let Some(place) = chosen.iter().position(|&wanted| wanted == at) {
                    rooms.push((place, session));
                }
            }
            rooms.sort_by_key(|(place, _)| *place);
            let (pieces, outputs): (Vec<_>, Vec<_>) = rooms
                .into_iter()
                .map(|(_, session)| {
                    let Session { output, .. } = session;
                    (output.byte_size(), output.payload_mut())
                })
                .unzip();
            assert_eq!(pieces, vec![BYTES as u64; 3]);
            let payloads: Vec<Payload<'_>> = inputs
                .iter()
                .map(|bytes| Payload::from_slice(bytes))
                .collect();
            let mut run = slot.begin().unwrap();
            run.replay(&graph, [payloads.as_slice()], [outputs])
                .unwrap();
            run.finish().unwrap();
            for at in chosen {
                assert!(sessions[at].answer() == vec![0; BYTES], "session {at}");
            }
        }
        assert!(slot.spec().pieces_max == 4);
    });
    if let Some(report) = report {
        report.assert_clean();
        assert_eq!(report.graph_launches, 3);
        assert_eq!(report.pageable(), 0);
    }
}

#[test]
fn an_engine_that_fails_in_a_capture_leaves_a_good_lane() {
    let test = "graphs::an_engine_that_fails_in_a_capture_leaves_a_good_lane";
    let report = FakeCuda::new().run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        let mut slot = BatchSlot::new(&transfers, spec(BYTES, 1)).unwrap();
        let failed = slot.capture(|_, _, _| {
            Err(CudaError::Arguments {
                reason: "an engine that fails".to_owned(),
            })
        });
        assert!(matches!(failed, Err(CudaError::Arguments { .. })));
        // What may not be captured makes the capture fail, not the process.
        let refused = slot.capture(|stream, _, _| stream.synchronize());
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
