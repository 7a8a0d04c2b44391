use std::time::Duration;

use adjoin_schema::DataType;

use super::*;
use crate::parse_text;

mod engines;
mod ensembles;

fn check(text: &str) -> Result<(Checked, Vec<Warning>), ConfigError> {
    Checked::new("m", &parse_text(text).expect("the text is well formed"))
}

fn checked(text: &str) -> Checked {
    check(text).expect("the configuration is good").0
}

fn error(text: &str) -> String {
    check(text).expect_err(text).to_string()
}

/// Each text is refused with all words of its row.
fn assert_errors<const N: usize>(rows: &[(&str, [&str; N])]) {
    for (text, words) in rows {
        let error = error(text);
        for word in words {
            assert!(
                error.contains(word),
                "{text}: {error:?} should contain {word:?}"
            );
        }
    }
}

#[test]
fn an_empty_configuration_leaves_everything_to_the_model_and_the_server() {
    let (checked, warnings) = check("").unwrap();
    assert_eq!(warnings, []);
    assert_eq!(checked.name, "m");
    assert_eq!(
        (checked.engine, checked.default_model_filename),
        (None, None)
    );
    assert_eq!(checked.version_policy, VersionPolicy::Latest { count: 1 });
    assert_eq!((checked.max_batch_size, checked.instances), (0, 1));
    assert_eq!(checked.batching, DynamicBatching::default());
    assert!(checked.inputs.is_empty() && checked.warm_up.is_empty() && !checked.response_cache);
}

#[test]
fn a_whole_configuration_becomes_typed_values() {
    let checked = checked(
        r#"name: "m" backend: "onnxruntime" platform: "onnxruntime_onnx" max_batch_size: 16
        input [ { name: "x" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 1, -1, 28 ] reshape { shape: [ -1, 28 ] } optional: true } ]
        output [ { name: "y" data_type: TYPE_STRING dims: [ 1 ] reshape { } label_filename: "labels.txt" } ]
        instance_group [ { count: 2 kind: KIND_CPU }, { } ]
        version_policy { specific { versions: [ 3, 1, 3 ] } }
        default_model_filename: "net.onnx"
        parameters { key: "intra_op_thread_count" value { string_value: "4" } }
        response_cache { enable: true }
        dynamic_batching {
          preferred_batch_size: [ 8, 4, 8 ] max_queue_delay_microseconds: 100
          priority_levels: 3 default_priority_level: 2
          default_queue_policy { default_timeout_microseconds: 5 allow_timeout_override: true }
          priority_queue_policy { key: 1 value { timeout_action: DELAY max_queue_size: 7 } }
        }"#,
    );
    assert_eq!(checked.engine, Some(Engine::OnnxRuntime));
    assert_eq!(checked.instances, 3);
    assert_eq!(
        checked.version_policy,
        VersionPolicy::Specific {
            versions: vec![1, 3]
        }
    );
    assert_eq!(checked.default_model_filename.as_deref(), Some("net.onnx"));
    assert_eq!(checked.intra_op_threads, Some(4));
    assert!(checked.response_cache);
    let input = &checked.inputs[0];
    assert!(input.is_optional);
    assert_eq!(input.tensor.client_shape(16).as_slice(), [-1, 1, -1, 28]);
    assert_eq!(input.tensor.model_shape(16).as_slice(), [-1, -1, 28]);
    assert_eq!(input.tensor.client_shape(0).as_slice(), [1, -1, 28]);
    let output = &checked.outputs[0];
    assert_eq!(
        (output.tensor.dtype, output.label_filename.as_deref()),
        (DataType::Bytes, Some("labels.txt"))
    );
    assert_eq!(output.tensor.model_shape(16).as_slice(), [-1]);
    let batching = &checked.batching;
    assert_eq!(batching.preferred_batch_sizes, [4, 8]);
    assert_eq!(batching.max_queue_delay, Duration::from_micros(100));
    assert_eq!(
        (batching.priority_levels, batching.default_priority_level),
        (3, 2)
    );
    let urgent = batching.queue_policy(1);
    assert_eq!(
        (urgent.timeout_action, urgent.max_queue_size),
        (TimeoutAction::Delay, Some(7))
    );
    let other = batching.queue_policy(2);
    assert_eq!(other.default_timeout, Some(Duration::from_micros(5)));
    assert!(other.allow_timeout_override);
}

