//! Calls as gRPC messages: both kinds of contents, shared memory, and what is refused.

use std::collections::HashMap;

use adjoin_control_api::inference::infer_parameter::ParameterChoice;
use adjoin_control_api::inference::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use adjoin_control_api::inference::{InferParameter, InferTensorContents, ModelInferRequest};
use adjoin_oip::{
    Call, Content, Fault, Kind, Reply, ReplyContent, ReplyOutput, Target, VersionChoice, grpc,
};
use adjoin_schema::{DataType, Shape};
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

fn parameters(list: &[(&str, ParameterChoice)]) -> HashMap<String, InferParameter> {
    let parameter = |choice: &ParameterChoice| InferParameter {
        parameter_choice: Some(choice.clone()),
    };
    list.iter()
        .map(|(name, choice)| ((*name).to_owned(), parameter(choice)))
        .collect()
}

fn input(datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: "x".into(),
        datatype: datatype.into(),
        shape: shape.into(),
        ..Default::default()
    }
}

fn typed(datatype: &str, shape: &[i64], contents: InferTensorContents) -> InferInputTensor {
    InferInputTensor {
        contents: Some(contents),
        ..input(datatype, shape)
    }
}

fn in_region(offset: i64, byte_size: i64) -> InferInputTensor {
    let choices = [
        (
            "shared_memory_region",
            ParameterChoice::StringParam("r".into()),
        ),
        ("shared_memory_offset", ParameterChoice::Int64Param(offset)),
        (
            "shared_memory_byte_size",
            ParameterChoice::Int64Param(byte_size),
        ),
    ];
    InferInputTensor {
        parameters: parameters(&choices),
        ..input("FP32", &[2])
    }
}

fn message(inputs: Vec<InferInputTensor>, raw: &[&'static [u8]]) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "m".into(),
        inputs,
        raw_input_contents: raw.iter().map(|bytes| Bytes::from_static(bytes)).collect(),
        ..Default::default()
    }
}

fn bytes(call: &Call, index: usize) -> &[u8] {
    match &call.inputs[index].content {
        Content::Message(bytes) => bytes,
        Content::Region(slice) => panic!("in region {slice:?}"),
    }
}

fn refused(message: ModelInferRequest, words: &[&str]) {
    let fault: Fault = grpc::call(message).expect_err("it is wrong");
    assert_eq!(fault.kind, Kind::InvalidArgument, "{fault}");
    for word in words {
        assert!(fault.text.contains(word), "{word:?} is not in {fault}");
    }
}

#[test]
fn raw_contents_go_to_the_inputs_that_have_no_other() {
    let call = grpc::call(message(
        vec![input("UINT8", &[3]), in_region(64, 8), input("BYTES", &[2])],
        &[b"abc", b"\x01\0\0\0a\0\0\0\0"],
    ))
    .unwrap();
    assert_eq!(
        (bytes(&call, 0), bytes(&call, 2)),
        (b"abc".as_slice(), b"\x01\0\0\0a\0\0\0\0".as_slice())
    );
    let Content::Region(slice) = &call.inputs[1].content else {
        panic!("not in a region")
    };
    assert_eq!(
        (slice.region.as_str(), slice.offset, slice.byte_size),
        ("r", 64, 8)
    );
}

