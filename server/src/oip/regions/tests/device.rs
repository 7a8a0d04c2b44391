//! Memory of a device, with a driver that has none (`tests/fake-cuda`) and a second process that makes it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use adjoin_cuda::{DeviceBuffer, Driver};
use fake_cuda::harness::FakeCuda;

use super::*;
use crate::devices::{DeviceSettings, Devices};

const BYTES: u64 = 4096;
/// Tells the second process what it is.
const SECOND: &str = "ADJOIN_TEST_SECOND";

/// The client: makes memory, tells its handle, and keeps it until its input ends.
fn be_the_client() {
    let device = Driver::find().unwrap().device(0).unwrap();
    let buffer = DeviceBuffer::new(&device, 4096).unwrap();
    let handle = buffer.ipc_handle().unwrap();
    let text: String = handle.0.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("handle {text}");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn handle_of(line: &str) -> Vec<u8> {
    let digits = line.as_bytes().chunks(2);
    let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}

#[test]
fn memory_of_a_device_is_a_region_like_any_other() {
    let test = "oip::regions::tests::device::memory_of_a_device_is_a_region_like_any_other";
    let report = FakeCuda::new().run(test, || {
        if std::env::var_os(SECOND).is_some() {
            return be_the_client();
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]);
        command.env(SECOND, "1").env_remove("FAKE_CUDA_REPORT");
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = pipes.spawn().unwrap();
        let lines = BufReader::new(client.stdout.take().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap);
        let handle = lines.find_map(|line| {
            let handle = line.split_once("handle ")?.1;
            Some(handle_of(handle))
        });
        let handle = handle.unwrap();

        let devices = Devices::new(Some(DeviceSettings::default())).unwrap();
        let place = Place::new();
        let Place { regions, dir, me } = place;
        let place = Place {
            regions: regions.with_devices(devices),
            dir,
            me,
        };
        registers_reads_and_writes(&place, &handle);
        client.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(client.wait().unwrap().success());
    });
    report.assert_clean();
}

fn registers_reads_and_writes(place: &Place, handle: &[u8]) {
    let (regions, me) = (&place.regions, &place.me);
    let refusal = |device, handle: &[u8], byte_size| {
        let refused = regions.register_device(me, "r", device, handle, byte_size);
        fault(refused.unwrap_err())
    };
    let (kind, text) = refusal(1, handle, BYTES);
    assert_eq!(kind, Kind::InvalidArgument);
    assert!(
        text.contains("device 1, and this server uses device 0"),
        "{text}"
    );
    let (_, text) = refusal(0, &handle[..63], BYTES);
    assert!(text.contains("this one has 63"), "{text}");
    let (kind, _) = refusal(0, handle, u64::MAX);
    assert_eq!(kind, Kind::InvalidArgument);
    let (_, text) = refusal(0, handle, 0);
    assert!(text.contains("expected at least 1 byte"), "{text}");

    let registered = regions.register_device(me, "r", 0, handle, BYTES);
    registered.unwrap();
    let again = regions.register_device(me, "r", 0, handle, BYTES);
    assert!(matches!(again, Err(RegionError::AlreadyThere(_))));
    let region = regions.get(me, "r").unwrap();
    write(&region, 100, b"from the server").unwrap();
    assert_eq!(region.read(100, 15).unwrap(), "from the server");
    assert!(matches!(
        region.read(BYTES, 1),
        Err(RegionError::Offset { .. })
    ));
    assert!(matches!(
        region.read(BYTES - 1, 2),
        Err(RegionError::End { .. })
    ));

    // Each kind has calls of its own.
    let system = regions.status(me, RegionKind::System, "r");
    assert!(matches!(system, Err(RegionError::NoStatus { .. })));
    regions.unregister_all(me, RegionKind::System);
    let cuda = regions.status(me, RegionKind::Cuda, "").unwrap();
    assert_eq!(
        (cuda.len(), cuda[0].device(), cuda[0].byte_size()),
        (1, 0, BYTES)
    );
    regions.unregister(me, RegionKind::Cuda, "r");
    assert!(regions.get(me, "r").is_err());
    // Whoever uses it goes on.
    assert_eq!(region.read(100, 15).unwrap(), "from the server");
}
