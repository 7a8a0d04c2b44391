//! Raw clients that lie about memory of the device. Nothing of that is a fault of the protocol: each lie is answered, and
//! the session and its neighbours go on. The memory is a file such as the fake driver gives out, so these programs need
//! no driver.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use adjoin_client::{DataType, Status};
use adjoin_fake_nvinfer::Plan;
use adjoin_schema::Shape;
use adjoin_schema::attach::{AttachMessage, DeviceAttach, DeviceDetach, features};
use adjoin_schema::descriptor::{OutputRoom, RequestDescriptor, TensorDescriptor};
use adjoin_schema::layout::{CompletionEntry, completion_flags, submit_flags};
use adjoin_tests::gpu::{GpuServer, GpuSetup};
use adjoin_tests::raw::RawClient;
use adjoin_tests::wait_for;
use fake_cuda::harness::{DEVICE_UUID, FakeCuda, device_memory_file};

use crate::clients::{request, run};
use crate::{affine, wide};

/// What the driver gives at least.
const BYTES: u64 = 2 << 20;
/// Regions that a session may have here.
const REGIONS: u64 = 4;

fn start(fake: FakeCuda) -> GpuServer {
    let limits = format!(
        "[cuda]\nshared_regions = {REGIONS}\nshared_session_bytes = {}\nshared_user_bytes = {}",
        8 * BYTES,
        6 * BYTES
    );
    GpuSetup::new(fake, &["add"])
        .plan("affine", affine(), "max_batch_size: 8")
        .plan("wide", wide(), "max_batch_size: 4")
        .config(&limits)
        .start()
}

fn attach(byte_size: u64) -> DeviceAttach {
    DeviceAttach {
        query_id: 1,
        byte_size,
        device_uuid: DEVICE_UUID,
    }
}

/// The number of the region, or why there is none.
fn ask(
    client: &RawClient,
    message: impl Into<AttachMessage>,
    descriptors: &[BorrowedFd<'_>],
) -> Result<u32, (Status, [u64; 2])> {
    match client.ask(&message.into(), descriptors) {
        AttachMessage::DeviceAttached(attached) => Ok(attached.region),
        AttachMessage::DeviceDetached(_) => Ok(0),
        AttachMessage::Refusal(refusal) => {
            assert_eq!(refusal.query_id, 1);
            Err((Status::from_wire(refusal.status).unwrap(), refusal.detail))
        }
        other => panic!("{other:?}"),
    }
}

fn detach(client: &RawClient, region: u32) -> Result<u32, (Status, [u64; 2])> {
    let query_id = 1;
    ask(client, DeviceDetach { query_id, region }, &[])
}

/// A row of four for `affine` at `offset` of a region, and a room for its answer.
fn on_device<'a>((region, offset): (u32, u64), rooms: &[OutputRoom<'a>]) -> RequestDescriptor<'a> {
    let input = TensorDescriptor {
        name: "x",
        dtype: DataType::Fp32,
        shape: Shape::from_slice(&[1, 4]),
        region,
        offset,
        byte_size: 16,
    };
    RequestDescriptor {
        model: "affine",
        version: 0,
        label: "",
        inputs: [input].into_iter().collect(),
        outputs: Default::default(),
        rooms: rooms.iter().copied().collect(),
    }
}

fn room<'a>(region: u32, offset: u64, byte_size: u64) -> OutputRoom<'a> {
    OutputRoom {
        name: "y",
        region,
        offset,
        byte_size,
    }
}

fn outcome(entry: CompletionEntry) -> (Status, [u64; 2]) {
    (Status::from_wire(entry.status).unwrap(), entry.detail)
}

