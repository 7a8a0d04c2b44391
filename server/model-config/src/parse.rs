//! Between [`ModelConfig`] and its two written forms, by the protocol's own descriptors.

use std::fmt;
use std::sync::LazyLock;

use adjoin_control_api::FILE_DESCRIPTOR_SET;
use adjoin_control_api::inference::ModelConfig;
use miette::Diagnostic;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};

use crate::error::{ConfigError, told};
use crate::plain::{Plain, place};

/// Longest configuration that is read, in bytes. Real ones have a few KiB; what is parsed takes some dozens of bytes of
/// memory for one of text.
pub const CONFIG_BYTES_MAX: usize = 1024 * 1024;

/// In which form a configuration is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Protocol buffers' text format, as in `config.pbtxt`.
    Text,
    /// Protocol buffers' JSON, as in a load request.
    Json,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "protobuf text format",
            Self::Json => "JSON",
        })
    }
}

static DESCRIPTOR: LazyLock<MessageDescriptor> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET)
        .expect("the descriptors were compiled from this repository's files");
    pool.get_message_by_name("inference.ModelConfig")
        .expect("model_config.proto is among those files")
});

/// The descriptor of [`ModelConfig`].
pub(crate) fn descriptor() -> MessageDescriptor {
    DESCRIPTOR.clone()
}

/// Reads protocol buffers' text format: the content of a `config.pbtxt`.
///
/// # Errors
/// [`ConfigError::TooLarge`], [`ConfigError::TooDeep`], and [`ConfigError::Syntax`] with the place for a syntax error, an
/// unknown field, an unknown word of an enumeration, a number out of range, and a field that is set twice.
pub fn parse_text(text: &str) -> Result<ModelConfig, ConfigError> {
    check_size(text)?;
    let plain = Plain::new(text)?;
    let message =
        DynamicMessage::parse_text_format(descriptor(), &plain.text).map_err(|error| {
            // Without a place it is the end of the text that came too early.
            let offset = error
                .labels()
                .and_then(|mut labels| labels.next())
                .map_or(text.len(), |label| plain.source_offset(label.offset()));
            let (line, column) = place(text, offset);
            ConfigError::Syntax {
                form: Form::Text,
                line,
                column,
                reason: told(&error.to_string()),
            }
        })?;
    Ok(typed(&message))
}

/// Reads protocol buffers' JSON: field names in either spelling, 64-bit numbers also as strings, `null` for unset.
///
/// # Errors
/// [`ConfigError::TooLarge`], and [`ConfigError::Syntax`] as [`parse_text`].
pub fn parse_json(json: &str) -> Result<ModelConfig, ConfigError> {
    check_size(json)?;
    let syntax = |error: serde_json::Error| {
        // The library ends its sentence with the place, which is said apart here.
        let said = error.to_string();
        let reason = said
            .rsplit_once(" at line ")
            .map_or(said.as_str(), |cut| cut.0);
        ConfigError::Syntax {
            form: Form::Json,
            line: error.line(),
            column: error.column(),
            reason: told(reason),
        }
    };
    let mut reader = serde_json::Deserializer::from_str(json);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(descriptor(), &mut reader, &options)
        .map_err(syntax)?;
    reader.end().map_err(syntax)?;
    Ok(typed(&message))
}

/// Protocol buffers' JSON as Triton's `GET /v2/models/NAME/config` has it: names in snake_case, 64-bit numbers as numbers,
/// fields at their default value included, messages that are not set left out.
#[must_use]
pub fn to_json(config: &ModelConfig) -> String {
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    let mut json = Vec::new();
    let mut writer = serde_json::Serializer::new(&mut json);
    dynamic(config)
        .serialize_with_options(&mut writer, &options)
        .expect("keys are strings, and memory takes what is written");
    String::from_utf8(json).expect("JSON of strings is UTF-8")
}

/// The same message, to be walked by its descriptor.
pub(crate) fn dynamic(config: &ModelConfig) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor());
    message
        .transcode_from(config)
        .expect("both are the same message of the same file");
    message
}

fn typed(message: &DynamicMessage) -> ModelConfig {
    message
        .transcode_to()
        .expect("both are the same message of the same file")
}

