//! Descriptors of every wrong kind, through a real session.

use adjoin_schema::descriptor::{DescriptorWriter, RequestDescriptor, TensorDescriptor};
use adjoin_schema::layout::RegionKind;
use adjoin_schema::limits::DESCRIPTOR_BYTES_MAX;
use adjoin_schema::status::Status;
use adjoin_schema::{DataType, Shape};
use adjoin_tests::raw::{REGION_BYTES, RawClient};
use adjoin_tests::server::Setup;

use crate::neighbour::Neighbour;

fn tensor<'n>(name: &'n str, offset: u64, dims: &[i64]) -> TensorDescriptor<'n> {
    let byte_size = DataType::Fp32.byte_size(dims).ok().flatten().unwrap_or(16);
    TensorDescriptor {
        name,
        dtype: DataType::Fp32,
        shape: Shape::from_slice(dims),
        region: 0,
        offset,
        byte_size,
    }
}

fn request<'n>(inputs: &[TensorDescriptor<'n>]) -> RequestDescriptor<'n> {
    RequestDescriptor {
        model: "add",
        version: 0,
        label: "",
        inputs: inputs.into(),
        outputs: Default::default(),
        rooms: Default::default(),
    }
}

#[test]
fn each_wrong_descriptor_gets_its_status_and_the_session_goes_on() {
    let server = Setup::new(&["add"]).start();
    let mut session = RawClient::attach(&server.socket_dir());
    let payload = session.memory.layout().payload(RegionKind::Request);
    let (start, end) = (payload.start, payload.end);
    let at = |index: u64| start + 65_536 + 4096 * index;
    let (a, b) = (tensor("a", at(0), &[2, 4]), tensor("b", at(1), &[2, 4]));

    let good = session.submit(&request(&[a.clone(), b.clone()]));
    assert_eq!(good.status, Status::Ok as u16);

    let with = |change: &dyn Fn(&mut TensorDescriptor<'static>)| {
        let mut changed = tensor("a", at(0), &[2, 4]);
        change(&mut changed);
        changed
    };
    let mut outcome = |inputs: &[TensorDescriptor<'_>]| {
        let completion = session.submit(&request(inputs));
        (
            Status::from_wire(completion.status).unwrap(),
            completion.detail,
        )
    };
    assert_eq!(
        outcome(&[with(&|t| t.offset = end - 16), b.clone()]),
        (Status::ExtentMisaligned, [0, end - 16])
    );
    assert_eq!(
        outcome(&[with(&|t| t.offset = end), b.clone()]),
        (Status::ExtentOutOfRegion, [0, end])
    );
    assert_eq!(
        outcome(&[with(&|t| t.offset = u64::MAX - 63), b.clone()]),
        (Status::ExtentOutOfRegion, [0, end])
    );
    assert_eq!(
        outcome(&[with(&|t| t.offset = 0), b.clone()]),
        (Status::ExtentOutOfRegion, [0, end])
    );
    assert_eq!(
        outcome(&[with(&|t| t.offset = at(1)), b.clone()]),
        (Status::ExtentsOverlap, [0, 1])
    );
    assert_eq!(
        outcome(&[with(&|t| t.byte_size = 28), b.clone()]),
        (Status::ByteSizeMismatch, [0, 32])
    );
    assert_eq!(
        outcome(&[with(&|t| t.byte_size = u64::MAX), b.clone()]),
        (Status::ByteSizeMismatch, [0, 32])
    );
    assert_eq!(
        outcome(&[tensor("a", at(0), &[-2, 4]), b.clone()]),
        (Status::ShapeMismatch, [0, 0])
    );
    assert_eq!(
        outcome(&[tensor("a", at(0), &[i64::MAX, 4]), b.clone()]),
        (Status::ShapeMismatch, [0, 0])
    );
    assert_eq!(
        outcome(&[tensor("a", at(0), &[2, 5]), b.clone()]),
        (Status::ShapeMismatch, [0, 1])
    );
    assert_eq!(
        outcome(&[tensor("a", at(0), &[3, 4]), b.clone()]),
        (Status::ShapeMismatch, [1, 0])
    );
    assert_eq!(
        outcome(&[tensor("a", at(0), &[2, 4, 1]), b.clone()]),
        (Status::ShapeMismatch, [0, (1 << 32) + 2])
    );
    assert_eq!(
        outcome(&[tensor("a", at(0), &[0, 4]), tensor("b", at(1), &[0, 4])]),
        (Status::ShapeMismatch, [0, 0])
    );
    let many = [tensor("a", at(0), &[33, 4]), tensor("b", at(1), &[33, 4])];
    assert_eq!(outcome(&many), (Status::BatchTooLarge, [33, 32]));
    assert_eq!(
        outcome(std::slice::from_ref(&b)),
        (Status::InputMissing, [0, 0])
    );
    assert_eq!(
        outcome(&[a.clone(), b.clone(), tensor("c", at(2), &[1])]),
        (Status::InputUnknown, [2, 0])
    );
    assert_eq!(
        outcome(&[a.clone(), b.clone(), tensor("a", at(2), &[2, 4])]),
        (Status::InputRepeated, [2, 0])
    );
    let integer = with(&|t| t.dtype = DataType::Int32);
    assert_eq!(
        outcome(&[integer, b.clone()]),
        (Status::DataTypeMismatch, [0, DataType::Fp32 as u64])
    );

    let mut named = request(&[a.clone(), b.clone()]);
    named.model = "subtract";
    assert_eq!(session.submit(&named).status, Status::ModelNotFound as u16);
    named.model = "../../etc";
    assert_eq!(
        session.submit(&named).status,
        Status::DescriptorInvalid as u16
    );
    (named.model, named.version) = ("add", 9);
    assert_eq!(
        session.submit(&named).status,
        Status::VersionNotFound as u16
    );
    (named.version, named.outputs) = (0, ["sum", "difference"].as_slice().into());
    let completion = session.submit(&named);
    assert_eq!(
        (completion.status, completion.detail[0]),
        (Status::OutputUnknown as u16, 1)
    );
    assert_eq!(session.submit(&request(&[a, b])).status, Status::Ok as u16);
}

