//! Memory of the device that a client shares: batches copy from it and to it, and no processor does.

use std::os::fd::OwnedFd;

use adjoin_cuda::{
    BatchSlot, CudaError, DeviceRegion, Driver, Lane, Run, SharedBuffer, TransferSettings,
    Transfers,
};
use adjoin_shm::{Payload, PayloadMut};
use fake_cuda::harness::FakeCuda;

use crate::fixture::{SETTINGS, Session, content, settings, spec, transfers};

const BYTES: usize = 8192;
/// Where the second half of a region begins, which outputs go to.
const HALF: usize = 1 << 20;

/// What a client has, and how the server sees it. Here both are one process.
struct Shared {
    client: SharedBuffer,
    region: DeviceRegion,
}

impl Shared {
    fn new(transfers: &Transfers, seed: usize) -> Self {
        let client = SharedBuffer::allocate(transfers.device(), 2 * HALF).unwrap();
        let bytes = content(BYTES, seed);
        client.write(0, &Payload::from_slice(&bytes)).unwrap();
        let descriptor = client.export().unwrap();
        let region = DeviceRegion::import(transfers, &descriptor, client.byte_size(), ()).unwrap();
        Self { client, region }
    }

    fn input(&self) -> Payload<'_> {
        self.region.payload(0, BYTES as u64).unwrap()
    }

    fn room(&self) -> PayloadMut<'_> {
        self.region.payload_mut(HALF as u64, BYTES as u64).unwrap()
    }

    fn answer(&self) -> Vec<u8> {
        let mut bytes = vec![0; BYTES];
        let mut to = PayloadMut::from_slice(&mut bytes);
        self.client.read(HALF, &mut to).unwrap();
        bytes
    }
}

/// Runs a batch of a model that gives back what it gets, of requests on the device and one in memory of a session.
fn run_mixed(
    slot: &mut BatchSlot,
    shared: &[Shared],
    session: &mut Session,
) -> Result<(), CudaError> {
    let mut run = slot.begin()?;
    let mut pieces: Vec<Payload<'_>> = shared.iter().map(Shared::input).collect();
    pieces.insert(1, session.payload());
    let byte_size = run.gather(0, &pieces)?;
    drop(pieces);
    identity(&mut run, byte_size)?;
    let mut rooms: Vec<PayloadMut<'_>> = shared.iter().map(Shared::room).collect();
    rooms.insert(1, session.room());
    run.scatter(0, rooms)?;
    run.finish()
}

fn identity(run: &mut Run<'_, '_>, byte_size: usize) -> Result<(), CudaError> {
    run.with_lane(|lane, inputs, outputs| {
        lane.copy_on_device((&outputs[0], 0), (&inputs[0], 0), byte_size)
    })
}

fn one_form(test: &str, settings: TransferSettings) {
    let report = FakeCuda::new().delay_us("0-300").run_anywhere(test, || {
        let transfers = transfers(settings);
        let shared: Vec<Shared> = (0..3).map(|seed| Shared::new(&transfers, seed)).collect();
        let mut session = Session::new(BYTES, 9);
        session.register(transfers.registry());
        transfers.registry().settle();
        let mut slot = BatchSlot::new(&transfers, spec(4 * BYTES, 4)).unwrap();
        let counters = transfers.device().counters();
        let by_processor = || counters.to_device.by_processor() + counters.to_host.by_processor();
        let before = by_processor();
        run_mixed(&mut slot, &shared, &mut session).unwrap();
        assert_eq!(by_processor(), before);
        for (seed, shared) in shared.iter().enumerate() {
            assert!(shared.answer() == content(BYTES, seed), "region {seed}");
        }
        assert!(session.answer() == content(BYTES, 9), "the session's");
        let within = [counters.within.gathered(), counters.within.scattered()];
        assert_eq!(within, [3 * BYTES as u64; 2]);
    });
    let Some(report) = report else { return };
    report.assert_clean();
    // The session's alone.
    let bytes = BYTES as u64;
    let host = [report.to_device_registered, report.to_host_registered];
    assert_eq!(host, [bytes, bytes]);
    // To the batch and back, and what the model did with all four.
    assert_eq!(report.on_device, (3 + 4 + 3) * bytes);
}

#[test]
fn by_one_copy_each() {
    one_form("regions::by_one_copy_each", settings(0, usize::MAX));
}

#[test]
fn by_one_call() {
    one_form("regions::by_one_call", settings(0, 0));
}

#[test]
fn by_the_kernel() {
    one_form("regions::by_the_kernel", settings(usize::MAX, 0));
}

#[test]
fn in_a_graph() {
    let test = "regions::in_a_graph";
    let report = FakeCuda::new().delay_us("0-300").run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        let mut slot = BatchSlot::new(&transfers, spec(2 * BYTES, 2)).unwrap();
        let graph = slot
            .capture::<CudaError>(&[], |lane: &mut Lane, inputs, outputs| {
                lane.copy_on_device((&outputs[0], 0), (&inputs[0], 0), 2 * BYTES)
            })
            .unwrap();
        for turn in 0..3 {
            let shared = [turn, turn + 10].map(|seed| Shared::new(&transfers, seed));
            let mut run = slot.begin().unwrap();
            let pieces: Vec<Payload<'_>> = shared.iter().map(Shared::input).collect();
            run.place_input(0, &pieces).unwrap();
            run.place_output(0, shared.iter().map(Shared::room))
                .unwrap();
            run.replay(&graph).unwrap();
            run.finish().unwrap();
            for (shared, seed) in shared.iter().zip([turn, turn + 10]) {
                assert!(shared.answer() == content(BYTES, seed), "turn {turn}");
            }
        }
    });
    if let Some(report) = report {
        report.assert_clean();
        assert_eq!(report.to_device_registered + report.to_host_registered, 0);
    }
}