fn check_size(text: &str) -> Result<(), ConfigError> {
    let byte_size = text.len();
    if byte_size > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLarge { byte_size });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use adjoin_control_api::inference::model_config::SchedulingChoice;
    use proptest::prelude::*;

    use super::*;

    /// As Triton's users write it, with each of the format's spellings.
    const DIGITS: &str = r#"
        # The digits model.
        name: "digits"
        platform: "onnxruntime_onnx"
        max_batch_size: 0x10
        input [
          { name: "image" data_type: TYPE_FP32 dims: [ 1, 28, 28 ], reshape { shape: [ 784 ] } }
        ]
        output { name: 'logits' data_type: TYPE_FP32 dims: 10; label_filename: "lab" "els.txt" }
        instance_group [ < count: 2 kind: KIND_CPU > ]
        dynamic_batching { max_queue_delay_microseconds: 100 }
        parameters { key: "intra_op_thread_count" value { string_value: "2" } }
    "#;

    fn text_error(text: &str) -> String {
        parse_text(text).unwrap_err().to_string()
    }

    fn json_error(json: &str) -> String {
        parse_json(json).unwrap_err().to_string()
    }

    #[test]
    fn text_json_and_back_are_the_same_configuration() {
        let config = parse_text(DIGITS).unwrap();
        assert_eq!(config.max_batch_size, 16);
        assert_eq!(config.input[0].reshape.as_ref().unwrap().shape, [784]);
        assert_eq!(config.output[0].label_filename, "labels.txt");
        assert_eq!(config.parameters["intra_op_thread_count"].string_value, "2");
        assert_eq!(parse_json(&to_json(&config)).unwrap(), config);
        assert_eq!(parse_text("").unwrap(), ModelConfig::default());
        assert_eq!(parse_json("{}").unwrap(), ModelConfig::default());
    }

    #[test]
    fn json_takes_both_spellings_of_names_and_numbers_as_strings() {
        let json = r#"{"maxBatchSize": "16", "dynamic_batching": {"maxQueueDelayMicroseconds": "7"}, "output": null,
            "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["-1", 3]}]}"#;
        let config = parse_json(json).unwrap();
        assert_eq!(
            (config.max_batch_size, config.input[0].dims.as_slice()),
            (16, [-1, 3].as_slice())
        );
        let Some(SchedulingChoice::DynamicBatching(batching)) = config.scheduling_choice else {
            panic!("{:?}", config.scheduling_choice);
        };
        assert_eq!(batching.max_queue_delay_microseconds, 7);
    }

    #[test]
    fn json_is_written_as_clients_read_it() {
        let json: serde_json::Value =
            serde_json::from_str(&to_json(&parse_text(DIGITS).unwrap())).unwrap();
        assert_eq!(json["max_batch_size"], 16);
        assert_eq!(
            json["dynamic_batching"]["max_queue_delay_microseconds"],
            100
        );
        assert_eq!(json["input"][0]["dims"], serde_json::json!([1, 28, 28]));
        assert_eq!(json["input"][0]["data_type"], "TYPE_FP32");
        assert_eq!(json["input"][0]["format"], "FORMAT_NONE");
        assert_eq!(json["input"][0]["optional"], false);
        assert_eq!(json["batch_input"], serde_json::json!([]));
        assert_eq!(json["metric_tags"], serde_json::json!({}));
        // What is not set: clients ask whether the key is there.
        for absent in ["sequence_batching", "ensemble_scheduling", "response_cache"] {
            assert!(json.get(absent).is_none(), "{absent}");
        }
    }

    #[test]
    fn a_syntax_error_names_its_place() {
        for (text, words) in [
            (
                "name: \"a\"\n  max_batch: 3",
                ["line 2, column 3", "max_batch"],
            ),
            (
                "input { data_type: TYPE_FLOAT }",
                ["line 1, column 20", "TYPE_FLOAT"],
            ),
            (
                "max_batch_size: 99999999999",
                ["line 1, column 17", "out of range"],
            ),
            ("max_batch_size: \"16\"", ["line 1, column 17", "\"16\""]),
            ("input {\n", ["line 2, column 1", "end of input"]),
            ("name: \"a\" name: \"b\"", ["column 17", "already set"]),
            (
                "dynamic_batching { } sequence_batching { }",
                ["column 40", "scheduling_choice"],
            ),
            ("name: \"\0\"", ["column 8", "invalid string"]),
            ("\u{feff}name: \"a\"", ["line 1, column 1", "invalid token"]),
        ] {
            let error = text_error(text);
            assert!(
                words.iter().all(|word| error.contains(word)),
                "{text:?}: {error}"
            );
        }
        for (json, words) in [
            ("{\n \"max_batch\": 3}", ["line 2", "max_batch"]),
            ("{\"max_batch_size\": \"x\"}", ["line 1", "invalid"]),
            (
                "{\"input\": [{\"data_type\": \"FLOAT\"}]}",
                ["line 1", "FLOAT"],
            ),
            ("[]", ["line 1", "sequence"]),
            ("{} {}", ["line 1, column 4", "trailing"]),
            ("", ["line 1", "EOF"]),
        ] {
            let error = json_error(json);
            assert!(
                words.iter().all(|word| error.contains(word)),
                "{json:?}: {error}"
            );
        }
    }

    #[test]
    fn hostile_texts_are_refused_in_bounded_time_and_stack() {
        let large = " ".repeat(CONFIG_BYTES_MAX + 1);
        assert_eq!(
            parse_text(&large),
            Err(ConfigError::TooLarge {
                byte_size: large.len()
            })
        );
        assert_eq!(
            parse_json(&large),
            Err(ConfigError::TooLarge {
                byte_size: large.len()
            })
        );
        // Known message types can be named in an expansion, and hold another.
        let deep = "[a/inference.ModelConfig]{".repeat(CONFIG_BYTES_MAX / 26);
        assert_eq!(parse_text(&deep), Err(ConfigError::TooDeep { line: 1 }));
        let hidden = format!("name: \"\\\"\" # \"\n{}", "input <".repeat(100_000));
        assert_eq!(parse_text(&hidden), Err(ConfigError::TooDeep { line: 2 }));
        for token in [
            "[", "{", "-", "'a' ", "# x\n", "\n", "\t", "#", "name:", "dims: [", "0", "\\", "\"",
            ",",
        ] {
            let text = format!(
                "input {{ dims: {}",
                token.repeat(CONFIG_BYTES_MAX / 2 / token.len())
            );
            assert!(parse_text(&text).is_err(), "{token}");
        }
        for token in ["[", "{\"input\":", "{\"a\":", "[[1],"] {
            let json = token.repeat(CONFIG_BYTES_MAX / token.len());
            let error = json_error(&json);
            assert!(error.len() < 1000, "{error}");
        }
        let long_word = format!("{}: 1", "x".repeat(CONFIG_BYTES_MAX - 10));
        assert!(text_error(&long_word).len() < 1000);
    }

    /// Pieces of configurations, right and wrong, in any order.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "name",
            "input",
            "dims",
            "reshape",
            "parameters",
            "model_warmup",
            "dynamic_batching",
            "key",
            "value",
            ":",
            "{",
            "}",
            "[",
            "]",
            "<",
            ">",
            ",",
            ";",
            "\"",
            "'",
            "\\",
            "-",
            "0x",
            "1e999",
            "08",
            "99999999999999999999",
            "inf",
            "\0",
            "\n",
            "# ",
            "\u{1f600}",
            "\"a\"",
            "TYPE_FP32",
            "true",
            "[a/inference.ModelConfig]",
            "[x.y]",
            "null",
            "1.5",
            ".",
            "/",
        ]);
        prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_text_and_no_json_makes_it_panic(text in prop_oneof![pieces(), any::<String>()]) {
            if let Ok(config) = parse_text(&text) {
                prop_assert_eq!(parse_json(&to_json(&config)), Ok(config));
            }
            let _ = parse_json(&text);
        }

        #[test]
        fn nested_json_of_known_names_does_not_panic(json in json_values()) {
            if let Ok(config) = parse_json(&json.to_string()) {
                prop_assert_eq!(parse_json(&to_json(&config)), Ok(config));
            }
        }
    }

    fn json_values() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            prop::sample::select(vec!["", "16", "-1", "TYPE_FP32", "KIND_CPU", "1e3", "NaN"])
                .prop_map(Into::into),
        ];
        leaf.prop_recursive(6, 40, 6, |inner| {
            let names = prop::sample::select(vec![
                "name",
                "input",
                "dims",
                "data_type",
                "reshape",
                "shape",
                "parameters",
                "model_warmup",
                "inputs",
                "maxBatchSize",
                "dynamic_batching",
                "priority_queue_policy",
                "1",
                "instance_group",
                "kind",
                "optimization",
            ]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::hash_map(names, inner, 0..5).prop_map(|map| map
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect()),
            ]
        })
    }
}
