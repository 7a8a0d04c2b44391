//! Answers, and who copied the bytes for them: the server's own metric, and what the driver has seen.

use adjoin_tests::gpu::GpuSetup;
use adjoin_tests::process::ClientProcess;
use adjoin_tests::wait_for;
use fake_cuda::harness::FakeCuda;

use crate::clients::{by_grpc, by_http, expected, request, run};
use crate::{WIDE, affine, wide};

const SESSIONS: u64 = 3;
const TURNS: u64 = 5;
const ROWS: u64 = 2;

#[test]
fn no_processor_copies_what_sessions_send_and_get() {
    let server = GpuSetup::new(FakeCuda::new().delay_us("0-300"), &["add"])
        .plan("affine", affine(), "max_batch_size: 8")
        .plan("wide", wide(), "max_batch_size: 4")
        .start();
    let (columns, rows, turns) = (WIDE.to_string(), ROWS.to_string(), TURNS.to_string());
    // Half of them run batches that are copied by the copy engine, the others such as are captured as graphs.
    let wide = [
        "plan",
        "wide",
        columns.as_str(),
        rows.as_str(),
        turns.as_str(),
    ];
    let small = ["plan", "affine", "4", rows.as_str(), turns.as_str()];
    let start = |_| [wide, small].map(|arguments| ClientProcess::start(&server, &arguments));
    let mut processes: Vec<_> = (0..SESSIONS).flat_map(start).collect();
    for process in &mut processes {
        assert_eq!(process.line(), "open");
    }
    server.wait_for_regions(2 * SESSIONS);
    // Warm-up ran in memory of the server's own.
    let before = ["to_device", "to_host"].map(|way| server.bytes(way, "direct"));
    let staged = ["to_device", "to_host"].map(|way| server.bytes(way, "staged"));
    assert_eq!(before, [0, 0]);
    for process in &mut processes {
        process.go();
    }
    for process in &mut processes {
        for _ in 0..TURNS {
            assert_eq!(process.line(), "ok");
        }
        assert_eq!(process.line(), "done");
    }
    let bytes = SESSIONS * TURNS * ROWS * (WIDE + 4) * 4;
    let direct = ["to_device", "to_host"].map(|way| server.bytes(way, "direct"));
    assert_eq!(direct, [bytes, bytes], "each byte once, each way");
    let after = ["to_device", "to_host"].map(|way| server.bytes(way, "staged"));
    assert_eq!(after, staged, "none by a processor");
    // Nor by the batcher.
    for model in ["affine", "wide"] {
        let counted = server.control().statistics(model);
        assert_eq!(counted.request_count, SESSIONS * TURNS, "{counted:?}");
        assert_eq!(counted.gathered_bytes + counted.scattered_bytes, 0);
        assert_eq!(counted.engine_copied_bytes + counted.copied_first_bytes, 0);
    }
    assert_eq!(server.bytes("to_device", "pageable"), 0);
    drop(processes);
    wait_for("the device lets go of the regions", || {
        (server.regions("registered") + server.regions("retired") == 0).then_some(())
    });
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
    assert_eq!((report.pageable(), report.pending), (0, 0));
    let seen = [report.to_device_registered, report.to_host_registered];
    assert_eq!(seen, [bytes, bytes], "as the driver has seen it");
    assert_eq!(report.registrations, 4 * SESSIONS);
    assert_eq!(report.registrations_live, 0);
}

#[test]
fn requests_in_messages_are_answered_beside_those_of_sessions_and_their_bytes_are_counted_as_staged()
 {
    let server = GpuSetup::new(FakeCuda::new(), &["add"])
        .plan("affine", affine(), "max_batch_size: 8")
        .start();
    let client = server.client();
    server.wait_for_regions(1);
    let mut prepared = request(&client, "affine", 1);
    let staged = || ["to_device", "to_host"].map(|way| server.bytes(way, "staged"));
    let before = staged();
    for turn in 0..4_u8 {
        let base = f32::from(turn);
        run(&mut prepared, base).unwrap();
        assert_eq!(
            by_grpc(&server, "affine", base + 100.0).unwrap(),
            expected(base + 100.0)
        );
        let (status, body) = by_http(&server, "affine", base + 200.0);
        assert_eq!(
            (status, &body["outputs"][0]["shape"]),
            (200, &serde_json::json!([1, 4]))
        );
        let data: Vec<f32> = serde_json::from_value(body["outputs"][0]["data"].clone()).unwrap();
        assert_eq!(data, expected(base + 200.0));
    }
    let bytes = 4 * 2 * 16;
    let after = staged();
    assert_eq!([after[0] - before[0], after[1] - before[1]], [bytes, bytes]);
    assert_eq!(server.bytes("to_device", "direct"), 4 * 16);
    // A model on the processor beside them.
    let add = client.model("add").unwrap();
    let mut sum = adjoin_tests::add_request(&add, 1);
    sum.input_mut::<f32>("a").unwrap().fill(1.5);
    sum.input_mut::<f32>("b").unwrap().fill(2.0);
    assert_eq!(sum.infer().unwrap().get::<f32>("sum").unwrap(), [3.5; 4]);
    let report = server.end();
    assert_eq!(
        (report.violations.len(), report.pageable()),
        (0, 0),
        "{report:#?}"
    );
}

