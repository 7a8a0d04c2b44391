//! Which engine a model is for, where it runs, and what that engine is told.

use super::*;

#[test]
fn engines_are_told_by_platform_backend_or_steps() {
    for (text, engine) in [
        ("platform: 'onnxruntime_onnx'", Engine::OnnxRuntime),
        ("backend: 'onnxruntime'", Engine::OnnxRuntime),
        ("backend: 'rten'", Engine::Rten),
        (
            "platform: 'tensorrt_plan' backend: 'tensorrt' instance_group { kind: KIND_GPU }",
            Engine::TensorRt,
        ),
        ("backend: 'adjoin_rten' platform: 'rten_onnx'", Engine::Rten),
        (
            "backend: 'adjoin_softmax'",
            Engine::BuiltIn("adjoin_softmax".into()),
        ),
    ] {
        assert_eq!(checked(text).engine, Some(engine), "{text}");
    }
    assert_errors(&[
        (
            "platform: 'tensorflow_savedmodel'",
            ["platform is \"tensorflow_savedmodel\"", "onnxruntime_onnx"],
        ),
        (
            "backend: 'python'",
            ["backend is \"python\"", "adjoin_rten"],
        ),
        ("backend: 'adjoin_'", ["backend is \"adjoin_\"", "built in"]),
        ("backend: 'adjoin_../x'", ["adjoin_../x", "built in"]),
        (
            "backend: 'rten' platform: 'onnxruntime_onnx'",
            ["backend is \"rten\"", "onnxruntime_onnx"],
        ),
        (
            "platform: 'ensemble'",
            ["ensemble_scheduling is absent", "steps"],
        ),
    ]);
}

#[test]
fn a_model_of_onnxruntime_runs_on_the_gpu_where_it_is_asked_to() {
    use adjoin_backend::{DevicePlacement, Placement};

    for text in ["", "instance_group { kind: KIND_AUTO }"] {
        assert_eq!(checked(text).placement, Placement::Host, "{text}");
    }
    let text = "backend: 'onnxruntime'
        instance_group [ { kind: KIND_GPU gpus: [ 1, 1 ] }, { count: 2 } ]
        optimization { cuda { graphs: true } execution_accelerators {
            gpu_execution_accelerator [ { name: 'tensorrt' parameters { key: 'precision_mode' value: 'FP16' } } ] } }";
    let (on_gpu, warnings) = check(text).unwrap();
    assert_eq!(warnings, []);
    assert_eq!((on_gpu.instances, on_gpu.gpus), (3, vec![1]));
    let Placement::Device(DevicePlacement {
        graphs: Some(true),
        accelerators,
    }) = on_gpu.placement
    else {
        panic!("{:?}", on_gpu.placement);
    };
    assert_eq!(accelerators[0].name, "tensorrt");
    assert_eq!(accelerators[0].parameters["precision_mode"], "FP16");
    // On the processor the same has no effect, and is told.
    let (on_host, warnings) = check(&text.replace("kind: KIND_GPU gpus: [ 1, 1 ]", "")).unwrap();
    assert_eq!(on_host.placement, Placement::Host);
    let mut paths: Vec<_> = warnings.iter().map(|warning| &*warning.path).collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "optimization.cuda.graphs",
            "optimization.execution_accelerators.gpu_execution_accelerator"
        ]
    );
}

#[test]
fn plans_run_on_devices_and_have_parameters_of_their_own() {
    let text = "platform: 'tensorrt_plan'
        parameters { key: 'optimization_profile' value { string_value: '1' } }
        parameters { key: 'input_transform:x' value { string_value: 'std=2' } }";
    let plan = checked(text);
    assert_eq!(plan.parameters["optimization_profile"], "1");
    assert_eq!(plan.input_transforms["x"], "std=2".parse().unwrap());
    // Other engines have no profiles.
    assert!(
        checked(&text.replace("tensorrt_plan", "rten_onnx"))
            .parameters
            .is_empty()
    );
    assert_errors(&[
        (
            "platform: 'tensorrt_plan' instance_group { kind: KIND_CPU }",
            ["KIND_CPU", "KIND_GPU"],
        ),
        (
            "parameters { key: 'input_transform:x' value { string_value: 'std=0' } }",
            ["input_transform:x", "std is 0"],
        ),
        (
            "platform: 'ensemble' parameters { key: 'input_transform:x' } ensemble_scheduling { step {
                model_name: 'a' input_map { key: 'i' value: 'x' } output_map { key: 'o' value: 'y' } } }
             input { name: 'x' data_type: TYPE_FP32 dims: 1 } output { name: 'y' data_type: TYPE_FP32 dims: 1 }",
            ["input_transform:x", "the model of a step may have"],
        ),
    ]);
}
