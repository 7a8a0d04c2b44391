//! Batches: right answers for the right requests, by the copy engine alone where that can be.

use adjoin_backend::conformance::memory::{Placed, Taker, Tensor};
use adjoin_backend::conformance::onnx::Graph;
use adjoin_backend::{Execution, Input, Output};
use adjoin_cuda::{DeviceRegion, Path, SharedBuffer};
use adjoin_schema::DataType;
use adjoin_schema::layout::{RegionKind, SessionLayout};
use adjoin_shm::{Payload, PayloadMut, SessionMemory};
use fake_cuda::harness::counts;
use fake_onnxruntime::harness;

use crate::fixture::{Machine, add, add_of_rows, bytes_of, expect, fake, values_of};

#[test]
fn every_request_gets_its_own_rows() {
    for delay in ["0", "0-300"] {
        let report = fake()
            .delay_us(delay)
            .run("runs::every_request_gets_its_own_rows", || {
                let machine = Machine::new();
                let model = machine.load(&add_of_rows(), 8);
                let mut instance = model.instance().unwrap();
                for turn in 0..6 {
                    for rows in [&[1][..], &[3, 1], &[1, 2, 2, 3], &[8]] {
                        expect(&mut *instance, turn, rows);
                    }
                }
                // The run comes back at once: who waits waits for the outputs.
                let report = harness::report();
                assert_eq!((report.runs, report.runs_not_waited_for), (24, 24));
                drop((instance, model));
                machine.end();
            });
        report.assert_clean();
    }
}

#[test]
fn registered_memory_is_read_and_written_by_the_device_alone() {
    let test = "runs::registered_memory_is_read_and_written_by_the_device_alone";
    let report = fake().run(test, || {
        let machine = Machine::new();
        let model = machine.load(&add_of_rows(), 8);
        let mut instance = model.instance().unwrap();
        let layout = SessionLayout::new(1 << 17, 1 << 17, 64).unwrap();
        let memory = SessionMemory::create(layout, 1).unwrap();
        let registry = machine.transfers.registry();
        let keys = [memory.request(), memory.response()].map(|region| registry.register(region));
        registry.settle();
        let start = layout.payload(RegionKind::Request).start;
        let input = memory.request().payload(start, 32).unwrap();
        let mut room = memory.response_arena().allocate(32).unwrap();
        let counters = machine.transfers.device().counters();
        let before = (
            counters.to_device.by_processor(),
            counters.to_host.by_processor(),
        );
        for _ in 0..3 {
            let input = Input::whole(DataType::Fp32, &[2, 4], input);
            let execution = Execution {
                key: None,
                inputs: &[input, input],
                outputs: &mut [Output::Bound {
                    dtype: DataType::Fp32,
                    shape: &[2, 4],
                    payload: room.payload_mut(),
                }],
            };
            instance.run(execution, &mut Taker::default()).unwrap();
            assert_eq!(values_of(&room.payload().to_vec()), [0.0; 8]);
        }
        assert_eq!(counters.to_device.get(Path::Direct), 3 * 64);
        assert_eq!(counters.to_host.get(Path::Direct), 3 * 32);
        let after = (
            counters.to_device.by_processor(),
            counters.to_host.by_processor(),
        );
        assert_eq!(before, after);
        drop(room);
        for key in keys {
            registry.retire(key, ());
        }
        drop((instance, model));
        machine.end();
    });
    report.assert_clean();
    // By the driver's own count, no other byte went either way.
    assert_eq!(report.to_device_registered, 3 * 64, "{report:#?}");
    assert_eq!(report.to_host_registered, 3 * 32, "{report:#?}");
    let others = [
        report.to_device_pinned,
        report.to_host_pinned,
        report.pageable(),
    ];
    assert_eq!(others, [0; 3], "{report:#?}");
}

#[test]
fn two_batches_of_a_session_are_under_way_at_once() {
    let test = "runs::two_batches_of_a_session_are_under_way_at_once";
    let report = fake().delay_us("500-3000").run(test, || {
        let machine = Machine::new();
        let model = machine.load(&add_of_rows(), 8);
        assert_eq!(model.batches_at_once(), 2);
        let mut instances = [model.instance().unwrap(), model.instance().unwrap()];
        std::thread::scope(|scope| {
            for (number, instance) in instances.iter_mut().enumerate() {
                scope.spawn(move || {
                    for turn in 0..20 {
                        expect(&mut **instance, 20 * number + turn, &[1, 2]);
                    }
                });
            }
        });
        let report = harness::report();
        assert_eq!(
            (report.sessions.len(), report.under_way_max),
            (1, 2),
            "{report:#?}"
        );
        // A third one has a session of its own.
        let mut third = model.instance().unwrap();
        expect(&mut *third, 7, &[3]);
        assert_eq!(harness::report().sessions.len(), 2);
        drop((instances, third, model));
        machine.end();
    });
    report.assert_clean();
}