#[test]
fn names_and_files_are_one_segment() {
    let refused = Checked::new("../m", &ModelConfig::default())
        .unwrap_err()
        .to_string();
    assert!(refused.contains("name is \"../m\""), "{refused}");
    assert_errors(&[
        ("name: 'other'", ["name is \"other\"", "\"m\""]),
        (
            "default_model_filename: '../../etc/passwd'",
            ["default_model_filename", "without a directory"],
        ),
        (
            "default_model_filename: '/etc/passwd'",
            ["default_model_filename", "without a directory"],
        ),
        (
            "default_model_filename: '..'",
            ["default_model_filename", "\"..\""],
        ),
        (
            "default_model_filename: 'a\\0b'",
            ["default_model_filename", "a\\0b"],
        ),
        (
            "output { name: 'y' data_type: TYPE_FP32 label_filename: 'a/b' }",
            ["output[0].label_filename", "\"a/b\""],
        ),
        (
            "model_warmup { inputs { key: 'x' value { data_type: TYPE_FP32 dims: 1 input_data_file: '../x' } } }",
            ["model_warmup[0].inputs[\"x\"].input_data_file", "\"../x\""],
        ),
    ]);
    let long = format!("default_model_filename: '{}'", "x".repeat(100_000));
    let refused = error(&long);
    assert!(
        refused.contains("(100000 bytes)") && refused.len() < 500,
        "{refused}"
    );
}

#[test]
fn tensors_that_cannot_be_are_refused_by_place() {
    assert_errors(&[
        (
            "input { data_type: TYPE_FP32 dims: 1 }",
            ["input[0].name is \"\"", "1 to 256"],
        ),
        (
            "input { name: 'x' dims: 1 }",
            ["input[0].data_type is TYPE_INVALID", "TYPE_FP32"],
        ),
        (
            "input { name: 'x' data_type: 99 }",
            ["input[0].data_type is 99", "TYPE_FP32"],
        ),
        (
            "input { name: 'x' data_type: TYPE_FP32 dims: [ 1, 0 ] }",
            ["input[0].dims[1] is 0", "-1"],
        ),
        (
            "input { name: 'x' data_type: TYPE_FP32 dims: -2 }",
            ["input[0].dims[0] is -2", "-1"],
        ),
        (
            "output { name: 'y' data_type: TYPE_FP32 dims: [1,1,1,1,1,1,1,1,1] }",
            ["output[0].dims", "at most 8"],
        ),
        (
            "input { name: 'x' data_type: TYPE_FP32 dims: [ 9223372036854775807, 3 ] }",
            ["input[0].dims is [9223372036854775807,3]", "2^63"],
        ),
        (
            "input [ { name: 'x' data_type: TYPE_FP32 }, { name: 'x' data_type: TYPE_FP32 } ]",
            ["input[1].name is \"x\"", "before it"],
        ),
        (
            "input { name: 'x' data_type: TYPE_FP32 format: FORMAT_NHWC dims: [ 2 ] }",
            ["FORMAT_NHWC", "3 dims"],
        ),
        (
            "input { name: 'x' data_type: TYPE_FP32 format: 9 dims: [ 2 ] }",
            ["input[0].format is 9", "FORMAT_NONE"],
        ),
    ]);
    let many: String = (0..65)
        .map(|n| format!("output {{ name: 'y{n}' data_type: TYPE_BOOL }} "))
        .collect();
    assert!(error(&many).contains("output is a list of 65; a model has at most 64"));
}

