//! A client that changes what it handed over, while the server uses it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use adjoin_schema::descriptor::{DescriptorWriter, RequestDescriptor, TensorDescriptor};
use adjoin_schema::layout::{RegionKind, SubmissionKind};
use adjoin_schema::status::Status;
use adjoin_schema::{DataType, Shape};
use adjoin_tests::raw::RawClient;
use adjoin_tests::server::Setup;

use crate::neighbour::Neighbour;

fn tensor<'n>(name: &'n str, dtype: DataType, offset: u64, dims: &[i64]) -> TensorDescriptor<'n> {
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

/// Writes random bytes over a range of the region, through the descriptor, until told to stop.
fn scribble(
    session: &RawClient,
    start: u64,
    byte_size: u64,
    stop: &Arc<AtomicBool>,
) -> std::thread::JoinHandle<u64> {
    let region = session.regions[0].try_clone().unwrap();
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut state = 88_172_645_463_325_252u64;
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = start + (state >> 32) % byte_size;
            rustix::io::pwrite(&region, &state.to_le_bytes()[..1], at).unwrap();
            count += 1;
        }
        count
    })
}

#[test]
fn indices_flipped_while_the_model_runs_never_move_a_read() {
    let mut server = Setup::new(&["gather", "add"]).start();
    let neighbour = Neighbour::start(&server);
    let mut session = RawClient::attach(&server.socket_dir());
    let at = session.memory.layout().payload(RegionKind::Request).start + 131_072;
    let table = tensor("table", DataType::Fp32, at, &[8, 4]);
    let index = tensor("index", DataType::Int64, at + 4096, &[64]);
    let request = RequestDescriptor {
        model: "gather",
        version: 0,
        label: "",
        inputs: [table, index].into_iter().collect(),
        outputs: Default::default(),
        rooms: Default::default(),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let writer = scribble(&session, at + 4096, 512, &stop);
    let (mut ran, mut refused) = (0, 0);
    for _ in 0..3000 {
        let completion = session.submit(&request);
        match Status::from_wire(completion.status).unwrap() {
            Status::Ok => {
                ran += 1;
                let mut release = session.submission(completion.response_offset, 0);
                release.kind = SubmissionKind::Release as u8;
                release.generation = completion.generation;
                session.push(release);
            }
            // An index outside the table is an error of the engine, not a read outside the table.
            Status::ExecutionFailed => refused += 1,
            other => panic!("{other}"),
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.join().unwrap() > 1000);
    assert_eq!(ran + refused, 3000);
    assert!(
        refused > 0,
        "no index was ever wrong: the test does not test"
    );
    assert!(server.is_alive());
    neighbour.finish();
}

#[test]
fn descriptors_flipped_while_they_are_read_do_no_harm() {
    let mut server = Setup::new(&["add"]).start();
    let neighbour = Neighbour::start(&server);
    let mut session = RawClient::attach(&server.socket_dir());
    let at = session.memory.layout().payload(RegionKind::Request).start + 131_072;
    let inputs = [
        tensor("a", DataType::Fp32, at, &[2, 4]),
        tensor("b", DataType::Fp32, at + 4096, &[2, 4]),
    ];
    let request = RequestDescriptor {
        model: "add",
        version: 0,
        label: "",
        inputs: inputs.into_iter().collect(),
        outputs: Default::default(),
        rooms: Default::default(),
    };
    let mut writer = DescriptorWriter::new();
    let bytes = writer.request(&request).unwrap().to_vec();
    let mut place = session.write(&bytes);
    let stop = Arc::new(AtomicBool::new(false));
    let scribbler = scribble(&session, place.offset(), bytes.len() as u64, &stop);
    for _ in 0..3000 {
        place.write(&bytes);
        let entry = session.submission(place.offset(), u32::try_from(bytes.len()).unwrap());
        session.push(entry);
        let completion = session.completion();
        if completion.status == Status::Ok as u16 {
            let mut release = session.submission(completion.response_offset, 0);
            release.kind = SubmissionKind::Release as u8;
            release.generation = completion.generation;
            session.push(release);
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(scribbler.join().unwrap() > 1000);
    assert!(session.is_alive() && server.is_alive());
    neighbour.finish();
}

/// Rows of two sessions in one batch: one client rewrites its own while the batch is formed and run.
#[test]
fn rows_flipped_in_a_shared_batch_leave_the_neighbours_rows_alone() {
    let mut server = Setup::new(&["slow", "add"])
        .config("max_batch_size = 16\nmax_queue_delay_us = 3000")
        .start();
    let mut hostile = RawClient::attach(&server.socket_dir());
    let at = hostile.memory.layout().payload(RegionKind::Request).start + 131_072;
    let stop = Arc::new(AtomicBool::new(false));
    let scribbler = scribble(&hostile, at, 8 * 64 * 4, &stop);
    let honest = server.client();
    let mut request = honest
        .model("slow")
        .unwrap()
        .request()
        .input("x", &[2, 64])
        .unwrap()
        .build()
        .unwrap();
    let values: Vec<f32> = (0..128u8).map(|i| f32::from(i % 23) - 11.0).collect();
    request
        .input_mut::<f32>("x")
        .unwrap()
        .copy_from_slice(&values);
    let expected = request.infer().unwrap().get::<f32>("y").unwrap().to_vec();

    let descriptor = RequestDescriptor {
        model: "slow",
        version: 0,
        label: "",
        inputs: [tensor("x", DataType::Fp32, at, &[8, 64])]
            .into_iter()
            .collect(),
        outputs: Default::default(),
        rooms: Default::default(),
    };
    let mut writer = DescriptorWriter::new();
    let bytes = writer.request(&descriptor).unwrap().to_vec();
    let mut shared = 0;
    for _ in 0..40 {
        let place = hostile.write(&bytes);
        let entry = hostile.submission(place.offset(), u32::try_from(bytes.len()).unwrap());
        hostile.push(entry);
        let outputs = request.infer().unwrap();
        shared += u32::from(outputs.stats().batch_size == 10);
        let got = outputs.get::<f32>("y").unwrap();
        assert!(
            got.iter()
                .zip(&expected)
                .all(|(a, b)| a.to_bits() == b.to_bits()),
            "a neighbour's rows came through"
        );
        let completion = hostile.completion();
        let mut release = hostile.submission(completion.response_offset, 0);
        release.kind = SubmissionKind::Release as u8;
        release.generation = completion.generation;
        hostile.push(release);
    }
    stop.store(true, Ordering::Relaxed);
    assert!(scribbler.join().unwrap() > 1000);
    assert!(
        shared > 0,
        "the two never met in one batch: the test does not test"
    );
    assert!(server.is_alive());
}

/// Shapes whose bytes are few and whose products are not.
#[test]
fn outputs_of_impossible_size_are_refused_and_nothing_is_reserved() {
    let mut server = Setup::new(&["gather", "add"]).start();
    let neighbour = Neighbour::start(&server);
    let mut session = RawClient::attach(&server.socket_dir());
    let at = session.memory.layout().payload(RegionKind::Request).start + 131_072;
    // 100,000 indices of 8 bytes fit; their rows of 16 bytes do not.
    let descriptor = RequestDescriptor {
        model: "gather",
        version: 0,
        label: "",
        inputs: [
            tensor("table", DataType::Fp32, at, &[8, 4]),
            tensor("index", DataType::Int64, at + 4096, &[100_000]),
        ]
        .into_iter()
        .collect(),
        outputs: Default::default(),
        rooms: Default::default(),
    };
    for _ in 0..10 {
        let completion = session.submit(&descriptor);
        assert_eq!(completion.status, Status::ResponseRegionFull as u16);
        assert!(completion.detail[0] >= 1_600_000, "{completion:?}");
    }
    assert!(session.is_alive() && server.is_alive());
    neighbour.finish();
}

#[test]
fn a_client_cannot_shrink_grow_seal_or_write_what_is_not_its_own() {
    use rustix::fs::{FallocateFlags, Mode, OFlags, SealFlags};
    use std::os::fd::AsRawFd;
    let mut server = Setup::new(&["add"]).start();
    let neighbour = Neighbour::start(&server);
    let session = RawClient::attach(&server.socket_dir());
    for region in &session.regions {
        for byte_size in [0, 1, 1 << 30] {
            assert!(rustix::fs::ftruncate(region, byte_size).is_err());
        }
        for seal in [SealFlags::WRITE, SealFlags::FUTURE_WRITE] {
            assert!(rustix::fs::fcntl_add_seals(region, seal).is_err());
        }
    }
    let response = &session.regions[1];
    assert!(rustix::io::pwrite(response, b"mine", 8192).is_err());
    // The same user may reopen a file of its own for writing after giving itself the right; another user may
    // not. Either way the server reads nothing back from there.
    let path = format!("/proc/self/fd/{}", response.as_raw_fd());
    if rustix::process::geteuid().as_raw() != 0 {
        assert!(rustix::fs::open(path, OFlags::RDWR, Mode::empty()).is_err());
    }
    // Holes turn the client's own data into zeros, and nothing else.
    let holes = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&session.regions[0], holes, 0, 1 << 20).unwrap();
    assert!(server.is_alive());
    neighbour.finish();
}
