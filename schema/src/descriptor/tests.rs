//! A descriptor is hostile until it is parsed: every field out of bounds, and bytes flipped at random.

use std::ops::Range;

use proptest::prelude::*;
use smallvec::smallvec;

use super::*;

const PAYLOAD: Range<u64> = 8192..1 << 20;

fn tensor<'n>(name: &'n str, offset: u64, dims: &[i64]) -> TensorDescriptor<'n> {
    let byte_size = DataType::Fp32.byte_size(dims).ok().flatten().unwrap_or(4);
    TensorDescriptor {
        name,
        dtype: DataType::Fp32,
        shape: dims.into(),
        region: 0,
        offset,
        byte_size,
    }
}

fn request<'a>(inputs: SmallVec<[TensorDescriptor<'a>; 4]>) -> RequestDescriptor<'a> {
    RequestDescriptor {
        model: "digits",
        version: 3,
        label: "stable",
        inputs,
        outputs: smallvec!["scores"],
        rooms: SmallVec::new(),
    }
}

fn outcome(request: &RequestDescriptor<'_>) -> Result<(), Rejection> {
    let mut writer = DescriptorWriter::new();
    let bytes = writer.request(request).unwrap().to_vec();
    parse_request(&bytes, &PAYLOAD).map(|_| ())
}

#[test]
fn what_is_written_is_read_back() {
    let (mut writer, mut second_writer) = (DescriptorWriter::new(), DescriptorWriter::new());
    let sent = request(smallvec![
        tensor("a", 8192, &[2, 3]),
        tensor("b", 8256, &[])
    ]);
    let bytes = writer.request(&sent).unwrap();
    assert_eq!(parse_request(bytes, &PAYLOAD).unwrap(), sent);

    let response = ResponseDescriptor {
        model_version: 7,
        outputs: smallvec![tensor("y", 8192, &[1, 10])],
    };
    let bytes = second_writer.response(&response).unwrap();
    assert!(bytes.len() as u64 <= response_descriptor_bytes([("y", 2)].into_iter()));
    assert_eq!(parse_response(bytes, &PAYLOAD).unwrap(), response);
}

#[test]
fn response_descriptors_fit_what_is_reserved() {
    let name = "x".repeat(TENSOR_NAME_BYTES_MAX);
    for count in [1, 2, 5, TENSORS_MAX] {
        for (name, rank) in [("y", 0), ("yy", RANK_MAX), (name.as_str(), 3)] {
            let one = TensorDescriptor {
                name,
                dtype: DataType::Int8,
                shape: smallvec![1; rank],
                region: 0,
                offset: 8192,
                byte_size: 1,
            };
            // Those on a device take a word more.
            let output = |index: usize| TensorDescriptor {
                region: [0, 7, u32::MAX][index % 3],
                ..one.clone()
            };
            let response = ResponseDescriptor {
                model_version: 1,
                outputs: (1..=count).map(output).collect(),
            };
            let mut writer = DescriptorWriter::new();
            let Ok(bytes) = writer.response(&response) else {
                continue;
            };
            let reserved = response_descriptor_bytes(std::iter::repeat_n((name, rank), count));
            assert!(
                bytes.len() as u64 <= reserved,
                "{} bytes, {reserved} reserved",
                bytes.len()
            );
        }
    }
}

#[test]
fn tensor_past_the_region_is_refused() {
    for (offset, dims) in [
        (PAYLOAD.end - 64, &[17][..]),
        (PAYLOAD.end, &[1]),
        (u64::MAX - 63, &[16]),
        (0, &[1]),
        (PAYLOAD.start - 64, &[1]),
    ] {
        let got = outcome(&request(smallvec![tensor("a", offset, dims)])).unwrap_err();
        assert_eq!(
            got,
            Rejection::new(Status::ExtentOutOfRegion, [0, PAYLOAD.end]),
            "offset {offset}"
        );
    }
    assert_eq!(
        outcome(&request(smallvec![tensor("a", PAYLOAD.end - 64, &[16])])),
        Ok(())
    );
}

#[test]
fn misaligned_overlapping_and_missized_tensors_are_refused() {
    let status = |inputs| outcome(&request(inputs)).unwrap_err();
    assert_eq!(
        status(smallvec![tensor("a", 8200, &[1])]).status,
        Status::ExtentMisaligned
    );
    let overlap = smallvec![tensor("a", 8320, &[16]), tensor("b", 8192, &[64])];
    assert_eq!(
        status(overlap),
        Rejection::new(Status::ExtentsOverlap, [1, 0])
    );
    let mut wrong = tensor("a", 8192, &[4]);
    wrong.byte_size = 12;
    assert_eq!(
        status(smallvec![wrong]),
        Rejection::new(Status::ByteSizeMismatch, [0, 16])
    );
}

#[test]
fn negative_huge_and_deep_shapes_are_refused() {
    let status = |dims: &[i64]| {
        outcome(&request(smallvec![tensor("a", 8192, dims)]))
            .unwrap_err()
            .status
    };
    assert_eq!(status(&[-1]), Status::ShapeMismatch);
    assert_eq!(status(&[i64::MAX, i64::MAX]), Status::ShapeMismatch);
    assert_eq!(status(&[1; RANK_MAX + 1]), Status::DescriptorInvalid);
}

#[test]
fn names_and_counts_above_the_limits_are_refused() {
    let long = "n".repeat(TENSOR_NAME_BYTES_MAX + 1);
    assert_eq!(
        outcome(&request(smallvec![tensor(&long, 8192, &[1])]))
            .unwrap_err()
            .status,
        Status::DescriptorInvalid
    );
    let many = (0..=TENSORS_MAX as u64)
        .map(|i| tensor("a", 8192 + 64 * i, &[1]))
        .collect();
    assert_eq!(
        outcome(&request(many)).unwrap_err().status,
        Status::DescriptorInvalid
    );
    for model in ["", "..", ".", "a/b", "a\0b", "über"] {
        let mut bad = request(smallvec![]);
        bad.model = model;
        assert_eq!(
            outcome(&bad).unwrap_err().status,
            Status::DescriptorInvalid,
            "{model:?}"
        );
    }
}

