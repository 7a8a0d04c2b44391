//! With a driver that has no device (`tests/fake-cuda`), in a process for each test.

use std::time::Duration;

use adjoin_schema::layout::SessionLayout;
use fake_cuda::harness::FakeCuda;

use super::*;

const SETTINGS: DeviceSettings = DeviceSettings {
    device: 0,
    registered_bytes: 1 << 30,
    staging_bytes: 1 << 20,
    recovery_attempts: 5,
    spin: Duration::from_micros(50),
    shared_regions: 2,
    shared_session_bytes: 8 << 20,
    shared_user_bytes: 16 << 20,
};

fn memory(id: u64) -> Arc<SessionMemory> {
    let layout = SessionLayout::new(1 << 20, 1 << 20, 8).unwrap();
    Arc::new(SessionMemory::create(layout, id).unwrap())
}

fn settle(devices: &Devices) {
    devices.open().unwrap().registry().settle();
}

#[test]
fn regions_are_registered_while_their_session_lives_and_its_memory_is_kept_until_they_are_not() {
    let name = "devices::cuda::tests::regions_are_registered_while_their_session_lives_and_its_memory_is_kept_until_they_are_not";
    let report = FakeCuda::new().run(name, || {
        let devices = Devices::new(Some(SETTINGS)).unwrap();
        let memory = memory(1);
        let registered = devices.register(&memory).unwrap();
        settle(&devices);
        let numbers = devices.numbers().unwrap();
        assert_eq!((numbers.registered, numbers.pending), (2, 0));
        assert_eq!(numbers.registered_bytes, memory.byte_size());
        let payload = memory.request().payload(4096, 1024).unwrap();
        let registry = Arc::clone(devices.open().unwrap().registry());
        let lease = registry.lease(payload.as_ptr(), payload.byte_size());
        // The session ends while the device may be reading.
        registered.retire(Arc::clone(&memory));
        settle(&devices);
        let numbers = devices.numbers().unwrap();
        assert_eq!((numbers.registered, numbers.retired), (0, 1));
        assert_eq!(
            Arc::strong_count(&memory),
            2,
            "the region that is read keeps it"
        );
        drop(lease);
        settle(&devices);
        assert_eq!(Arc::strong_count(&memory), 1);
        let numbers = devices.numbers().unwrap();
        assert_eq!((numbers.retired, numbers.registered_bytes), (0, 0));
    });
    assert!(report.violations.is_empty(), "{:?}", report.violations);
}

#[test]
fn what_exceeds_the_budget_is_refused_and_counted() {
    let name = "devices::cuda::tests::what_exceeds_the_budget_is_refused_and_counted";
    FakeCuda::new().run(name, || {
        let first = memory(1);
        let settings = DeviceSettings {
            registered_bytes: first.byte_size(),
            ..SETTINGS
        };
        let devices = Devices::new(Some(settings)).unwrap();
        let sessions = [first, memory(2)];
        let registered: Vec<_> = sessions
            .iter()
            .map(|memory| devices.register(memory).unwrap())
            .collect();
        settle(&devices);
        let numbers = devices.numbers().unwrap();
        assert_eq!((numbers.registered, numbers.refused), (2, 2));
        // Room for the second when the first has gone.
        registered[0].retire(());
        settle(&devices);
        settle(&devices);
        let numbers = devices.numbers().unwrap();
        assert_eq!((numbers.registered, numbers.refused), (2, 0));
    });
}

#[test]
fn a_device_is_opened_when_it_is_wanted_and_not_before() {
    let name = "devices::cuda::tests::a_device_is_opened_when_it_is_wanted_and_not_before";
    FakeCuda::new().run(name, || {
        let devices = Devices::new(None).unwrap();
        assert!(devices.register(&memory(1)).is_none());
        assert!(devices.numbers().is_none());
        devices.open().unwrap();
        assert!(devices.register(&memory(2)).is_some());
        // Numbers of all clones are the same.
        settle(&devices);
        assert_eq!(devices.clone().numbers().unwrap().registered, 2);
    });
}

#[test]
fn a_device_that_is_not_there_says_so_each_time() {
    let name = "devices::cuda::tests::a_device_that_is_not_there_says_so_each_time";
    FakeCuda::absent().run(name, || {
        let error = Devices::new(Some(SETTINGS)).unwrap_err().to_string();
        assert!(error.contains("driver"), "{error}");
        let devices = Devices::new(None).unwrap();
        let first = devices.open().unwrap_err().to_string();
        let second = devices.open().unwrap_err().to_string();
        assert!(second.contains(&first), "{second}");
    });
}
