//! The provider of TensorRT: what it is told, the sizes that follow, and the engines that it keeps.

use adjoin_backend::{Backend, ExecuteError};
use fake_onnxruntime::harness;

use crate::fixture::{Machine, accelerated, add, add_of_rows, double, expect, fake, request};

#[test]
fn both_providers_are_told_what_the_model_says_and_which_stream_is_theirs() {
    let test = "tensorrt::both_providers_are_told_what_the_model_says_and_which_stream_is_theirs";
    let report = fake().run(test, || {
        let machine = Machine::new();
        let placement = accelerated("tensorrt", &[("precision_mode", "FP16")]);
        let model = machine.try_load(&add_of_rows(), placement, 8).unwrap();
        assert_eq!(model.sizes(), [vec![1..=8, 4..=4], vec![1..=8, 4..=4]]);
        let mut instance = model.instance().unwrap();
        for turn in 0..3 {
            expect(&mut *instance, turn, &[2, 1]);
        }
        let report = harness::report();
        let [tensorrt, cuda] = report.sessions[0].as_slice() else {
            panic!("{report:#?}");
        };
        assert_eq!((&*tensorrt.name, &*cuda.name), ("tensorrt", "cuda"));
        for (key, value) in [
            ("device_id", "0"),
            ("has_user_compute_stream", "1"),
            ("trt_fp16_enable", "1"),
            ("trt_profile_min_shapes", "a:1x4,b:1x4"),
            ("trt_profile_max_shapes", "a:8x4,b:8x4"),
            ("trt_timing_cache_enable", "1"),
        ] {
            assert_eq!(tensorrt.options[key], value, "{key}");
        }
        let stream = "user_compute_stream";
        assert_eq!(tensorrt.options[stream], cuda.options[stream]);
        drop((instance, model));
        machine.end();
    });
    report.assert_clean();
}

#[test]
fn sizes_outside_of_the_profile_are_refused_and_no_engine_is_built_in_service() {
    let test =
        "tensorrt::sizes_outside_of_the_profile_are_refused_and_no_engine_is_built_in_service";
    fake().run(test, || {
        let machine = Machine::new();
        let profile = [
            ("trt_profile_min_shapes", "a:1x4,b:1x4"),
            ("trt_profile_opt_shapes", "a:4x4,b:4x4"),
            ("trt_profile_max_shapes", "a:6x4,b:6x4"),
        ];
        let graph = add(&["batch", "length"]);
        let open = machine.refusal(&graph, accelerated("tensorrt", &[]), 8);
        for word in ["\"a\"", "trt_profile_min_shapes"] {
            assert!(open.contains(word), "{open:?} should contain {word:?}");
        }
        let placement = accelerated("tensorrt", &profile);
        let model = machine.try_load(&graph, placement, 8).unwrap();
        assert_eq!(model.sizes(), [vec![1..=6, 4..=4], vec![1..=6, 4..=4]]);
        let mut instance = model.instance().unwrap();
        expect(&mut *instance, 0, &[6]);
        for rows in [&[7][..], &[4, 3]] {
            let requests: Vec<_> = rows.iter().map(|&rows| request(0, rows)).collect();
            let error = double(&mut *instance, &requests).unwrap_err();
            assert!(
                matches!(&error, ExecuteError::Mismatch { reason } if reason.contains("outside of the profile")),
                "{error}"
            );
        }
        expect(&mut *instance, 1, &[2, 2]);
        let report = harness::report();
        assert_eq!((report.engines_built, report.rebuilds), (1, 0));
        drop((instance, model));
        machine.end();
    });
}

#[test]
fn engines_are_kept_for_the_model_that_they_were_built_of() {
    let test = "tensorrt::engines_are_kept_for_the_model_that_they_were_built_of";
    fake().run(test, || {
        let machine = Machine::new();
        let load = |graph: &[u8], parameters: &[(&str, &str)]| {
            let placement = accelerated("tensorrt", parameters);
            drop(machine.try_load(graph, placement, 8).unwrap());
            let report = harness::report();
            (report.engines_built, report.engines_loaded)
        };
        let (add, wider) = (add_of_rows(), add(&["batch"]));
        assert_eq!(load(&add, &[]), (1, 0));
        assert_eq!(load(&add, &[]), (1, 1));
        assert_eq!(load(&add, &[("precision_mode", "FP16")]), (2, 1));
        assert_eq!(load(&wider, &[]), (3, 1));
        let off = [
            ("trt_engine_cache_enable", "0"),
            ("trt_timing_cache_enable", "0"),
        ];
        assert_eq!(load(&add, &off), (4, 1));
        assert_eq!(std::fs::read_dir(machine.engines()).unwrap().count(), 3);
        machine.end();
    });
}

#[test]
fn engines_that_cannot_be_kept_are_an_error_that_names_the_place() {
    let test = "tensorrt::engines_that_cannot_be_kept_are_an_error_that_names_the_place";
    fake().run(test, || {
        let machine = Machine::new();
        let source = machine.source(&add_of_rows(), accelerated("tensorrt", &[]), 8);
        let file = machine.files.path().join("file");
        std::fs::write(&file, b"").unwrap();
        for (place, word) in [
            (Some(file.clone()), file.to_str().unwrap()),
            (None, "cuda.engine_cache_dir"),
        ] {
            let backend = machine.backend_with(place);
            let refused = backend.load(&source).map(drop).unwrap_err().to_string();
            assert!(
                refused.contains(word),
                "{refused:?} should contain {word:?}"
            );
        }
        // On CUDA alone there is nothing to keep.
        let source = machine.source(&add_of_rows(), accelerated("cuda", &[]), 8);
        drop(machine.backend_with(None).load(&source).unwrap());
        machine.end();
    });
}