#[test]
fn unknown_data_type_is_named() {
    let mut fbb = FlatBufferBuilder::new();
    let name = Some(fbb.create_string("a"));
    let shape = Some(fbb.create_vector(&[1i64]));
    let args = wire::TensorArgs {
        name,
        dtype: wire::DataType(99),
        shape,
        offset: 8192,
        byte_size: 4,
        region: 0,
    };
    let tensor = wire::Tensor::create(&mut fbb, &args);
    let inputs = Some(fbb.create_vector(&[tensor]));
    let model = Some(fbb.create_string("digits"));
    let root = wire::InferRequest::create(
        &mut fbb,
        &wire::InferRequestArgs {
            model,
            inputs,
            ..Default::default()
        },
    );
    fbb.finish(root, None);
    let got = parse_request(fbb.finished_data(), &PAYLOAD).unwrap_err();
    assert_eq!(got.status, Status::DataTypeUnknown);
}

#[test]
fn oversized_descriptor_is_not_written() {
    let name = "n".repeat(TENSOR_NAME_BYTES_MAX);
    let inputs = (0..TENSORS_MAX as u64)
        .map(|i| tensor(&name, 8192 + 64 * i, &[1, 1, 1, 1, 1, 1, 1, 1]))
        .collect();
    let mut writer = DescriptorWriter::new();
    assert_eq!(
        writer.request(&request(inputs)).unwrap_err().status,
        Status::DescriptorTooLarge
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Whatever bytes come, parsing ends, and what it accepts lies in the region.
    #[test]
    fn damaged_descriptors_never_reach_outside(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>(), cut_it in any::<bool>()) {
        let mut writer = DescriptorWriter::new();
        let mut bytes = writer.request(&request(smallvec![tensor("a", 8192, &[2, 3]), tensor("b", 8256, &[4])])).unwrap().to_vec();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut_it {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(parsed) = parse_request(&bytes, &PAYLOAD) {
            for input in &parsed.inputs {
                prop_assert!(input.offset >= PAYLOAD.start && input.offset + input.byte_size <= PAYLOAD.end);
                prop_assert_eq!(input.offset % ALIGNMENT, 0);
            }
        }
    }
}

/// A session with a device region of 4 KiB beside its own.
struct WithDevice;

impl Regions for WithDevice {
    fn payload(&self, region: u32) -> Option<Range<u64>> {
        match region {
            0 => Some(PAYLOAD),
            3 => Some(0..4096),
            _ => None,
        }
    }
}

fn room<'a>(region: u32, offset: u64, byte_size: u64) -> OutputRoom<'a> {
    OutputRoom {
        name: "scores",
        region,
        offset,
        byte_size,
    }
}

/// A request with an input of 64 bytes at the start of device region 3, and these rooms.
fn on_device<'a>(rooms: &[OutputRoom<'a>]) -> RequestDescriptor<'a> {
    let input = TensorDescriptor {
        region: 3,
        ..tensor("a", 0, &[16])
    };
    RequestDescriptor {
        rooms: rooms.into(),
        ..request(smallvec![input])
    }
}

#[test]
fn tensors_and_rooms_on_a_device_survive_the_wire() {
    let mut writer = DescriptorWriter::new();
    let bytes = writer
        .request(&on_device(&[room(3, 64, 128)]))
        .unwrap()
        .to_vec();
    let bytes = bytes.as_slice();
    let parsed = parse_request(bytes, &WithDevice).unwrap();
    assert_eq!(parsed, on_device(&[room(3, 64, 128)]));
    // A session that has no such region.
    let refused = parse_request(bytes, &PAYLOAD).unwrap_err();
    assert_eq!(refused, Rejection::new(Status::DeviceRegionUnknown, [0, 3]));
}

#[test]
fn rooms_are_checked_as_inputs_are() {
    let refused = |rooms: &[OutputRoom<'_>]| {
        let mut writer = DescriptorWriter::new();
        let bytes = writer.request(&on_device(rooms)).unwrap();
        let parsed = parse_request(bytes, &WithDevice).map(|_| ());
        let rejection = parsed.unwrap_err();
        (rejection.status, rejection.detail)
    };
    let overlap = |one, other| (Status::ExtentsOverlap, [one, other]);
    assert_eq!(refused(&[room(3, 0, 64)]), overlap(0, 1));
    assert_eq!(
        refused(&[room(3, 64, 128), room(3, 128, 64)]),
        overlap(1, 2)
    );
    assert_eq!(
        refused(&[room(3, 64, 64), room(3, 4096, 64)]),
        (Status::ExtentOutOfRegion, [2, 4096])
    );
    assert_eq!(
        refused(&[room(3, u64::MAX - 63, 64)]),
        (Status::ExtentOutOfRegion, [1, 4096])
    );
    assert_eq!(
        refused(&[room(3, 65, 64)]),
        (Status::ExtentMisaligned, [1, 65])
    );
    assert_eq!(
        refused(&[room(9, 64, 64)]),
        (Status::DeviceRegionUnknown, [1, 9])
    );
    // The server's own memory is not a client's to give.
    assert_eq!(refused(&[room(0, 16384, 64)]).0, Status::DescriptorInvalid);
    let many = vec![room(3, 64, 0); TENSORS_MAX + 1];
    assert_eq!(refused(&many).0, Status::DescriptorInvalid);
}