#[test]
fn a_region_that_goes_during_a_batch_stays_mapped_until_it_is_over() {
    let test = "regions::a_region_that_goes_during_a_batch_stays_mapped_until_it_is_over";
    let report = FakeCuda::new().delay_us(2000).run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        let mut slot = BatchSlot::new(&transfers, spec(BYTES, 1)).unwrap();
        let shared = Shared::new(&transfers, 4);
        let mut answer = vec![0; BYTES];
        let mut run = slot.begin().unwrap();
        run.gather(0, &[shared.input()]).unwrap();
        // The client detaches, or is killed: its own mapping goes, and the server's name for it.
        drop(shared);
        assert_eq!(transfers.regions().held(), (0, 0));
        identity(&mut run, BYTES).unwrap();
        run.scatter(0, [PayloadMut::from_slice(&mut answer)])
            .unwrap();
        run.finish().unwrap();
        assert!(answer == content(BYTES, 4), "as it was when it went");
    });
    if let Some(report) = report {
        report.assert_clean();
    }
}

#[test]
fn what_is_no_memory_of_the_device_or_has_another_size_is_refused() {
    let test = "regions::what_is_no_memory_of_the_device_or_has_another_size_is_refused";
    let report = FakeCuda::new().run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        let client = SharedBuffer::allocate(transfers.device(), 4 << 20).unwrap();
        let (byte_size, descriptor) = (client.byte_size(), client.export().unwrap());
        let import = |descriptor: &OwnedFd, byte_size| {
            DeviceRegion::import(&transfers, descriptor, byte_size, ())
                .map(|region| region.byte_size())
        };
        for wrong in [
            0,
            1,
            byte_size - 1,
            byte_size + 1,
            byte_size / 2,
            2 * byte_size,
            usize::MAX,
        ] {
            assert!(import(&descriptor, wrong).is_err(), "{wrong} bytes");
        }
        let others: [OwnedFd; 3] = [
            std::fs::File::open("/dev/null").unwrap().into(),
            std::io::pipe().unwrap().0.into(),
            memory_file(byte_size),
        ];
        for other in &others {
            assert!(import(other, byte_size).is_err());
        }
        assert_eq!(transfers.regions().held(), (0, 0));
        // One descriptor may be imported again: the memory is the same.
        let twice = [(), ()]
            .map(|()| DeviceRegion::import(&transfers, &descriptor, byte_size, ()).unwrap());
        assert_eq!(transfers.regions().held(), (2, 2 * byte_size as u64));
        drop((descriptor, twice));
        assert_eq!(transfers.regions().held(), (0, 0));
    });
    if let Some(report) = report {
        report.assert_clean();
    }
}

/// A plain memory file of the size of an allocation.
fn memory_file(byte_size: usize) -> OwnedFd {
    let file = tempfile::tempfile().unwrap();
    file.set_len(byte_size as u64).unwrap();
    file.into()
}

#[test]
fn a_region_of_a_lost_context_is_an_error_and_no_zeros() {
    let test = "regions::a_region_of_a_lost_context_is_an_error_and_no_zeros";
    FakeCuda::new()
        .fail("cuMemcpyHtoDAsync_v2:2:700")
        .run(test, || {
            let transfers = transfers(SETTINGS);
            let shared = Shared::new(&transfers, 4);
            assert!(!shared.region.is_lost());
            let bytes = content(BYTES, 1);
            let lost = shared.client.write(0, &Payload::from_slice(&bytes));
            assert!(lost.unwrap_err().is_sticky());
            assert!(shared.region.is_lost());
            let transfers = transfers.rebuild().unwrap();
            // It stays lost in the new context, and is not mistaken for memory of the host.
            assert!(shared.region.is_lost());
            let mut slot = BatchSlot::new(&transfers, spec(BYTES, 1)).unwrap();
            let mut run = slot.begin().unwrap();
            let gone = run.gather(0, &[shared.input()]).unwrap_err();
            assert!(matches!(gone, CudaError::ContextGone { .. }), "{gone}");
            let gone = run.scatter(0, [shared.room()]).unwrap_err();
            assert!(matches!(gone, CudaError::ContextGone { .. }), "{gone}");
            drop(run);
            let again = Shared::new(&transfers, 5);
            let mut run = slot.begin().unwrap();
            run.gather(0, &[again.input()]).unwrap();
            run.finish().unwrap();
            assert_eq!(
                transfers.device().counters().to_device.by_processor(),
                BYTES as u64 * 2
            );
        });
}

#[test]
fn memory_of_another_device_is_refused() {
    let fake = FakeCuda::new().set("FAKE_CUDA_DEVICES", 2);
    let report = fake.run("regions::memory_of_another_device_is_refused", || {
        let transfers = transfers(SETTINGS);
        let other = Driver::find().unwrap().device(1).unwrap();
        assert_ne!(other.facts().uuid, transfers.device().facts().uuid);
        let client = SharedBuffer::allocate(&other, HALF).unwrap();
        let descriptor = client.export().unwrap();
        let refused = DeviceRegion::import(&transfers, &descriptor, client.byte_size(), ());
        assert_eq!(refused.unwrap_err(), CudaError::OtherDevice);
    });
    report.assert_clean();
}