#[test]
fn after_warm_up_nothing_is_allocated() {
    fake().run("runs::after_warm_up_nothing_is_allocated", || {
        let machine = Machine::new();
        let mut instance = machine.load(&add_of_rows(), 8).instance().unwrap();
        for turn in 0..4 {
            expect(&mut *instance, turn, &[1, 2]);
        }
        let before = counts();
        for turn in 4..40 {
            // Also sizes that have not been before: the slot was made for all of them.
            expect(&mut *instance, turn, &[1 + turn % 4, 1, 3]);
        }
        let after = counts();
        assert_eq!(before.device_allocations, after.device_allocations);
        assert_eq!(before.pinned_allocations, after.pinned_allocations);
    });
}

/// Runs `a + a` of one request of this shape.
fn run_shape(instance: &mut dyn adjoin_backend::Instance, shape: &[i64; 2], turn: usize) {
    let count = usize::try_from(shape[0] * shape[1]).unwrap();
    let values: Vec<f32> = (0..count).map(|value| (turn + value) as f32).collect();
    let (bytes, mut room) = (bytes_of(&values), vec![0xa5; count * 4]);
    let input = Input::whole(DataType::Fp32, shape, Payload::from_slice(&bytes));
    let execution = Execution {
        key: None,
        inputs: &[input, input],
        outputs: &mut [Output::Bound {
            dtype: DataType::Fp32,
            shape,
            payload: PayloadMut::from_slice(&mut room),
        }],
    };
    instance.run(execution, &mut Taker::default()).unwrap();
    let doubled: Vec<f32> = values.iter().map(|value| 2.0 * value).collect();
    assert_eq!(values_of(&room), doubled);
}

#[test]
fn a_slot_grows_to_what_comes_and_then_allocates_no_more() {
    let test = "runs::a_slot_grows_to_what_comes_and_then_allocates_no_more";
    let report = fake().delay_us("0-100").run(test, || {
        let machine = Machine::new();
        let model = machine.load(&add(&["batch", "length"]), 4);
        let mut instance = model.instance().unwrap();
        let shapes = [[1, 1], [4, 100], [2, 300], [4, 2], [0, 5], [4, 301]];
        let mut grown = Vec::new();
        for turn in 0..3 {
            let before = counts().device_allocations;
            for shape in &shapes {
                run_shape(&mut *instance, shape, turn);
            }
            grown.push(counts().device_allocations - before);
        }
        assert!(grown[0] > 0, "the slot was made without the length");
        assert_eq!(grown[1..], [0, 0], "it has grown to all of them");
        // Lengths that creep up bring an allocation now and then.
        let before = counts().device_allocations;
        for length in 302..1200 {
            run_shape(&mut *instance, &[4, length], 0);
        }
        let growths = (counts().device_allocations - before) / 3;
        assert!((1..=6).contains(&growths), "{growths} times");
        drop((instance, model));
        machine.end();
    });
    report.assert_clean();
}

#[test]
fn outputs_that_only_a_run_shows_are_counted_as_copied_by_a_processor() {
    let test = "runs::outputs_that_only_a_run_shows_are_counted_as_copied_by_a_processor";
    fake().delay_us("0-300").run(test, || {
        let machine = Machine::new();
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/models/nonzero.onnx"
        );
        let model = machine.load(&std::fs::read(path).unwrap(), 0);
        let mut instance = model.instance().unwrap();
        let counters = machine.transfers.device().counters();
        let mut expected = 0;
        for values in [&[0.0_f32, 2.0, 3.0][..], &[0.0, 0.0], &[5.0]] {
            let count = i64::try_from(values.len()).unwrap();
            let placed = Placed::new(&Tensor::new(&[count], values));
            let mut taker = Taker::default();
            let execution = Execution {
                key: None,
                inputs: &[placed.input()],
                outputs: &mut [Output::Unbound],
            };
            instance.run(execution, &mut taker).unwrap();
            let indices: Vec<i64> = (0_i64..)
                .zip(values)
                .filter(|(_, value)| **value != 0.0)
                .map(|(index, _)| index)
                .collect();
            let found = i64::try_from(indices.len()).unwrap();
            assert_eq!(taker.taken, [(0, Tensor::new(&[1, found], &indices))]);
            expected += 8 * u64::try_from(found).unwrap();
            assert_eq!(counters.to_host.get(Path::Pageable), expected);
        }
        drop((instance, model));
        machine.end();
    });
}

