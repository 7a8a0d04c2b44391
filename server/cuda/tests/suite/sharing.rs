//! Memory of the device that another process made: opened by a handle, or by a descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

use adjoin_cuda::{
    BatchSlot, CudaError, DeviceBuffer, IPC_HANDLE_BYTES, IpcHandle, Path, SharedBuffer, Transfers,
};
use adjoin_shm::{Payload, PayloadMut};
use fake_cuda::harness::{FakeCuda, counts};

use crate::fixture::{SETTINGS, content, spec, transfers};

const BYTES: usize = 100_000;
/// Tells the second process what to open.
const SHARED: &str = "ADJOIN_TEST_SHARED";

fn write(transfers: &Transfers, buffer: &DeviceBuffer, bytes: &[u8]) {
    let mut slot = BatchSlot::new(transfers, spec(bytes.len(), 1)).unwrap();
    let mut run = slot.begin().unwrap();
    run.gather(0, &[Payload::from_slice(bytes)]).unwrap();
    run.with_lane(|lane, inputs, _| lane.copy_on_device((buffer, 0), (&inputs[0], 0), bytes.len()))
        .unwrap();
    run.finish().unwrap();
}

fn read(transfers: &Transfers, buffer: &DeviceBuffer, byte_size: usize) -> Vec<u8> {
    let mut bytes = vec![0; byte_size];
    let mut slot = BatchSlot::new(transfers, spec(byte_size, 1)).unwrap();
    let mut run = slot.begin().unwrap();
    run.with_lane(|lane, _, outputs| lane.copy_on_device((&outputs[0], 0), (buffer, 0), byte_size))
        .unwrap();
    run.scatter(0, [PayloadMut::from_slice(&mut bytes)])
        .unwrap();
    run.finish().unwrap();
    bytes
}

/// The same test once more, as the second process.
fn second_process(test: &str, shared: &str, stdin: Stdio) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).stdin(stdin);
    let output = command
        .env(SHARED, shared)
        .env_remove("FAKE_CUDA_REPORT")
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the second process: {shown}");
}

fn handle_from_text(text: &str) -> IpcHandle {
    let mut handle = [0; IPC_HANDLE_BYTES];
    for (byte, digits) in handle.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    }
    IpcHandle(handle)
}

/// Parts come and go as copies, within the memory and no further.
fn copy_parts(transfers: &Transfers, handle: IpcHandle) {
    let foreign = SharedBuffer::open(transfers.device(), handle.0, BYTES).unwrap();
    let mut part = [0; 1000];
    let copied = foreign.read(500, &mut PayloadMut::from_slice(&mut part));
    copied.unwrap();
    assert!(part == content(BYTES, 6)[500..1500]);
    let from = content(100, 7);
    foreign
        .write(BYTES - 100, &Payload::from_slice(&from))
        .unwrap();
    let beyond = foreign.write(BYTES - 99, &Payload::from_slice(&from));
    assert!(matches!(beyond, Err(CudaError::OutOfRange { .. })));
    let beyond = foreign.read(usize::MAX, &mut PayloadMut::from_slice(&mut part));
    assert!(matches!(beyond, Err(CudaError::OutOfRange { .. })));
    let counters = transfers.device().counters();
    assert_eq!(counters.to_host.get(Path::Pageable), 1000);
    assert_eq!(counters.to_device.get(Path::Pageable), 100);
}

#[test]
fn by_handle() {
    let test = "sharing::by_handle";
    let report = FakeCuda::new().delay_us("0-300").run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        if let Ok(text) = std::env::var(SHARED) {
            let handle = handle_from_text(&text);
            let device = transfers.device();
            let buffer = DeviceBuffer::open_ipc(device, &handle, BYTES).unwrap();
            assert!(
                read(&transfers, &buffer, BYTES) == content(BYTES, 5),
                "what the first wrote"
            );
            write(&transfers, &buffer, &content(BYTES, 6));
            // A peer that lies about the size reaches no byte behind its memory.
            drop(buffer);
            let error = DeviceBuffer::open_ipc(device, &handle, 1 << 30).unwrap_err();
            assert!(matches!(error, CudaError::OutOfRange { .. }), "{error}");
            assert!(DeviceBuffer::open_ipc(device, &IpcHandle([7; 64]), 1).is_err());
            copy_parts(&transfers, handle);
            return;
        }
        let buffer = DeviceBuffer::new(transfers.device(), BYTES).unwrap();
        write(&transfers, &buffer, &content(BYTES, 5));
        let handle = buffer.ipc_handle().unwrap();
        assert_eq!(format!("{handle:?}"), "IpcHandle");
        let text: String = handle.0.iter().map(|byte| format!("{byte:02x}")).collect();
        second_process(test, &text, Stdio::null());
        assert!(
            read(&transfers, &buffer, BYTES)[..BYTES - 100] == content(BYTES, 6)[..BYTES - 100],
            "what the second wrote"
        );
        assert!(
            read(&transfers, &buffer, BYTES)[BYTES - 100..] == content(100, 7),
            "what the second copied there"
        );
    });
    if let Some(report) = report {
        report.assert_clean();
    }
}

#[test]
fn by_descriptor() {
    let test = "sharing::by_descriptor";
    let report = FakeCuda::new().delay_us("0-300").run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        let device = transfers.device();
        if let Ok(byte_size) = std::env::var(SHARED) {
            let byte_size: usize = byte_size.parse().unwrap();
            let descriptor: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
            assert!(
                DeviceBuffer::import(device, &descriptor, 2 * byte_size).is_err(),
                "too large"
            );
            let buffer = DeviceBuffer::import(device, &descriptor, byte_size).unwrap();
            drop(descriptor);
            assert!(
                read(&transfers, &buffer, BYTES) == content(BYTES, 5),
                "what the first wrote"
            );
            write(&transfers, &buffer, &content(BYTES, 6));
            let other: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
            assert!(DeviceBuffer::import(device, &other, byte_size).is_err());
            return;
        }
        let buffer = DeviceBuffer::shareable(device, BYTES).unwrap();
        assert!(buffer.byte_size() >= BYTES);
        write(&transfers, &buffer, &content(BYTES, 5));
        let byte_size = buffer.byte_size().to_string();
        second_process(test, &byte_size, Stdio::from(buffer.export().unwrap()));
        assert!(
            read(&transfers, &buffer, BYTES) == content(BYTES, 6),
            "what the second wrote"
        );
        let plain = DeviceBuffer::new(device, BYTES).unwrap();
        assert_eq!(plain.export().unwrap_err(), CudaError::NotShareable);
    });
    if let Some(report) = report {
        report.assert_clean();
    }
}

#[test]
fn a_failure_on_the_way_leaves_nothing() {
    let failures = "cuMemCreate:1:2,cuMemAddressReserve:1:2,cuMemMap:1:1,cuMemSetAccess:1:1";
    let fake = FakeCuda::new().fail(failures);
    let report = fake.run("sharing::a_failure_on_the_way_leaves_nothing", || {
        let transfers = transfers(SETTINGS);
        let device = transfers.device();
        let before = counts();
        for call in [
            "cuMemCreate",
            "cuMemAddressReserve",
            "cuMemMap",
            "cuMemSetAccess",
        ] {
            let error = DeviceBuffer::shareable(device, BYTES).unwrap_err();
            assert!(
                error.to_string().starts_with(&format!("{call} failed: ")),
                "{error}"
            );
        }
        assert_eq!(counts(), before);
        DeviceBuffer::shareable(device, BYTES).unwrap();
    });
    report.assert_clean();
}
