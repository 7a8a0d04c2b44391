//! The table of fields holds what it says: a field that is called honoured changes what comes out of the check, one that is
//! called ignored changes nothing but the warnings, one that is called refused is.

use std::collections::BTreeSet;

use adjoin_model_config::fields::{FIELDS, Support};
use adjoin_model_config::{Checked, ConfigError, ModelConfig, parse_text};
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, Value};

/// Configurations that set every honoured field together; one is not enough for the choices.
const HONOURED: [&str; 4] = [
    r#"name: "m" platform: "onnxruntime_onnx" backend: "onnxruntime" max_batch_size: 8
    input { name: "x" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 28, 28 ] optional: true reshape { shape: 2352 } }
    output { name: "y" data_type: TYPE_FP32 dims: 10 label_filename: "labels.txt" reshape { shape: [ 2, 5 ] } }
    version_policy { latest { num_versions: 2 } }
    dynamic_batching {
      preferred_batch_size: 4 max_queue_delay_microseconds: 1 preserve_ordering: true
      priority_levels: 1 default_priority_level: 1
      default_queue_policy { timeout_action: DELAY allow_timeout_override: true max_queue_size: 9 }
      priority_queue_policy { key: 1 value { timeout_action: DELAY allow_timeout_override: true max_queue_size: 9 } }
    }
    instance_group { kind: KIND_CPU count: 2 }
    default_model_filename: "net.onnx"
    parameters { key: "intra_op_thread_count" value { string_value: "2" } }
    model_warmup { name: "a" batch_size: 2 count: 2 inputs { key: "x" value { data_type: TYPE_FP32 dims: 9 zero_data: true } } }
    model_transaction_policy { }
    response_cache { enable: true }"#,
    r#"version_policy { specific { versions: 3 } }
    dynamic_batching {
      default_queue_policy { default_timeout_microseconds: 5 }
      priority_queue_policy { key: 1 value { default_timeout_microseconds: 5 } }
    }
    model_warmup { inputs { key: "x" value { data_type: TYPE_FP32 dims: 9 random_data: true } } }"#,
    r#"version_policy { all { } }
    input { name: "a" data_type: TYPE_FP32 dims: 1 } output { name: "b" data_type: TYPE_FP32 dims: 1 }
    ensemble_scheduling { max_inflight_requests: 4 step {
      model_name: "step" model_version: 3 input_map { key: "x" value: "a" } output_map { key: "y" value: "b" }
    } }
    model_warmup { inputs { key: "x" value { data_type: TYPE_FP32 dims: 9 input_data_file: "x" } } }"#,
    r#"platform: "onnxruntime_onnx" instance_group { kind: KIND_GPU gpus: 0 }
    optimization { cuda { graphs: true } execution_accelerators {
      gpu_execution_accelerator { name: "tensorrt" parameters { key: "precision_mode" value: "FP16" } }
    } }"#,
];

fn descriptor() -> MessageDescriptor {
    let pool =
        DescriptorPool::decode(adjoin_control_api::FILE_DESCRIPTOR_SET).expect("descriptors");
    pool.get_message_by_name("inference.ModelConfig")
        .expect("the message")
}

fn dynamic(text: &str) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor());
    let config = parse_text(text).expect("the text is well formed");
    message.transcode_from(&config).expect("the same message");
    message
}

fn check(message: &DynamicMessage) -> Result<(Checked, Vec<String>), ConfigError> {
    let config: ModelConfig = message.transcode_to().expect("the same message");
    let (checked, warnings) = Checked::new("m", &config)?;
    Ok((
        checked,
        warnings.into_iter().map(|warning| warning.path).collect(),
    ))
}

/// Another value of the same type.
fn other(value: &Value) -> Value {
    match value {
        Value::Bool(value) => Value::Bool(!value),
        Value::I32(_) => Value::I32(i32::MAX),
        Value::I64(_) => Value::I64(i64::MIN),
        Value::U32(_) => Value::U32(u32::MAX - 1),
        Value::U64(_) => Value::U64(u64::MAX),
        Value::String(_) => Value::String("../other".into()),
        Value::EnumNumber(_) => Value::EnumNumber(99),
        other => panic!("no field of the table has {other:?}"),
    }
}

