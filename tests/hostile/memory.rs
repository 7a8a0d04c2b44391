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
