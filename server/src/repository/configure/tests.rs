use adjoin_backend::{Dimension, InputAccess, Placement, TensorMetadata};
use adjoin_schema::DataType;

use super::*;

/// The configuration of a model `m`, from the server's file and a `config.pbtxt`.
fn configure(toml: &str, text: Option<&str>, json: Option<&str>) -> Result<Configured, String> {
    let file = CheckedFile::parse(toml, std::path::Path::new("")).unwrap();
    let root = tempfile::tempdir().unwrap();
    if let Some(text) = text {
        std::fs::write(root.path().join(CONFIG_FILE), text).unwrap();
    }
    let found = FoundModel {
        name: "m".into(),
        path: root.path().to_owned(),
        versions: [(1, root.path().join("1"))].into(),
    };
    Configured::new(&file, &found, json).map_err(|error| error.to_string())
}

/// `x` to `y`, four columns each, with a batch dimension.
fn metadata() -> ModelMetadata {
    let tensor = |name: &str| TensorMetadata {
        name: name.into(),
        dtype: DataType::Fp32,
        dimensions: vec![Dimension::Named("batch".into()), Dimension::Fixed(4)],
        access: InputAccess::InPlace,
    };
    ModelMetadata {
        inputs: vec![tensor("x")],
        outputs: vec![tensor("y")],
    }
}

fn completed(toml: &str, text: Option<&str>) -> Complete {
    let configured = configure(toml, text, None).unwrap();
    configured
        .complete("onnxruntime", &metadata(), None)
        .unwrap()
}

#[test]
fn what_the_servers_file_says_of_the_model_stands_over_its_own_and_that_over_the_defaults() {
    let text = "max_batch_size: 8 instance_group { count: 2 } version_policy { all { } }
            dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 100 }";
    let toml = "[defaults]\ninstances = 5\nmax_queue_delay_us = 7\nqueue_limit = 9\n
            [models.m]\nmax_batch_size = 16\npreferred_batch_sizes = [12]\nversion_policy = { latest = 2 }";
    let Complete {
        settings, message, ..
    } = completed(toml, Some(text));
    let policy = &settings.policy;
    assert_eq!(policy.preferred_batch_sizes.as_slice(), [12]);
    assert_eq!(
        (settings.max_batch_size, policy.max_queue_delay_ns),
        (16, 100_000)
    );
    assert_eq!((settings.instances, settings.queue_count_max), (2, 9));
    let expected = r#"
            name: "m" platform: "onnxruntime_onnx" backend: "onnxruntime" max_batch_size: 16
            version_policy { latest { num_versions: 2 } } default_model_filename: "model.onnx"
            input { name: "x" data_type: TYPE_FP32 dims: 4 } output { name: "y" data_type: TYPE_FP32 dims: 4 }
            instance_group { kind: KIND_CPU count: 2 }
            dynamic_batching { preferred_batch_size: 12 max_queue_delay_microseconds: 100 }"#;
    assert_eq!(message, parse_text(expected).unwrap());
}

#[test]
fn without_a_configuration_the_model_and_the_defaults_decide() {
    let rows = |toml, text| completed(toml, text).settings.max_batch_size;
    assert_eq!(rows("", None), 32);
    assert_eq!(rows("[defaults]\nmax_batch_size = 4", None), 4);
    assert_eq!(rows("[models.m]\nmax_batch_size = 0", None), 0);
    assert_eq!(
        rows("[models.m]\nmax_batch_size = 0", Some("max_batch_size: 8")),
        0
    );
    assert_eq!(rows("", Some("")), 32);
    // Dims of the model's whole rank: nothing is left for a batch.
    let whole = "input { name: 'x' dims: [ -1, 4 ] }";
    assert_eq!(rows("", Some(whole)), 0);
    let defaults = "[defaults]\nmax_batch_size = 4";
    assert_eq!(rows(defaults, Some(whole)), 0);
    assert_eq!(rows(defaults, Some("")), 4);
    let complete = completed("[models.m]\ninstances = 3\npriority_levels = 2", None);
    assert_eq!(complete.checked.instances, 3);
    assert_eq!(complete.checked.batching.priority_levels, 2);
}

