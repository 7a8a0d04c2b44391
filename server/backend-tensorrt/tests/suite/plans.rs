//! What is loaded, and what is not.

use adjoin_backend::InputAccess;
use adjoin_schema::DataType;
use fake_cuda::harness::FakeCuda;

use crate::fixture::{affine, load, load_with, plan, refusal, transfers};

#[test]
fn a_plan_is_described_as_it_is() {
    let report = FakeCuda::new().run("plans::a_plan_is_described_as_it_is", || {
        let model = load(&transfers(), affine());
        let metadata = model.metadata();
        let input = &metadata.inputs[0];
        assert_eq!(
            (input.name.as_str(), input.dtype, input.access),
            ("x", DataType::Fp32, InputAccess::InPieces)
        );
        assert_eq!(input.open_shape().as_slice(), [-1, 4]);
        assert!(metadata.has_batch_dimension());
        assert_eq!(model.sizes(), [vec![1..=8, 4..=4]]);
    });
    report.assert_clean();
}

#[test]
fn a_profile_is_chosen_by_its_number() {
    FakeCuda::new().run("plans::a_profile_is_chosen_by_its_number", || {
        let transfers = transfers();
        let bytes = affine().line("profile 1 x 2,4 8,4 32,4").into_bytes();
        let model = load_with(&transfers, &bytes, &[("optimization_profile", "1")]).unwrap();
        assert_eq!(model.sizes(), [vec![2..=32, 4..=4]]);
        let refused = refusal(&transfers, &bytes, &[("optimization_profile", "2")]);
        assert!(
            refused.contains("is 2, and the plan has 2 profiles"),
            "{refused}"
        );
        for wrong in ["-1", "x", ""] {
            let refused = refusal(&transfers, &bytes, &[("optimization_profile", wrong)]);
            assert!(refused.contains("whole number from 0"), "{refused}");
        }
        let refused = refusal(&transfers, &bytes, &[("profile", "0")]);
        assert!(refused.contains("no parameter \"profile\""), "{refused}");
    });
}

#[test]
fn plans_that_cannot_be_served_are_refused_with_the_reason() {
    let test = "plans::plans_that_cannot_be_served_are_refused_with_the_reason";
    let report = FakeCuda::new().run(test, || {
        let transfers = transfers();
        let major = adjoin_fake_nvinfer::major();
        let whole = affine().into_bytes();
        let open = |output: &str| {
            plan()
                .line("input x FP32 -1,4")
                .line("profile 0 x 1,4 4,4 8,4")
                .line(output)
                .into_bytes()
        };
        for (bytes, reason) in [
            (b"\x7fELF".to_vec(), "magic tag does not match"),
            (Vec::new(), "magic tag"),
            (whole[..17].to_vec(), "cut short"),
            (
                adjoin_fake_nvinfer::Plan::affine(major - 1).into_bytes(),
                "not compatible with this version of TensorRT",
            ),
            (affine().line("shape x").into_bytes(), "is a shape tensor"),
            (
                affine().line("vectorised y").into_bytes(),
                "vectorised format",
            ),
            (
                plan()
                    .line("input x BOOL -1,4")
                    .line("profile 0 x 1,4 4,4 8,4")
                    .into_bytes(),
                "is BOOL",
            ),
            (
                plan()
                    .line("input x FP8 -1,4")
                    .line("profile 0 x 1,4 4,4 8,4")
                    .into_bytes(),
                "data type that is not served",
            ),
            (
                open("output y FP32 -1,-1"),
                "outputs whose shape only a run shows",
            ),
            (
                plan().line("input x FP32 -1,4").into_bytes(),
                "has 0 profiles",
            ),
            (
                affine().line("fault context 1").into_bytes(),
                "Requested size was 1073741824 bytes",
            ),
            (
                affine().line("fault shape 1").into_bytes(),
                "no such input in the profile",
            ),
        ] {
            let refused = refusal(&transfers, &bytes, &[]);
            assert!(
                refused.contains(reason),
                "{refused:?} should contain {reason:?}"
            );
        }
        // The next one is loaded all the same.
        drop(load(&transfers, affine()));
    });
    report.assert_clean();
}

#[test]
fn a_device_without_room_is_an_error_at_load() {
    let fake = FakeCuda::new().set("FAKE_CUDA_MEMORY", 16 << 20);
    let report = fake.run("plans::a_device_without_room_is_an_error_at_load", || {
        let transfers = transfers();
        let large = plan()
            .line("input x FP32 -1,1048576")
            .line("output y FP32 -1,1048576")
            .line("profile 0 x 1,1048576 4,1048576 64,1048576")
            .line("affine x y 2 1");
        let model = load(&transfers, large);
        let refused = model.instance().map(drop).unwrap_err().to_string();
        assert!(refused.contains("OUT_OF_MEMORY"), "{refused}");
        load(&transfers, affine()).instance().unwrap();
    });
    report.assert_clean();
}
