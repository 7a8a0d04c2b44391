//! Calls as HTTP bodies: JSON, raw bytes behind it, and what is refused.

use adjoin_oip::http::{body, call};
use adjoin_oip::{Call, Content, Kind, Reply, ReplyContent, ReplyOutput, Target};
use adjoin_schema::{DataType, Shape};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

fn read(body: &[u8], json_bytes: Option<&str>) -> Result<Call, String> {
    call("m", "", &Bytes::copy_from_slice(body), json_bytes).map_err(|fault| {
        assert_eq!(fault.kind, Kind::InvalidArgument, "{fault}");
        fault.text
    })
}

fn of(message: &Value) -> Result<Call, String> {
    read(message.to_string().as_bytes(), None)
}

fn input(datatype: &str, shape: Value, data: Value) -> Value {
    json!({ "inputs": [{ "name": "x", "datatype": datatype, "shape": shape, "data": data }] })
}

fn bytes(call: &Call) -> &[u8] {
    match &call.inputs[0].content {
        Content::Message(bytes) => bytes,
        Content::Region(slice) => panic!("in region {slice:?}"),
    }
}

fn refused(result: Result<Call, String>, words: &[&str]) {
    let text = result.expect_err("it is wrong");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

#[test]
fn elements_are_read_flat_or_nested_in_their_type() {
    let nested = of(&input("INT16", json!([2, 2]), json!([[1, -1], [256, 0]]))).unwrap();
    assert_eq!(bytes(&nested), [1, 0, 0xff, 0xff, 0, 1, 0, 0]);
    let flat = of(&input("INT16", json!([2, 2]), json!([1, -1, 256, 0]))).unwrap();
    assert_eq!(bytes(&flat), bytes(&nested));
    let floats = of(&input("FP32", json!([2]), json!([1, 2.5]))).unwrap();
    assert_eq!(
        bytes(&floats),
        [1f32.to_le_bytes(), 2.5f32.to_le_bytes()].concat()
    );
    let halves = of(&input("FP16", json!([1]), json!([1.5]))).unwrap();
    assert_eq!(bytes(&halves), half::f16::from_f32(1.5).to_le_bytes());
    let bools = of(&input("BOOL", json!([3]), json!([true, false, 1]))).unwrap();
    assert_eq!(bytes(&bools), [1, 0, 1]);
    let strings = of(&input("BYTES", json!([2]), json!(["é", ""]))).unwrap();
    assert_eq!(bytes(&strings), "\x02\0\0\0é\0\0\0\0".as_bytes());
    let large = of(&input("UINT64", json!([1]), json!([u64::MAX]))).unwrap();
    assert_eq!(bytes(&large), u64::MAX.to_le_bytes());
}

#[test]
fn raw_bytes_follow_the_json_in_the_order_of_the_inputs() {
    let message = json!({
        "id": "7",
        "parameters": { "binary_data_output": true, "priority": 2 },
        "inputs": [
            { "name": "x", "datatype": "UINT8", "shape": [3], "parameters": { "binary_data_size": 3 } },
            { "name": "y", "datatype": "BYTES", "shape": [1], "parameters": { "binary_data_size": 5 } },
        ],
        "outputs": [{ "name": "a" }, { "name": "b", "parameters": { "binary_data": false } }],
    });
    let json = message.to_string();
    let whole = [json.as_bytes(), b"abc\x01\0\0\0z"].concat();
    let length = json.len().to_string();
    let call = read(&whole, Some(&length)).unwrap();
    assert_eq!(
        (call.id.as_str(), call.parameters.priority, bytes(&call)),
        ("7", 2, b"abc".as_slice())
    );
    assert_eq!(call.outputs[0].target, Target::Message { is_binary: true });
    assert_eq!(call.outputs[1].target, Target::Message { is_binary: false });
    refused(
        read(&whole[..whole.len() - 1], Some(&length)),
        &["'y'", "is 5", "4 bytes"],
    );
    refused(
        read(&[&whole, b"!".as_slice()].concat(), Some(&length)),
        &["1 of the body's"],
    );
    refused(read(&whole, Some("100000")), &["100000"]);
    refused(read(&whole, Some("-1")), &["\"-1\""]);
}

#[test]
fn what_is_wrong_is_named_with_what_was_expected() {
    refused(
        of(&input("INT8", json!([1]), json!([300]))),
        &["'x'", "300 is no INT8"],
    );
    refused(
        of(&input("INT32", json!([1]), json!([1.5]))),
        &["1.5 is no INT32"],
    );
    refused(
        of(&input("FP32", json!([1]), json!(["a"]))),
        &["\"a\" is no FP32"],
    );
    refused(
        of(&input("FP32", json!([1]), json!([null]))),
        &["elements of FP32"],
    );
    refused(of(&input("FP32", json!([1]), json!(1))), &["list"]);
    refused(
        of(&input("FP32", json!([2]), json!([1]))),
        &["2 elements", "has 1"],
    );
    refused(
        of(&input("FP32", json!([1]), json!([1, 2]))),
        &["more elements than the shape's 1"],
    );
    refused(
        of(&input("FP32", json!([-1]), json!([1]))),
        &["dimension 0 is -1"],
    );
    refused(of(&input("FP32", json!([1e30]), json!([1]))), &["JSON"]);
    refused(
        of(&json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1] }] })),
        &["'data'"],
    );
    let both = json!({ "inputs": [{ "name": "x", "datatype": "UINT8", "shape": [1], "data": [1],
        "parameters": { "binary_data_size": 1 } }] });
    refused(of(&both), &["more than one"]);
    let output = json!({ "inputs": [], "outputs": [{ "name": "y", "parameters": {
        "shared_memory_region": "r", "shared_memory_byte_size": 4, "classification": 2 } }] });
    refused(of(&output), &["'y'", "'classification'"]);
    for text in [
        "",
        "[]",
        "{",
        "{\"inputs\": 3}",
        "\"x\"",
        "{\"id\": \"a\"}",
        "{\"inputs\": []} x",
    ] {
        refused(read(text.as_bytes(), None), &["JSON"]);
    }
    refused(read(b"{\"inputs\": [], \"id\": \"\xff\"}", None), &["JSON"]);
    let deep = format!(
        "{{\"inputs\": [], \"parameters\": {{\"p\": {}",
        "[".repeat(100_000)
    );
    refused(read(deep.as_bytes(), None), &["EOF"]);
    let nested = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = format!(
        "{{\"inputs\":[{{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":{nested}}}]}}"
    );
    refused(read(deep.as_bytes(), None), &["recursion"]);
}