#[test]
fn queue_policies_and_the_cache_are_kept() {
    let text = "max_batch_size: 8 response_cache { enable: true } dynamic_batching {
            priority_levels: 2 default_priority_level: 2
            default_queue_policy { default_timeout_microseconds: 5 timeout_action: DELAY }
            priority_queue_policy { key: 1 value { max_queue_size: 3 allow_timeout_override: true } } }";
    let settings = completed("", Some(text)).settings;
    assert!(settings.response_cache);
    assert_eq!(
        (settings.priority_levels, settings.default_priority),
        (2, 2)
    );
    let delayed = settings.queue.of(2);
    assert_eq!(
        (
            delayed.timeout_action,
            delayed.default_timeout_ns,
            delayed.count_max
        ),
        (TimeoutAction::Delay, 5_000, usize::MAX)
    );
    let first = settings.queue.of(1);
    assert_eq!((first.count_max, first.allow_timeout_override), (3, true));
}

#[test]
fn a_load_requests_configuration_takes_the_files_place() {
    let json = r#"{ "max_batch_size": "2" }"#;
    let configured = configure("", Some("max_batch_size: 8"), Some(json)).unwrap();
    assert_eq!(configured.checked.max_batch_size, 2);
    let wrong = configure("", None, Some("{ \"max_batch\": 2 }")).unwrap_err();
    assert!(
        wrong.starts_with("the configuration of the load request: "),
        "{wrong}"
    );
}

#[test]
fn instances_on_the_gpu_are_on_the_one_that_the_server_has() {
    let text = "backend: 'onnxruntime' instance_group { kind: KIND_GPU gpus: 1 }";
    let configured = configure("", Some(text), None).unwrap();
    configured.check_device(1).unwrap();
    let other = configured.check_device(0).unwrap_err().to_string();
    for word in ["instance_group.gpus is 1", "number 0", "[cuda]"] {
        assert!(other.contains(word), "{other:?} should contain {word:?}");
    }
    // The number of instances in the server's file leaves them where they are.
    let complete = completed("[models.m]\ninstances = 3", Some(text));
    assert_eq!(complete.message.instance_group[0].kind(), Kind::Gpu);
    assert!(matches!(complete.checked.placement, Placement::Device(_)));
}

#[test]
fn rows_are_known_before_the_model_is() {
    let rows = |toml, text| configure(toml, text, None).unwrap().rows_max();
    assert_eq!(rows("", None), RowsMax::Default(32));
    let defaults = "[defaults]\nmax_batch_size = 4";
    assert_eq!(rows(defaults, Some("")), RowsMax::Default(4));
    assert_eq!(rows("", Some("max_batch_size: 8")), RowsMax::Configured(8));
    let none = "[models.m]\nmax_batch_size = 0";
    assert_eq!(
        rows(none, Some("max_batch_size: 8")),
        RowsMax::Configured(0)
    );
}

#[test]
fn what_is_wrong_says_where() {
    for (text, word) in [
        ("max_batch: 3", "config.pbtxt: line 1"),
        ("name: 'other'", "name is"),
        (
            "backend: 'rten' instance_group { kind: KIND_GPU }",
            "KIND_GPU",
        ),
        (
            "max_batch_size: 2 dynamic_batching { preferred_batch_size: 4 }",
            "preferred_batch_size[0] is 4",
        ),
    ] {
        let wrong = configure("", Some(text), None).unwrap_err();
        assert!(wrong.contains(word), "{wrong:?} should contain {word:?}");
    }
    let configured = configure(
        "",
        Some("max_batch_size: 2 input { name: 'x' dims: 5 }"),
        None,
    );
    let configured = configured.unwrap();
    let Complete { checked, .. } = configured.complete("rten", &metadata(), None).unwrap();
    let misfit = configured
        .check_fit(&checked, &metadata())
        .unwrap_err()
        .to_string();
    assert!(misfit.contains("input \"x\" dims"), "{misfit}");
}