#[test]
fn a_reshape_keeps_the_elements_and_the_place_of_each_open_dimension() {
    let reshape = |dims: &str, shape: &str| {
        check(&format!(
            "max_batch_size: 1 input {{ name: 'x' data_type: TYPE_FP32 dims: [{dims}] reshape {{ shape: [{shape}] }} }}"
        ))
    };
    for (dims, shape) in [
        ("1", ""),
        ("28, 28", "784"),
        ("2, -1, 6", "2, -1, 3, 2"),
        ("-1", "-1, 1"),
        ("", "1"),
    ] {
        assert!(reshape(dims, shape).is_ok(), "[{dims}] to [{shape}]");
    }
    for (dims, shape) in [
        ("2", ""),
        ("28, 28", "28"),
        ("2, -1, 6", "-1, 2, 6"),
        ("-1", "4"),
        ("-1, 2", "-1, -1"),
        ("", "2"),
    ] {
        let refused = reshape(dims, shape).unwrap_err().to_string();
        assert!(
            refused.starts_with("input[0].reshape.shape is ["),
            "[{dims}] to [{shape}]: {refused}"
        );
    }
}

#[test]
fn values_out_of_bounds_are_named_with_the_bounds() {
    assert_errors(&[
        ("max_batch_size: -1", ["max_batch_size is -1", "0 to 65536"]),
        (
            "max_batch_size: 65537",
            ["max_batch_size is 65537", "0 to 65536"],
        ),
        (
            "version_policy { latest { } }",
            ["version_policy.latest.num_versions is 0", "at least 1"],
        ),
        (
            "version_policy { specific { } }",
            ["version_policy.specific.versions is empty", "at least one"],
        ),
        (
            "version_policy { specific { versions: [1, -3] } }",
            ["version_policy.specific.versions[1] is -3", "from 1"],
        ),
        (
            "backend: 'adjoin_rten' instance_group { kind: KIND_GPU }",
            ["instance_group[0].kind is KIND_GPU", "processor"],
        ),
        (
            "instance_group [ { kind: KIND_GPU }, { kind: KIND_CPU } ]",
            ["instance_group[1].kind is KIND_CPU", "the same place"],
        ),
        (
            "instance_group { gpus: 0 }",
            ["instance_group[0].gpus is 0", "KIND_GPU"],
        ),
        (
            "instance_group { kind: KIND_GPU gpus: -1 }",
            ["instance_group[0].gpus is -1", "from 0"],
        ),
        (
            "instance_group { count: -1 }",
            ["instance_group[0].count is -1", "0 to 64"],
        ),
        (
            "instance_group [ { count: 64 }, { } ]",
            ["instance_group[1].count is 0", "64"],
        ),
        (
            "instance_group { kind: 7 }",
            ["instance_group[0].kind is 7", "KIND_CPU"],
        ),
        (
            "parameters { key: 'intra_op_thread_count' value { string_value: 'all' } }",
            [
                "parameters[\"intra_op_thread_count\"] is \"all\"",
                "1 to 256",
            ],
        ),
        (
            "max_batch_size: 4 dynamic_batching { preferred_batch_size: [ 4, 8 ] }",
            ["preferred_batch_size[1] is 8", "1 to 4"],
        ),
        (
            "dynamic_batching { preferred_batch_size: 1 }",
            ["preferred_batch_size[0] is 1", "never joined"],
        ),
        (
            "dynamic_batching { priority_levels: 65536 }",
            ["priority_levels is 65536", "0 to 65535"],
        ),
        (
            "dynamic_batching { priority_levels: 2 }",
            ["default_priority_level is 0", "1 to 2"],
        ),
        (
            "dynamic_batching { priority_queue_policy { key: 2 value { } } }",
            ["priority_queue_policy[2] is 2", "1 to 1"],
        ),
        (
            "dynamic_batching { default_queue_policy { timeout_action: 5 } }",
            ["default_queue_policy.timeout_action is 5", "REJECT"],
        ),
        (
            "dynamic_batching { preserve_ordering: true priority_levels: 2 default_priority_level: 1 }",
            ["preserve_ordering is true", "one priority level"],
        ),
        (
            "dynamic_batching { preserve_ordering: true default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 1 } }",
            ["preserve_ordering is true", "DELAY"],
        ),
    ]);
}