#[test]
fn what_is_no_memory_of_the_device_is_refused_and_the_session_goes_on() {
    let server = start(FakeCuda::new());
    let client = RawClient::attach(&server.socket_dir());
    assert_ne!(client.welcome.features & features::DEVICE_REGIONS, 0);
    let memory = device_memory_file(BYTES);
    let invalid = |byte_size| Err((Status::DeviceMemoryInvalid, [byte_size, 0]));
    let plain: OwnedFd =
        rustix::fs::memfd_create("plain", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&plain, BYTES).unwrap();
    let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let socket: OwnedFd = std::os::unix::net::UnixStream::pair().unwrap().0.into();
    for other in [&plain, &null, &socket] {
        assert_eq!(
            ask(&client, attach(BYTES), &[other.as_fd()]),
            invalid(BYTES)
        );
    }
    // The session's own memory, and none, and two.
    let own = client.request_fd();
    assert_eq!(ask(&client, attach(BYTES), &[own.as_fd()]), invalid(BYTES));
    assert_eq!(ask(&client, attach(BYTES), &[]), invalid(BYTES));
    let two = [memory.as_fd(), memory.as_fd()];
    assert_eq!(ask(&client, attach(BYTES), &two), invalid(BYTES));
    for wrong in [0, 1, BYTES - 1, BYTES / 2, 2 * BYTES] {
        assert_eq!(
            ask(&client, attach(wrong), &[memory.as_fd()]),
            invalid(wrong)
        );
    }
    let left = 6 * BYTES;
    for wrong in [7 * BYTES, u64::MAX] {
        let quota = Err((Status::DeviceQuotaExceeded, [wrong, left]));
        assert_eq!(ask(&client, attach(wrong), &[memory.as_fd()]), quota);
    }
    let elsewhere = DeviceAttach {
        device_uuid: [7; 16],
        ..attach(BYTES)
    };
    assert_eq!(
        ask(&client, elsewhere, &[memory.as_fd()]),
        Err((Status::DeviceMismatch, [0, 0]))
    );
    let unknown = |number| Err((Status::DeviceRegionUnknown, [0, number]));
    assert_eq!(detach(&client, 0), unknown(0));
    assert_eq!(detach(&client, 1), unknown(1));
    // All of that left nothing, and the next one is good.
    assert_eq!(server.metric("adjoin_device_shared_regions"), 0);
    assert_eq!(ask(&client, attach(BYTES), &[memory.as_fd()]), Ok(1));
    assert_eq!(detach(&client, 1), Ok(0));
    assert_eq!(detach(&client, 1), unknown(1));
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
}

#[test]
fn one_descriptor_thousands_of_times_fills_the_session_s_share_and_no_more() {
    let server = start(FakeCuda::new());
    let client = RawClient::attach(&server.socket_dir());
    let memory = device_memory_file(BYTES);
    let again = || ask(&client, attach(BYTES), &[memory.as_fd()]);
    for number in 1..=REGIONS {
        assert_eq!(again().map(u64::from), Ok(number));
    }
    for _ in 0..2000 {
        assert_eq!(again(), Err((Status::TooManyDeviceRegions, [REGIONS, 0])));
    }
    // The user has so much left for another session.
    let other = RawClient::attach(&server.socket_dir());
    let third = |_| ask(&other, attach(BYTES), &[memory.as_fd()]);
    let full = Err((Status::DeviceQuotaExceeded, [BYTES, 0]));
    assert_eq!([0; 3].map(third), [Ok(1), Ok(2), full]);
    assert_eq!(server.metric("adjoin_device_shared_bytes"), 6 * BYTES);
    // Attaching and detaching all the time leaves nothing, and no number comes again.
    for turn in 0..1000 {
        let number = u32::try_from(REGIONS + turn).unwrap();
        assert_eq!(detach(&client, if turn == 0 { 1 } else { number }), Ok(0));
        assert_eq!(again(), Ok(number + 1));
    }
    drop((client, other));
    wait_for("nothing is shared", || {
        (server.metric("adjoin_device_shared_bytes") == 0).then_some(())
    });
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
}