#[test]
fn typed_contents_become_the_bytes_of_their_type() {
    let one = |datatype, contents| {
        let call = grpc::call(message(vec![typed(datatype, &[2], contents)], &[])).unwrap();
        bytes(&call, 0).to_vec()
    };
    let ints = |values: &[i32]| InferTensorContents {
        int_contents: values.into(),
        ..Default::default()
    };
    assert_eq!(one("INT8", ints(&[-1, 127])), [0xff, 0x7f]);
    assert_eq!(one("INT16", ints(&[-2, 256])), [0xfe, 0xff, 0, 1]);
    assert_eq!(
        one("INT32", ints(&[-1, 1])),
        [0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]
    );
    let uints = InferTensorContents {
        uint_contents: vec![255, 0],
        ..Default::default()
    };
    assert_eq!(one("UINT8", uints), [255, 0]);
    let floats = InferTensorContents {
        fp32_contents: vec![1.5, f32::NAN],
        ..Default::default()
    };
    assert_eq!(one("FP32", floats)[..4], 1.5f32.to_le_bytes());
    let bools = InferTensorContents {
        bool_contents: vec![true, false],
        ..Default::default()
    };
    assert_eq!(one("BOOL", bools), [1, 0]);
    let strings = InferTensorContents {
        bytes_contents: vec![b"\0\xff".to_vec(), Vec::new()],
        ..Default::default()
    };
    assert_eq!(one("BYTES", strings), b"\x02\0\0\0\0\xff\0\0\0\0");
}

#[test]
fn wrong_contents_are_named_with_what_was_expected() {
    let floats = |count| InferTensorContents {
        fp32_contents: vec![0.0; count],
        ..Default::default()
    };
    refused(
        message(vec![typed("FP32", &[2], floats(3))], &[]),
        &["'x'", "2 elements", "has 3"],
    );
    refused(
        message(vec![typed("INT32", &[2], floats(2))], &[]),
        &["int_contents", "fp32_contents"],
    );
    refused(
        message(vec![typed("FP16", &[2], floats(2))], &[]),
        &["raw_input_contents"],
    );
    let wide = InferTensorContents {
        int_contents: vec![128, 0],
        ..Default::default()
    };
    refused(
        message(vec![typed("INT8", &[2], wide)], &[]),
        &["128 is no INT8"],
    );
    refused(
        message(
            vec![typed("FP32", &[2], floats(2)), input("UINT8", &[1])],
            &[b"a"],
        ),
        &["same way"],
    );
    refused(
        message(vec![input("FP32", &[2])], &[b"1234567"]),
        &["8 bytes", "7 came"],
    );
    refused(message(vec![input("FP32", &[2])], &[]), &["no contents"]);
    refused(
        message(vec![input("UINT8", &[1])], &[b"a", b"b"]),
        &["2 raw_input_contents", "1 inputs"],
    );
    refused(
        message(vec![input("UINT8", &[1]), input("UINT8", &[1])], &[b"a"]),
        &["only 1"],
    );
    refused(
        message(
            vec![InferInputTensor {
                contents: Some(floats(2)),
                ..in_region(0, 8)
            }],
            &[],
        ),
        &["one of them"],
    );
    refused(message(vec![in_region(-1, 8)], &[]), &["is -1"]);
    refused(message(vec![in_region(0, 0)], &[]), &["is 0", "at least 1"]);
    for (raw, words) in [
        (
            b"\x05\0\0\0ab".as_slice(),
            ["string 0", "has 5 bytes", "2 are left"],
        ),
        (
            b"\x01\0\0\0a\xff\xff\xff\xff".as_slice(),
            ["string 1", "4294967295", "0 are left"],
        ),
        (
            b"\x01\0\0\0a\0\0".as_slice(),
            ["2 bytes are left", "string 1", "takes 4"],
        ),
        (
            b"\0\0\0\0\0\0\0\0zz".as_slice(),
            ["2 bytes are left", "after", "2 strings"],
        ),
    ] {
        refused(message(vec![input("BYTES", &[2])], &[raw]), &words);
    }
}