#[test]
fn descriptors_that_are_too_long_or_elsewhere_are_refused() {
    let server = Setup::new(&["add"]).start();
    let mut session = RawClient::attach(&server.socket_dir());
    for (offset, size) in [
        (8192, DESCRIPTOR_BYTES_MAX + 1),
        (8192, u32::MAX),
        (REGION_BYTES - 10, 64),
        (REGION_BYTES, 1),
        (u64::MAX, 64),
        (u64::MAX - 32, 64),
    ] {
        let entry = session.submission(offset, size);
        session.push(entry);
        let completion = session.completion();
        assert_eq!(
            completion.status,
            Status::DescriptorTooLarge as u16,
            "offset {offset}, size {size}"
        );
        assert_eq!(completion.request_id, entry.request_id);
    }
    // The control page and the ring are no descriptors, but reading them harms nobody.
    for (offset, size) in [(0, 4096), (4096, 64), (8192, 0), (3, 7)] {
        let entry = session.submission(offset, size);
        session.push(entry);
        assert_eq!(
            session.completion().status,
            Status::DescriptorInvalid as u16,
            "offset {offset}, size {size}"
        );
    }
    assert!(session.is_alive());
}

#[test]
fn ten_thousand_damaged_descriptors_do_no_harm() {
    let mut server = Setup::new(&["add"]).start();
    let neighbour = Neighbour::start(&server);
    let mut session = RawClient::attach(&server.socket_dir());
    let at = session.memory.layout().payload(RegionKind::Request).start + 65_536;
    let mut writer = DescriptorWriter::new();
    let good = writer
        .request(&request(&[
            tensor("a", at, &[2, 4]),
            tensor("b", at + 4096, &[2, 4]),
        ]))
        .unwrap()
        .to_vec();
    // A fixed generator: a failure comes again with the same number.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut accepted = 0;
    let mut live = Vec::new();
    for _ in 0..10_000 {
        let mut bytes = good.clone();
        for _ in 0..=random() % 4 {
            let at = usize::try_from(random()).unwrap() % bytes.len();
            bytes[at] = random().to_le_bytes()[0];
        }
        let completion = session.submit_bytes(&bytes);
        if completion.status == Status::Ok as u16 {
            accepted += 1;
            live.push(completion);
        }
        // Give back what came, so that the response region stays open.
        if let Some(done) = live.pop() {
            let mut release = session.submission(done.response_offset, 0);
            release.kind = adjoin_schema::layout::SubmissionKind::Release as u8;
            release.generation = done.generation;
            session.push(release);
        }
    }
    assert!(
        accepted < 5_000,
        "{accepted} of 10,000 damaged descriptors were run"
    );
    assert!(session.is_alive() && server.is_alive());
    neighbour.finish();
}