#[test]
fn extents_outside_overlapping_or_of_others_are_refused_by_themselves() {
    let server = start(FakeCuda::new());
    let neighbour = server.client();
    let mut neighbour = request(&neighbour, "affine", 1);
    let mut client = RawClient::attach(&server.socket_dir());
    let memory = device_memory_file(BYTES);
    let number = ask(&client, attach(BYTES), &[memory.as_fd()]).unwrap();
    let mut stranger = RawClient::attach(&server.socket_dir());
    let mut refused = |request: &RequestDescriptor<'_>| outcome(client.submit(request));
    let past = |index| (Status::ExtentOutOfRegion, [index, BYTES]);
    for offset in [BYTES, BYTES - 64 + 64, u64::MAX - 63, 1 << 40] {
        assert_eq!(refused(&on_device((number, offset), &[])), past(0));
        let rooms = [room(number, offset, 16)];
        assert_eq!(refused(&on_device((number, 0), &rooms)), past(1));
    }
    let misaligned = |index, offset| (Status::ExtentMisaligned, [index, offset]);
    assert_eq!(refused(&on_device((number, 4), &[])), misaligned(0, 4));
    assert_eq!(
        refused(&on_device((number, 0), &[room(number, 100, 16)])),
        misaligned(1, 100)
    );
    let overlap = (Status::ExtentsOverlap, [0, 1]);
    let same = on_device((number, 0), &[room(number, 0, 16)]);
    assert_eq!(refused(&same), overlap);
    let unknown = |index, number| (Status::DeviceRegionUnknown, [index, number]);
    for other in [number + 1, u32::MAX] {
        let number_of = u64::from(other);
        assert_eq!(refused(&on_device((other, 0), &[])), unknown(0, number_of));
        let rooms = [room(other, 64, 16)];
        assert_eq!(
            refused(&on_device((number, 0), &rooms)),
            unknown(1, number_of)
        );
    }
    let small = on_device((number, 0), &[room(number, 64, 15)]);
    assert_eq!(refused(&small), (Status::OutputRoomTooSmall, [1, 16]));
    let two = [room(number, 64, 16), room(number, 128, 16)];
    let twice = on_device((number, 0), &two);
    assert_eq!(refused(&twice).0, Status::DescriptorInvalid);
    let mut nobody = on_device((number, 0), &[room(number, 64, 16)]);
    nobody.rooms[0].name = "z";
    assert_eq!(refused(&nobody), (Status::OutputUnknown, [0, 0]));
    // A number is good in its own session alone.
    let strange = outcome(stranger.submit(&on_device((number, 0), &[])));
    assert_eq!(strange, unknown(0, u64::from(number)));
    // A model on the processor.
    let mut add = on_device((number, 0), &[]);
    add.model = "add";
    add.inputs[0].name = "a";
    let mut second = add.inputs[0].clone();
    (second.name, second.offset) = ("b", 64);
    add.inputs.push(second);
    let not_taken = (Status::DeviceRegionNotTaken, [0, u64::from(number)]);
    assert_eq!(refused(&add), not_taken);
    // After all of that, a good one.
    let good = on_device((number, 0), &[room(number, 64, 16)]);
    assert_eq!(refused(&good).0, Status::Ok);
    run(&mut neighbour, 5.0).unwrap();
    drop((client, stranger, neighbour));
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
}

