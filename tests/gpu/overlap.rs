//! Two batches of one instance. Operations of the device take long enough that no worker keeps the lead while it runs a batch:
//! else a request whose batch waits for another one would keep that from being seen.

use adjoin_tests::gpu::GpuSetup;
use fake_cuda::harness::FakeCuda;

use crate::affine;
use crate::clients::{request, run};

/// Each request waits in the middle of its batch until the other one's is under way, too: with one at a time neither would
/// come to an end.
#[test]
fn one_instance_works_on_two_batches_at_once() {
    let server = GpuSetup::new(FakeCuda::new().delay_us(2000), &[])
        .plan(
            "affine",
            affine().line("meet 3 2"),
            "max_batch_size: 4\ninstance_group { count: 1 kind: KIND_GPU }",
        )
        .start();
    let models = server.control().models();
    assert_eq!(models[0].instances, 1, "{models:?}");
    std::thread::scope(|scope| {
        for session in 0..2_u8 {
            let server = &server;
            scope.spawn(move || {
                let client = server.client();
                // Six rows are too many for one batch.
                let mut request = request(&client, "affine", 3);
                for turn in 0..20_u8 {
                    run(&mut request, f32::from(turn) + 1000.0 * f32::from(session)).unwrap();
                }
            });
        }
    });
    let counted = server.control().statistics("affine");
    assert_eq!(
        (counted.request_count, counted.execution_count),
        (40, 40),
        "{counted:?}"
    );
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
}

/// One session that sends several requests without waiting: they overlap, and each gets its own answer.
#[test]
fn requests_of_one_session_overlap_and_come_back_each_with_its_own_answer() {
    let server = GpuSetup::new(FakeCuda::new().delay_us(2000), &[])
        .plan("affine", affine().line("meet 3 2"), "max_batch_size: 4")
        .start();
    let client = server.client();
    server.wait_for_regions(1);
    for round in 0..10_u8 {
        let pending: Vec<_> = (0..4_u8)
            .map(|index| {
                let mut request = request(&client, "affine", 3);
                let base = 100.0 * f32::from(round) + 20.0 * f32::from(index);
                for (place, value) in request
                    .input_mut::<f32>("x")
                    .unwrap()
                    .iter_mut()
                    .enumerate()
                {
                    *value = base + place as f32;
                }
                (base, request.submit().unwrap())
            })
            .collect();
        for (base, pending) in pending {
            let response = pending.wait().map_err(|failed| failed.error).unwrap();
            let answer = response.get::<f32>("y").unwrap();
            for (place, value) in answer.iter().enumerate() {
                assert_eq!(*value, 2.0 * (base + place as f32) + 1.0);
            }
        }
    }
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
}
