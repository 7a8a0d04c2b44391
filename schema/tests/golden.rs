//! Bytes of protocol version 1, kept as files: other implementations read the same ones, and a change of them is a
//! change of the protocol.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is a failed test"
)]

use adjoin_schema::attach::{
    AttachMessage, DeviceAttach, DeviceDetach, Hello, ModelInfo, TensorSpec,
};
use adjoin_schema::descriptor::{
    DescriptorWriter, OutputRoom, Regions, RequestDescriptor, ResponseDescriptor, TensorDescriptor,
    parse_request, parse_response,
};
use adjoin_schema::layout::{
    CompletionEntry, RegionKind, SessionLayout, SubmissionEntry, SubmissionKind, submit_flags,
};
use adjoin_schema::{DataType, Shape};

const PAYLOAD: std::ops::Range<u64> = 8192..1 << 20;

/// The kept bytes; with `ADJOIN_WRITE_VECTORS` set, written first.
fn kept(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name);
    if std::env::var_os("ADJOIN_WRITE_VECTORS").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn tensor<'n>(name: &'n str, dtype: DataType, dims: &[i64], offset: u64) -> TensorDescriptor<'n> {
    let byte_size = dtype.byte_size(dims).unwrap().unwrap();
    TensorDescriptor {
        name,
        dtype,
        shape: Shape::from_slice(dims),
        region: 0,
        offset,
        byte_size,
    }
}

#[test]
fn request_descriptors_of_version_1_are_read_as_ever() {
    let (mut writer, bytes) = (DescriptorWriter::new(), std::cell::OnceCell::new());
    let request = RequestDescriptor {
        model: "digits",
        version: 3,
        label: "stable",
        inputs: [
            tensor("image", DataType::Fp32, &[2, 1, 8, 8], 8192),
            tensor("mask", DataType::Bool, &[2], 16_384),
        ]
        .into_iter()
        .collect(),
        outputs: ["scores"].into_iter().collect(),
        rooms: Default::default(),
    };
    let bytes = bytes.get_or_init(|| kept("request.v1.bin", writer.request(&request).unwrap()));
    assert_eq!(parse_request(bytes, &PAYLOAD).unwrap(), request);
}

struct WithDevice;

impl Regions for WithDevice {
    fn payload(&self, region: u32) -> Option<std::ops::Range<u64>> {
        (region == 2).then_some(0..1 << 21)
    }
}

#[test]
fn requests_with_tensors_on_a_device_are_read_as_ever() {
    let (mut writer, bytes) = (DescriptorWriter::new(), std::cell::OnceCell::new());
    let input = TensorDescriptor {
        region: 2,
        ..tensor("image", DataType::Fp32, &[2, 1, 8, 8], 4096)
    };
    let room = OutputRoom {
        name: "scores",
        region: 2,
        offset: 8192,
        byte_size: 128,
    };
    let request = RequestDescriptor {
        model: "digits",
        version: 0,
        label: "",
        inputs: [input].into_iter().collect(),
        outputs: Default::default(),
        rooms: [room].into_iter().collect(),
    };
    let bytes =
        bytes.get_or_init(|| kept("request_device.v1.bin", writer.request(&request).unwrap()));
    assert_eq!(parse_request(bytes, &WithDevice).unwrap(), request);
}

#[test]
fn messages_about_device_regions_are_read_as_ever() {
    let attach = AttachMessage::DeviceAttach(DeviceAttach {
        query_id: 6,
        byte_size: 1 << 21,
        device_uuid: *b"GPU-0123456789ab",
    });
    let detach = AttachMessage::DeviceDetach(DeviceDetach {
        query_id: 7,
        region: 2,
    });
    for (name, message) in [
        ("device_attach.v1.bin", attach),
        ("device_detach.v1.bin", detach),
    ] {
        assert_eq!(
            AttachMessage::parse(&kept(name, &message.encode())),
            Ok(message)
        );
    }
}

#[test]
fn response_descriptors_of_version_1_are_read_as_ever() {
    let (mut writer, bytes) = (DescriptorWriter::new(), std::cell::OnceCell::new());
    let outputs = [tensor("scores", DataType::Fp32, &[2, 10], 8256)]
        .into_iter()
        .collect();
    let response = ResponseDescriptor {
        model_version: 3,
        outputs,
    };
    let bytes = bytes.get_or_init(|| kept("response.v1.bin", writer.response(&response).unwrap()));
    assert_eq!(parse_response(bytes, &PAYLOAD).unwrap(), response);
}

#[test]
fn attach_messages_of_version_1_are_read_as_ever() {
    let hello = AttachMessage::Hello(Hello {
        protocol: 1,
        request_bytes: 1 << 24,
        response_bytes: 1 << 23,
        ring_entries: 256,
        token: Some([7; 16]),
        client_name: "camera".into(),
    });
    assert_eq!(
        AttachMessage::parse(&kept("hello.v1.bin", &hello.encode())),
        Ok(hello)
    );
    let spec = TensorSpec {
        name: "image".into(),
        dtype: DataType::Fp32,
        shape: Shape::from_slice(&[-1, 1, 8, 8]),
        dimension_names: vec!["batch".into(), String::new(), String::new(), String::new()],
    };
    let info = AttachMessage::ModelInfo(ModelInfo {
        query_id: 5,
        model: "digits".into(),
        version: 3,
        ready_versions: vec![1, 3],
        engine: "onnxruntime".into(),
        max_batch_size: 32,
        inputs: vec![spec.clone()],
        outputs: vec![spec],
    });
    assert_eq!(
        AttachMessage::parse(&kept("model_info.v1.bin", &info.encode())),
        Ok(info)
    );
}

fn words(words: [u64; 8]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn entries_and_headers_of_version_1_lie_as_ever() {
    let submission = SubmissionEntry {
        kind: SubmissionKind::Submit as u8,
        flags: submit_flags::PREPARE,
        priority: 0x0203,
        prepared_id: 0x0405_0607,
        request_id: 0x0809_0a0b_0c0d_0e0f,
        offset: 0x1011_1213_1415_1617,
        size: 0x1819_1a1b,
        region_id: 0,
        deadline_ns: 0x2021_2223_2425_2627,
        generation: 0x2829_2a2b,
        reserved0: 0,
        reserved: [0; 2],
    };
    let bytes = words(submission.to_words());
    assert_eq!(kept("submission.v1.bin", &bytes), bytes);
    let completion = CompletionEntry {
        status: 0x0001,
        flags: 0x0203,
        batch_size: 0x0405_0607,
        request_id: 0x0809_0a0b_0c0d_0e0f,
        response_offset: 0x1011_1213_1415_1617,
        response_size: 0x1819_1a1b,
        generation: 0x1c1d_1e1f,
        queue_ns: 0x2021_2223_2425_2627,
        execute_ns: 0x2829_2a2b_2c2d_2e2f,
        detail: [0x3031_3233_3435_3637, 0x3839_3a3b_3c3d_3e3f],
    };
    let bytes = words(completion.to_words());
    assert_eq!(kept("completion.v1.bin", &bytes), bytes);
    let layout = SessionLayout::new(1 << 20, 1 << 19, 64).unwrap();
    for (kind, name) in [
        (RegionKind::Request, "request_header.v1.bin"),
        (RegionKind::Response, "response_header.v1.bin"),
    ] {
        let header = bytemuck::bytes_of(&layout.header(kind, 9)).to_vec();
        assert_eq!(kept(name, &header), header);
    }
}