fn answer(outputs: Vec<ReplyOutput>) -> Reply {
    Reply {
        model: "m".into(),
        version: 3,
        id: "i".into(),
        outputs,
    }
}

fn output(
    name: &str,
    dtype: DataType,
    shape: &[i64],
    bytes: &'static [u8],
    is_binary: bool,
) -> ReplyOutput {
    let content = ReplyContent::Message {
        bytes: Bytes::from_static(bytes),
        is_binary,
    };
    ReplyOutput {
        name: name.into(),
        dtype,
        shape: Shape::from_slice(shape),
        content,
    }
}

#[test]
fn answers_are_json_with_raw_bytes_behind_where_they_are_asked_for() {
    let plain = body(&answer(vec![output(
        "y",
        DataType::Int16,
        &[1, 2],
        &[1, 0, 0xff, 0xff],
        false,
    )]))
    .unwrap();
    assert_eq!((plain.json_bytes, plain.parts.len()), (None, 1));
    let json: Value = serde_json::from_slice(&plain.parts[0]).unwrap();
    assert_eq!(
        json,
        json!({ "id": "i", "model_name": "m", "model_version": "3",
            "outputs": [{ "name": "y", "datatype": "INT16", "shape": [1, 2], "data": [1, -1] }] })
    );
    let mixed = body(&answer(vec![
        output("s", DataType::Bytes, &[2], b"\x01\0\0\0a\0\0\0\0", false),
        output("y", DataType::Uint8, &[3], b"xyz", true),
    ]))
    .unwrap();
    assert_eq!(mixed.json_bytes, Some(mixed.parts[0].len()));
    assert_eq!(mixed.parts[1], Bytes::from_static(b"xyz"));
    let json: Value = serde_json::from_slice(&mixed.parts[0]).unwrap();
    assert_eq!(json["outputs"][0]["data"], json!(["a", ""]));
    assert_eq!(
        json["outputs"][1]["parameters"],
        json!({ "binary_data_size": 3 })
    );
}

#[test]
fn values_that_json_does_not_have_are_refused_with_advice() {
    let not_finite: &'static [u8] = &[0, 0, 0xc0, 0x7f];
    for reply in [
        answer(vec![output("y", DataType::Fp32, &[1], not_finite, false)]),
        answer(vec![output(
            "y",
            DataType::Bytes,
            &[1],
            b"\x01\0\0\0\xff",
            false,
        )]),
    ] {
        let fault = body(&reply).unwrap_err();
        assert!(
            fault.text.contains("'y'") && fault.text.contains("\"binary_data\": true"),
            "{fault}"
        );
    }
}

proptest! {
    #[test]
    fn any_body_is_a_call_or_a_fault(
        body in prop::collection::vec(any::<u8>(), 0..200),
        json_bytes in prop::option::of("[-0-9]{0,4}"),
    ) {
        let _ = call("m", "", &Bytes::from(body), json_bytes.as_deref());
    }

    #[test]
    fn numbers_come_back_as_they_went(values in prop::collection::vec(any::<f32>().prop_filter("finite", |v| v.is_finite()), 0..20)) {
        let count = values.len();
        let call = of(&input("FP32", json!([count]), json!(values))).unwrap();
        let bytes = Bytes::copy_from_slice(bytes(&call));
        let content = ReplyContent::Message { bytes, is_binary: false };
        let shape = Shape::from_slice(&[i64::try_from(count).unwrap()]);
        let output = ReplyOutput { name: "y".into(), dtype: DataType::Fp32, shape, content };
        let body = body(&answer(vec![output])).unwrap();
        let json: Value = serde_json::from_slice(&body.parts[0]).unwrap();
        let back: Vec<f32> = serde_json::from_value(json["outputs"][0]["data"].clone()).unwrap();
        prop_assert_eq!(back, values);
    }
}