#[test]
fn impossible_tensors_are_named() {
    for (shape, word) in [
        (vec![-1, 4], "dimension 0 is -1"),
        (vec![i64::MAX, i64::MAX], "2^63"),
        (vec![i64::MAX], "2^63"),
        (vec![1; 9], "9 dimensions"),
    ] {
        refused(message(vec![input("FP64", &shape)], &[b""]), &[word]);
    }
    refused(
        message(vec![input("FLOAT", &[1])], &[b"1234"]),
        &["\"FLOAT\"", "FP32"],
    );
    let long = InferInputTensor {
        name: "n".repeat(300),
        ..input("UINT8", &[1])
    };
    refused(message(vec![long], &[b"a"]), &["300 bytes", "256"]);
    refused(
        message(vec![input("UINT8", &[0]); 65], &[]),
        &["65 inputs", "64"],
    );
    let twice = InferRequestedOutputTensor {
        name: "y".into(),
        ..Default::default()
    };
    refused(
        ModelInferRequest {
            outputs: vec![twice.clone(), twice],
            ..message(Vec::new(), &[])
        },
        &["'y'", "twice"],
    );
    for version in ["0", "1.5!", "-2", "99999999999999999999"] {
        refused(
            ModelInferRequest {
                model_version: version.into(),
                ..message(Vec::new(), &[])
            },
            &[version],
        );
    }
}

#[test]
fn versions_are_numbers_labels_or_none() {
    let version = |text: &str| {
        let message = ModelInferRequest {
            model_version: text.into(),
            ..message(Vec::new(), &[])
        };
        grpc::call(message).unwrap().version
    };
    assert_eq!(version(""), VersionChoice::Any);
    assert_eq!(version("-1"), VersionChoice::Any);
    assert_eq!(version("3"), VersionChoice::Number(3));
    assert_eq!(version("canary"), VersionChoice::Label("canary".into()));
}

#[test]
fn an_empty_tensor_needs_no_contents() {
    let call = grpc::call(message(vec![input("FP32", &[0, 3])], &[])).unwrap();
    assert_eq!(bytes(&call, 0), b"");
}

#[test]
fn outputs_in_regions_have_no_bytes_in_the_answer() {
    let output = |name: &str, content| ReplyOutput {
        name: name.into(),
        dtype: DataType::Fp32,
        shape: Shape::from_slice(&[1]),
        content,
    };
    let answer = grpc::reply(Reply {
        model: "m".into(),
        version: 2,
        id: "7".into(),
        outputs: vec![
            output("a", ReplyContent::Region),
            output(
                "b",
                ReplyContent::Message {
                    bytes: Bytes::from_static(b"1234"),
                    is_binary: false,
                },
            ),
        ],
    });
    assert_eq!(
        (answer.model_version.as_str(), answer.id.as_str()),
        ("2", "7")
    );
    // A place for each output, so that the bytes of the others are where clients look for them.
    let contents = [Bytes::new(), Bytes::from_static(b"1234")];
    assert_eq!(answer.raw_output_contents, contents);
    assert!(answer.outputs[0].parameters.is_empty());
    let asked = InferRequestedOutputTensor {
        name: "a".into(),
        parameters: parameters(&[
            (
                "shared_memory_region",
                ParameterChoice::StringParam("r".into()),
            ),
            ("shared_memory_byte_size", ParameterChoice::Int64Param(4)),
        ]),
    };
    let call = grpc::call(ModelInferRequest {
        outputs: vec![asked],
        ..message(Vec::new(), &[])
    })
    .unwrap();
    assert!(matches!(&call.outputs[0].target, Target::Region(slice) if slice.byte_size == 4));
}

proptest! {
    /// Whatever bytes arrive as a message: a call or a text, never a panic.
    #[test]
    fn any_message_is_a_call_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = ModelInferRequest::decode(bytes.as_slice()) {
            let _ = grpc::call(message);
        }
    }

    #[test]
    fn any_string_lengths_are_a_call_or_a_fault(
        raw in prop::collection::vec(any::<u8>(), 0..64),
        count in 0i64..20,
    ) {
        let raw = Bytes::from(raw);
        let message = ModelInferRequest {
            raw_input_contents: vec![raw.clone()],
            ..message(vec![input("BYTES", &[count])], &[])
        };
        if let Ok(call) = grpc::call(message) {
            let elements = adjoin_oip::string_elements(bytes(&call, 0), count.unsigned_abs());
            let elements: Vec<_> = elements.collect::<Result<_, _>>().unwrap();
            let sum: usize = elements.iter().map(|element| 4 + element.len()).sum();
            prop_assert_eq!(sum, raw.len());
        }
    }
}
