//! Plans that cannot be loaded: the model is not served, the index says why, and the others are.

use adjoin_fake_nvinfer::{Plan, major};
use adjoin_tests::gpu::GpuSetup;
use fake_cuda::harness::FakeCuda;

use crate::affine;
use crate::clients::{by_http, http_status, request, run};

#[test]
fn plans_that_are_damaged_or_of_another_release_are_not_served_and_say_why() {
    let server = GpuSetup::new(FakeCuda::new(), &[])
        .plan("good", affine(), "max_batch_size: 8")
        .plan_text("corrupt", "no plan at all", "")
        .plan_text("cut", "adjoin fake plan\n", "")
        .plan("newer", Plan::affine(major() + 1), "")
        .start();
    for (model, words) in [
        ("corrupt", "magic tag does not match"),
        ("cut", "cut short"),
        ("newer", "not compatible with this version of TensorRT"),
    ] {
        let (state, reason) = server.index(model);
        assert_eq!(state, "UNAVAILABLE", "{model}");
        assert!(reason.contains(words), "{model}: {reason}");
        assert!(!server.is_model_ready(model));
        assert_eq!(
            http_status(server.http(), &format!("/v2/models/{model}/ready")),
            400
        );
        let (status, body) = by_http(&server, model, 1.0);
        assert!(status >= 400, "{model}: {body}");
    }
    let client = server.client();
    run(&mut request(&client, "good", 3), 2.0).unwrap();
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
}
