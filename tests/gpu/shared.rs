//! Tensors that lie on the device: nobody but the device copies them, and whatever a client does with its memory is its own
//! affair.

use adjoin_tests::gpu::{GpuServer, GpuSetup};
use adjoin_tests::process::ClientProcess;
use adjoin_tests::wait_for;
use fake_cuda::harness::FakeCuda;
use fake_cuda::report::Report;

use crate::clients::{request, run};
use crate::{WIDE, affine, wide};

const SESSIONS: u64 = 3;
const TURNS: u64 = 5;
const ROWS: u64 = 2;

fn start(fake: FakeCuda) -> GpuServer {
    GpuSetup::new(fake, &["add"])
        .plan("affine", affine(), "max_batch_size: 8")
        .plan("wide", wide(), "max_batch_size: 4")
        .start()
}

fn wait_for_shared(server: &GpuServer, regions: u64) {
    wait_for("regions on the device", || {
        (server.metric("adjoin_device_shared_regions") == regions).then_some(())
    });
}

fn within(server: &GpuServer) -> [u64; 2] {
    ["gather", "scatter"].map(|path| server.bytes("within", path))
}

/// Bytes between host and device, each way and by each path: what warm-up has copied is in them.
fn between(server: &GpuServer) -> Vec<u64> {
    let paths = ["direct", "staged", "pageable"];
    let ways = ["to_device", "to_host"];
    let all = ways.iter().flat_map(|way| paths.map(|path| (way, path)));
    all.map(|(way, path)| server.bytes(way, path)).collect()
}

fn assert_clean(report: &Report) {
    assert_eq!(report.violations, Vec::<String>::new());
    assert_eq!((report.pageable(), report.pending), (0, 0));
}

fn finish(process: &mut ClientProcess, turns: u64) {
    for _ in 0..turns {
        assert_eq!(process.line(), "ok");
    }
    assert_eq!(process.line(), "done");
}

#[test]
fn what_lies_on_the_device_never_leaves_it() {
    let server = start(FakeCuda::new().delay_us("0-300"));
    let (columns, rows, turns) = (WIDE.to_string(), ROWS.to_string(), TURNS.to_string());
    // Half of them run batches that are copied one by one, the others such as are captured as graphs.
    let large = ["run", "wide", &columns, &rows, &turns];
    let small = ["run", "affine", "4", &rows, &turns];
    let start = |_| [large, small].map(|arguments| server.device_client(&arguments));
    let mut processes: Vec<_> = (0..SESSIONS).flat_map(start).collect();
    for process in &mut processes {
        assert_eq!(process.line(), "open");
    }
    wait_for_shared(&server, 2 * SESSIONS);
    let before = between(&server);
    assert_eq!(within(&server), [0, 0]);
    processes.iter_mut().for_each(ClientProcess::go);
    for process in &mut processes {
        finish(process, TURNS);
    }
    let bytes = SESSIONS * TURNS * ROWS * (WIDE + 4) * 4;
    assert_eq!(within(&server), [bytes, bytes], "each byte once, each way");
    assert_eq!(
        between(&server),
        before,
        "none of them between host and device"
    );
    for model in ["affine", "wide"] {
        let counted = server.control().statistics(model);
        assert_eq!(counted.request_count, SESSIONS * TURNS, "{counted:?}");
        assert_eq!(counted.gathered_bytes + counted.scattered_bytes, 0);
        assert_eq!(counted.engine_copied_bytes + counted.copied_first_bytes, 0);
    }
    drop(processes);
    wait_for_shared(&server, 0);
    let report = server.end();
    assert_clean(&report);
    // As the driver has seen it: nothing of a session's memory.
    let seen = [report.to_device_registered, report.to_host_registered];
    assert_eq!(seen, [0, 0]);
}

#[test]
fn requests_on_the_device_and_in_memory_share_batches_and_outputs_may_come_back() {
    let server = start(FakeCuda::new().delay_us("0-300"));
    let device = server.device_client(&["run", "affine", "4", "1", "20"]);
    let half = server.device_client(&["host", "affine", "4", "1", "20"]);
    let memory = ClientProcess::start(&server, &["plan", "affine", "4", "1", "20"]);
    let mut processes = [device, half, memory];
    for process in &mut processes {
        assert_eq!(process.line(), "open");
    }
    server.wait_for_regions(3);
    processes.iter_mut().for_each(ClientProcess::go);
    for process in &mut processes {
        finish(process, 20);
    }
    assert_eq!(within(&server), [2 * 20 * 16, 20 * 16]);
    let direct = ["to_device", "to_host"].map(|way| server.bytes(way, "direct"));
    assert_eq!(direct, [20 * 16, 2 * 20 * 16]);
    drop(processes);
    assert_clean(&server.end());
}

#[test]
fn a_client_killed_while_the_device_reads_its_memory_disturbs_nobody() {
    // Each operation takes some milliseconds, so a request is under way most of the time.
    let server = start(FakeCuda::new().delay_us(2000));
    let control = server.control();
    let mut neighbour = server.device_client(&["run", "affine", "4", "1", "0"]);
    assert_eq!(neighbour.line(), "open");
    neighbour.go();
    assert_eq!(neighbour.line(), "ok");
    let columns = WIDE.to_string();
    for _ in 0..6 {
        let mut victim = server.device_client(&["run", "wide", &columns, "1", "0"]);
        assert_eq!(victim.line(), "open");
        let before = within(&server)[0];
        victim.go();
        wait_for("the device reads the victim's memory", || {
            (within(&server)[0] >= before + 4 * WIDE).then_some(())
        });
        victim.kill();
        wait_for("the session is gone", || {
            (control.sessions().len() == 1).then_some(())
        });
    }
    wait_for_shared(&server, 1);
    assert_eq!(neighbour.line_with("ok"), "ok");
    let lines = neighbour.kill_and_read();
    assert!(lines.iter().all(|line| line == "ok"), "{lines:?}");
    wait_for_shared(&server, 0);
    assert_clean(&server.end());
}

#[test]
fn a_lost_device_takes_its_regions_and_leaves_their_sessions() {
    // Warm-up of the two batches that an instance works on makes 8 runs, so it is a request of a client that does this.
    let server = GpuSetup::new(FakeCuda::new().fail("exec.host_call:15:700"), &[])
        .plan("affine", affine(), "max_batch_size: 8")
        .start();
    // One that attaches its memory anew after an error, and one that does not.
    let mut processes = ["renew", "run"].map(|command| {
        let mut process = server.device_client(&[command, "affine", "4", "1", "0"]);
        assert_eq!(process.line(), "open");
        process
    });
    processes.iter_mut().for_each(ClientProcess::go);
    let [renewing, keeping] = &mut processes;
    // Once the model is back, the region of the one that keeps it is what it lacks.
    keeping
        .line_with("error the server's device was lost, and device region 1 with it (input \"x\")");
    renewing.line_with("error ");
    assert_eq!(renewing.line_with("ok"), "ok");
    let resets = server.metric("adjoin_device_resets_total{outcome=\"done\"}");
    assert_eq!(resets, 1);
    // In the sessions that they opened first.
    let sessions = server.control().sessions();
    let ids: Vec<u64> = sessions.iter().map(|session| session.session_id).collect();
    assert_eq!(ids, [1, 2]);
    let client = server.client();
    run(&mut request(&client, "affine", 1), 3.0).unwrap();
    drop((processes, client));
    wait_for_shared(&server, 0);
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
}