#[test]
fn a_region_that_is_detached_under_its_requests_ends_with_them() {
    // Each operation takes some milliseconds, so what is submitted is under way when the region goes.
    let server = GpuSetup::new(FakeCuda::new().delay_us(3000), &[])
        .plan("affine", affine(), "max_batch_size: 8")
        .start();
    let mut client = RawClient::attach(&server.socket_dir());
    let memory = device_memory_file(BYTES);
    let bytes: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0]
        .into_iter()
        .flat_map(f32::to_le_bytes)
        .collect();
    rustix::io::pwrite(&memory, &bytes, 0).unwrap();
    let number = ask(&client, attach(BYTES), &[memory.as_fd()]).unwrap();
    let mut writer = adjoin_schema::descriptor::DescriptorWriter::new();
    let good = on_device((number, 0), &[room(number, 64, 16)]);
    let descriptor = writer.request(&good).unwrap().to_vec();
    let range = client.write(&descriptor);
    let size = u32::try_from(descriptor.len()).unwrap();
    let mut entry = client.submission(range.offset(), size);
    (entry.flags, entry.prepared_id) = (submit_flags::PREPARE, 3);
    client.push(entry);
    wait_for("the batch is under way", || {
        (server.bytes("within", "gather") == 16).then_some(())
    });
    assert_eq!(detach(&client, number), Ok(0));
    let entry = client.completion();
    assert_eq!(outcome(entry).0, Status::Ok);
    assert_eq!(entry.flags & completion_flags::PREPARED, 0, "not kept");
    let mut answer = [0; 16];
    rustix::io::pread(&memory, &mut answer, 64).unwrap();
    let expected: Vec<u8> = [3.0_f32, 5.0, 7.0, 9.0]
        .into_iter()
        .flat_map(f32::to_le_bytes)
        .collect();
    assert_eq!(answer.as_slice(), expected);
    // Neither the preparation nor the number is there any more.
    let mut again = client.submission(0, 0);
    (again.flags, again.prepared_id) = (submit_flags::PREPARED, 3);
    client.push(again);
    let unknown = outcome(client.completion());
    assert_eq!(unknown, (Status::PreparedUnknown, [3, 0]));
    let gone = outcome(client.submit(&good));
    let number = u64::from(number);
    assert_eq!(gone, (Status::DeviceRegionUnknown, [0, number]));
    wait_for("nothing is shared", || {
        (server.metric("adjoin_device_shared_regions") == 0).then_some(())
    });
    // Whoever goes while the memory is being mapped leaves nothing either.
    for _ in 0..20 {
        let hasty = RawClient::attach(&server.socket_dir());
        let message = AttachMessage::from(attach(BYTES));
        hasty
            .socket
            .send(&message.encode(), &[memory.as_fd()])
            .unwrap();
    }
    wait_for("nothing is shared", || {
        let sessions = server.control().sessions().len();
        let regions = server.metric("adjoin_device_shared_regions");
        (sessions == 1 && regions == 0).then_some(())
    });
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
}

#[test]
fn an_input_that_a_processor_reads_is_not_taken_from_the_device() {
    // More channels than the kernel makes of pixels.
    let pixels = Plan::new(adjoin_fake_nvinfer::major())
        .line("input x FP32 -1,6,1,2")
        .line("output y FP32 -1,6,1,2")
        .line("profile 0 x 1,6,1,2 2,6,1,2 4,6,1,2")
        .line("affine x y 2 1");
    let transform = "parameters { key: \"input_transform:x\" value { string_value: \"scale=1\" } }";
    let server = GpuSetup::new(FakeCuda::new(), &[])
        .plan("pixels", pixels, transform)
        .start();
    let mut client = RawClient::attach(&server.socket_dir());
    let memory = device_memory_file(BYTES);
    let number = ask(&client, attach(BYTES), &[memory.as_fd()]).unwrap();
    let bytes: Vec<u8> = (0..12).collect();
    let range = client.write(&bytes);
    let mut request = on_device((number, 0), &[room(number, 64, 48)]);
    request.model = "pixels";
    let input = &mut request.inputs[0];
    input.dtype = DataType::Uint8;
    input.shape = Shape::from_slice(&[1, 1, 2, 6]);
    input.byte_size = 12;
    let not_taken = (Status::DeviceRegionNotTaken, [0, u64::from(number)]);
    assert_eq!(outcome(client.submit(&request)), not_taken);
    // From the session's memory it is, and what comes of it goes to the device all the same.
    (request.inputs[0].region, request.inputs[0].offset) = (0, range.offset());
    assert_eq!(outcome(client.submit(&request)).0, Status::Ok);
    let mut answer = [0; 48];
    rustix::io::pread(&memory, &mut answer, 64).unwrap();
    let answer = answer.as_chunks().0.iter().map(|y| f32::from_le_bytes(*y));
    // Channels first: pixel p of channel c is byte 6 p + c.
    let expected = (0..12).map(|index| 2.0 * f32::from(bytes[6 * (index % 2) + index / 2]) + 1.0);
    assert!(answer.eq(expected));
    drop(client);
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
}