#[test]
fn truth_values_are_0_and_1_whatever_the_client_wrote() {
    const BOOL: u64 = 9;
    let test = "runs::truth_values_are_0_and_1_whatever_the_client_wrote";
    fake().run(test, || {
        let machine = Machine::new();
        let graph = Graph::default()
            .node("Identity", &["x"], &["y"])
            .input("x", BOOL, &["n"])
            .output("y", BOOL, &["n"])
            .model();
        let model = machine.load(&graph, 8);
        let mut instance = model.instance().unwrap();
        let (first, second) = ([7, 0, 1], [0xff, 0]);
        let rest = [Payload::from_slice(&second)];
        let mut room = [0xa5; 5];
        let input = Input {
            dtype: DataType::Bool,
            shape: &[5],
            payload: Payload::from_slice(&first),
            rest: &rest,
        };
        let execution = Execution {
            key: None,
            inputs: &[input],
            outputs: &mut [Output::Bound {
                dtype: DataType::Bool,
                shape: &[5],
                payload: PayloadMut::from_slice(&mut room),
            }],
        };
        let copied = instance.run(execution, &mut Taker::default()).unwrap();
        assert_eq!(copied.input_bytes, 5);
        assert_eq!(room, [1, 0, 1, 1, 0]);
        drop((instance, model));
        machine.end();
    });
}

#[test]
fn memory_that_clients_share_on_the_device_is_read_and_written_there() {
    let test = "runs::memory_that_clients_share_on_the_device_is_read_and_written_there";
    let report = fake().delay_us("0-300").run(test, || {
        let machine = Machine::new();
        let model = machine.load(&add_of_rows(), 8);
        assert!(model.takes_on_device("a") && model.gives_on_device("sum"));
        let mut instance = model.instance().unwrap();
        let device = machine.transfers.device();
        // Two clients, each with a row of its own, and the answer behind it.
        let rows = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]];
        let clients = rows.map(|row| {
            let memory = SharedBuffer::allocate(device, 64).unwrap();
            let bytes = bytes_of(&row);
            memory.write(0, &Payload::from_slice(&bytes)).unwrap();
            let descriptor = memory.export().unwrap();
            let region =
                DeviceRegion::import(&machine.transfers, &descriptor, memory.byte_size(), ());
            (memory, region.unwrap())
        });
        let counters = device.counters();
        let by_processor = || counters.to_device.by_processor() + counters.to_host.by_processor();
        let before = by_processor();
        let pieces = clients
            .each_ref()
            .map(|(_, region)| region.payload(0, 16).unwrap());
        let input = Input {
            dtype: DataType::Fp32,
            shape: &[2, 4],
            payload: pieces[0],
            rest: &pieces[1..],
        };
        let rooms = clients
            .iter()
            .map(|(_, region)| region.payload_mut(1024, 16).unwrap());
        let output = Output::Pieces {
            dtype: DataType::Fp32,
            shape: &[2, 4],
            pieces: rooms.collect(),
        };
        let execution = Execution {
            key: None,
            inputs: &[input, input],
            outputs: &mut [output],
        };
        instance.run(execution, &mut Taker::default()).unwrap();
        assert_eq!(by_processor(), before);
        assert_eq!(counters.within.gathered(), 2 * 2 * 16);
        assert_eq!(counters.within.scattered(), 2 * 16);
        for ((memory, _), row) in clients.iter().zip(rows) {
            let mut answer = [0; 16];
            let mut to = PayloadMut::from_slice(&mut answer);
            memory.read(1024, &mut to).unwrap();
            assert_eq!(values_of(&answer), row.map(|value| value + value));
        }
        drop((instance, model, clients));
        machine.end();
    });
    report.assert_clean();
    assert_eq!(report.to_device_registered + report.to_host_registered, 0);
}

#[test]
fn truth_values_are_not_taken_from_the_device() {
    const BOOL: u64 = 9;
    let graph = Graph::default()
        .node("Not", &["t"], &["u"])
        .input("t", BOOL, &["batch"])
        .output("u", BOOL, &["batch"])
        .model();
    let test = "runs::truth_values_are_not_taken_from_the_device";
    let report = fake().run(test, || {
        let machine = Machine::new();
        let model = machine.load(&graph, 4);
        assert!(!model.takes_on_device("t") && model.gives_on_device("u"));
        drop(model);
        machine.end();
    });
    report.assert_clean();
}