#[test]
fn fields_of_the_three_kinds_are_told_apart() {
    let (_, warnings) = check(
        "optimization { input_pinned_memory { enable: true } cuda { graphs: true } }
         metric_tags { key: 'a' value: 'b' } instance_group [ { name: 'a' }, { name: 'b' } ]
         parameters { key: 'execution_mode' value { string_value: '1' } }",
    )
    .unwrap();
    let mut paths: Vec<_> = warnings
        .iter()
        .map(|warning| warning.path.as_str())
        .collect();
    paths.sort_unstable();
    // A field that several places set is told once.
    let expected = [
        "instance_group[0].name",
        "metric_tags",
        "optimization.cuda.graphs",
        "optimization.input_pinned_memory",
        "parameters[\"execution_mode\"]",
    ];
    assert_eq!(paths, expected);
    assert!(
        warnings[0].to_string().contains(" has no effect: "),
        "{}",
        warnings[0]
    );
    let refused = error(
        "sequence_batching { } model_operations { } instance_group [ { }, { passive: true } ]
         model_transaction_policy { decoupled: true } input { name: 'x' data_type: TYPE_FP32 allow_ragged_batch: true }",
    );
    for path in [
        "sequence_batching (",
        "model_operations (",
        "instance_group[1].passive (",
        "model_transaction_policy.decoupled (",
        "input[0].allow_ragged_batch (",
    ] {
        assert!(
            refused.contains(path),
            "{refused:?} should contain {path:?}"
        );
    }
}

#[test]
fn a_step_model_gets_its_parameters() {
    let checked =
        checked("backend: 'adjoin_topk' parameters { key: 'k' value { string_value: '5' } }");
    assert_eq!(checked.parameters["k"], "5");
}

#[test]
fn warm_up_samples_are_bounded() {
    let checked = checked(
        "max_batch_size: 8 model_warmup [ { name: 'zeros' batch_size: 8 count: 3 inputs [
           { key: 'x' value { data_type: TYPE_FP32 dims: [ 3 ] zero_data: true } },
           { key: 'y' value { data_type: TYPE_STRING dims: [ 1 ] input_data_file: 'names' } } ] },
         { inputs { key: 'x' value { data_type: TYPE_INT8 random_data: true } } } ]",
    );
    let first = &checked.warm_up[0];
    assert_eq!((first.batch_size, first.count), (8, 3));
    assert_eq!(first.inputs["x"].data, WarmUpData::Zero);
    assert_eq!(first.inputs["y"].data, WarmUpData::File("names".into()));
    let second = &checked.warm_up[1];
    assert_eq!((second.batch_size, second.count), (1, 1));
    assert_eq!(second.inputs["x"].data, WarmUpData::Random);
    let sample =
        |fields: &str| format!("model_warmup {{ inputs {{ key: 'x' value {{ {fields} }} }} }}");
    assert_errors(&[
        (
            &sample("data_type: TYPE_FP32 dims: [ -1 ] zero_data: true"),
            ["inputs[\"x\"].dims[0] is -1", "at least 1"],
        ),
        (
            &sample("data_type: TYPE_FP32 dims: [ 1 ]"),
            ["without values", "zero_data"],
        ),
        (
            &sample("dims: [ 1 ] zero_data: true"),
            ["data_type is TYPE_INVALID", "TYPE_FP32"],
        ),
        (
            &sample("data_type: TYPE_FP32 dims: [ 100000000 ] zero_data: true"),
            ["model_warmup[0].inputs", "268435456"],
        ),
        (
            &sample("data_type: TYPE_FP64 dims: [ 4611686018427387904 ] zero_data: true"),
            ["model_warmup[0].inputs", "268435456"],
        ),
        (
            "model_warmup { batch_size: 2 }",
            ["model_warmup[0].batch_size is 2", "0 to 1"],
        ),
        (
            "model_warmup { count: 4294967295 }",
            ["model_warmup[0].count is 4294967295", "1000"],
        ),
        (
            &"model_warmup { } ".repeat(65),
            ["model_warmup is a list of 65", "64"],
        ),
    ]);
}