#[test]
fn what_cannot_be_registered_is_staged_and_counted_and_answered_all_the_same() {
    // Refused by the driver, and out of memory at the second one: two reasons, one outcome.
    for failure in ["cuMemHostRegister_v2:1+:801", "cuMemHostRegister_v2:1+:2"] {
        let server = GpuSetup::new(FakeCuda::new().fail(failure), &[])
            .plan("affine", affine(), "max_batch_size: 8")
            .start();
        let client = server.client();
        let before = server.bytes("to_device", "staged");
        wait_for("the driver refuses", || {
            (server.regions("refused") == 2).then_some(())
        });
        let mut request = request(&client, "affine", 2);
        for turn in 0..5_u8 {
            run(&mut request, f32::from(turn)).unwrap();
        }
        assert_eq!(server.bytes("to_device", "staged") - before, 5 * 32);
        assert_eq!(server.bytes("to_device", "direct"), 0);
        let report = server.end();
        assert_eq!(
            (report.violations.len(), report.pageable()),
            (0, 0),
            "{report:#?}"
        );
        assert_eq!(report.to_device_registered, 0);
    }
}

#[test]
fn a_session_beyond_the_budget_is_staged_until_there_is_room() {
    let server = GpuSetup::new(FakeCuda::new(), &[])
        .plan("affine", affine(), "max_batch_size: 8")
        // One session of two regions of 1 MiB, and no region more.
        .config("[cuda]\nregistered_bytes = 2621440")
        .start();
    let first = server.client();
    server.wait_for_regions(1);
    let second = server.client();
    wait_for("the second one is refused", || {
        (server.regions("refused") == 2).then_some(())
    });
    let direct = || server.bytes("to_device", "direct");
    let mut requests = [&first, &second].map(|client| request(client, "affine", 1));
    let counted = |request: &mut adjoin_client::Request| {
        let before = direct();
        run(request, 7.0).unwrap();
        direct() - before
    };
    assert_eq!(counted(&mut requests[0]), 16);
    assert_eq!(counted(&mut requests[1]), 0);
    let [one, mut other] = requests;
    drop((one, first));
    wait_for("there is room", || {
        let settled = server.regions("refused") + server.regions("retired") == 0;
        (settled && server.regions("registered") == 2).then_some(())
    });
    assert_eq!(counted(&mut other), 16);
    let report = server.end();
    assert_eq!(
        (report.violations.len(), report.pageable()),
        (0, 0),
        "{report:#?}"
    );
}

#[test]
fn a_client_killed_while_the_device_reads_its_memory_leaves_nothing_and_disturbs_nobody() {
    // Each operation takes some milliseconds, so a request is under way most of the time.
    let server = GpuSetup::new(FakeCuda::new().delay_us(3000), &[])
        .plan("affine", affine(), "max_batch_size: 8")
        .plan("wide", wide(), "max_batch_size: 4")
        .start();
    let control = server.control();
    let mut neighbour = ClientProcess::start(&server, &["plan", "affine", "4", "1", "0"]);
    assert_eq!(neighbour.line(), "open");
    neighbour.go();
    assert_eq!(neighbour.line(), "ok");
    for _ in 0..6 {
        let columns = WIDE.to_string();
        let mut victim = ClientProcess::start(&server, &["plan", "wide", &columns, "1", "0"]);
        assert_eq!(victim.line(), "open");
        server.wait_for_regions(2);
        victim.go();
        let before = server.bytes("to_device", "direct");
        // Its bytes are counted when their copy is asked for, which then takes its time.
        wait_for("the device reads the victim's memory", || {
            (server.bytes("to_device", "direct") >= before + 4 * WIDE).then_some(())
        });
        victim.kill();
        wait_for("the session is gone", || {
            (control.sessions().len() == 1).then_some(())
        });
    }
    server.wait_for_regions(1);
    assert_eq!(neighbour.line_with("ok"), "ok");
    let lines = neighbour.kill_and_read();
    assert!(lines.iter().all(|line| line == "ok"), "{lines:?}");
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
    assert_eq!((report.pageable(), report.pending), (0, 0));
    assert_eq!(report.registrations_live, 0);
}