/// The message once for each value in it, with that value changed, and the path of the field.
fn variants(message: &DynamicMessage, prefix: &str) -> Vec<(String, DynamicMessage)> {
    let mut found = Vec::new();
    for (field, value) in message.fields() {
        let path = match prefix {
            "" => field.name().to_owned(),
            _ => format!("{prefix}.{}", field.name()),
        };
        let values: Vec<(String, Value)> = match value {
            Value::List(items) => {
                let mut changed = Vec::new();
                for (index, item) in items.iter().enumerate() {
                    changed.extend(changes(item, &path).into_iter().map(|(path, item)| {
                        let mut items = items.clone();
                        items[index] = item;
                        (path, Value::List(items))
                    }));
                }
                changed
            }
            Value::Map(entries) => {
                let mut changed = Vec::new();
                for (key, item) in entries {
                    changed.extend(changes(item, &path).into_iter().map(|(path, item)| {
                        let mut entries = entries.clone();
                        entries.insert(key.clone(), item);
                        (path, Value::Map(entries))
                    }));
                }
                changed
            }
            item => changes(item, &path),
        };
        for (path, value) in values {
            let mut changed = message.clone();
            changed.set_field(&field, value);
            found.push((path, changed));
        }
        if matches!(field.kind(), Kind::Message(inner) if inner.fields().len() == 0) {
            let mut changed = message.clone();
            changed.clear_field(&field);
            found.push((path, changed));
        }
    }
    found
}

fn changes(value: &Value, path: &str) -> Vec<(String, Value)> {
    match value {
        Value::Message(inner) => variants(inner, path)
            .into_iter()
            .map(|(path, inner)| (path, Value::Message(inner)))
            .collect(),
        scalar => vec![(path.to_owned(), other(scalar))],
    }
}

/// Honoured fields that hold a value themselves, and honoured messages that are a word by themselves.
fn honoured_leaves() -> BTreeSet<&'static str> {
    let is_parent = |path: &str| {
        FIELDS
            .iter()
            .any(|row| row.path.starts_with(&format!("{path}.")))
    };
    FIELDS
        .iter()
        .filter(|row| row.support == Support::Honoured && !is_parent(row.path))
        .map(|row| row.path)
        .collect()
}

#[test]
fn every_honoured_field_changes_the_outcome() {
    let mut seen = BTreeSet::new();
    for text in HONOURED {
        let message = dynamic(text);
        let before = check(&message).unwrap_or_else(|error| panic!("{text}: {error}"));
        for (path, changed) in variants(&message, "") {
            assert_ne!(
                check(&changed).ok().as_ref(),
                Some(&before),
                "{path} changes nothing"
            );
            seen.insert(path);
        }
    }
    let leaves = honoured_leaves();
    let unseen: Vec<_> = leaves
        .iter()
        .filter(|path| !seen.contains(**path))
        .collect();
    assert!(unseen.is_empty(), "no configuration here sets {unseen:?}");
}

/// A configuration that sets the field of this path, and whatever holds it, to something.
fn setting(message: &MessageDescriptor, path: &str) -> DynamicMessage {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let field = message.get_field_by_name(name).expect(path);
    let item = |kind: Kind| match (kind, rest) {
        (Kind::Message(inner), Some(rest)) => Value::Message(setting(&inner, rest)),
        (Kind::Message(inner), None) => Value::Message(DynamicMessage::new(inner)),
        (Kind::Bool, _) => Value::Bool(true),
        (Kind::String, _) => Value::String("a".into()),
        (Kind::Int32, _) => Value::I32(1),
        (Kind::Int64, _) => Value::I64(1),
        (Kind::Uint32, _) => Value::U32(1),
        (Kind::Uint64, _) => Value::U64(1),
        (Kind::Enum(_), _) => Value::EnumNumber(1),
        (kind, _) => panic!("no field of the table is {kind:?}"),
    };
    let value = match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            let key = prost_reflect::MapKey::String("a".into());
            let value = item(entry.map_entry_value_field().kind());
            Value::Map([(key, value)].into())
        }
        kind if field.is_list() => Value::List(vec![item(kind)]),
        kind => item(kind),
    };
    let mut made = DynamicMessage::new(message.clone());
    made.set_field(&field, value);
    made
}

#[test]
fn ignored_fields_only_warn_and_refused_ones_are_named() {
    let without_brackets = |path: &str| {
        let mut plain = String::new();
        let mut depth = 0;
        for c in path.chars() {
            match c {
                '[' => depth += 1,
                ']' => depth -= 1,
                _ if depth == 0 => plain.push(c),
                _ => {}
            }
        }
        plain
    };
    for row in FIELDS.iter().filter(|row| row.support != Support::Honoured) {
        let message = setting(&descriptor(), row.path);
        match check(&message) {
            Ok((_, warnings)) if row.support == Support::Ignored => {
                let paths: Vec<_> = warnings.iter().map(|path| without_brackets(path)).collect();
                assert_eq!(paths, [row.path]);
            }
            Err(ConfigError::Unsupported(refusals)) if row.support == Support::Refused => {
                assert_eq!(refusals.len(), 1, "{refusals:?}");
                assert_eq!(without_brackets(&refusals[0].path), row.path);
                assert_eq!(refusals[0].note, row.note);
            }
            other => panic!("{}: {other:?}", row.path),
        }
    }
}
