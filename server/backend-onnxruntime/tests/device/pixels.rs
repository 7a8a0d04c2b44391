//! Inputs of pixels: made on the device, with the bits of the processor's transform, of bytes that it reads where they lie.

use std::collections::BTreeMap;

use adjoin_backend::conformance::memory::Taker;
use adjoin_backend::conformance::onnx::Graph;
use adjoin_backend::{
    Backend, Copied, DevicePlacement, ExecuteError, Execution, Input, Instance, Model, Output,
    Placement,
};
use adjoin_cuda::Path;
use adjoin_input_transform::{InputTransform, transformed};
use adjoin_schema::DataType;
use adjoin_schema::layout::{RegionKind, SessionLayout};
use adjoin_shm::{AlignedBuffer, Payload, PayloadMut, SessionMemory};
use fake_cuda::harness::counts;
use fake_onnxruntime::harness;

use crate::fixture::{Machine, accelerated, fake, plain};

const FP32: u64 = 1;
const FP16: u64 = 10;
const BF16: u64 = 16;

/// Height, width and channels.
type Image = [usize; 3];
/// Images of these tests, unless they say otherwise.
const IMAGE: Image = [6, 5, 3];
/// Channels last.
const FIXED: [&str; 4] = ["n", "3", "6", "5"];
const OPEN: [&str; 4] = ["n", "3", "height", "width"];

/// A model that gives back its input.
fn identity(element: u64, dimensions: &[&str]) -> Vec<u8> {
    Graph::default()
        .node("Identity", &["x"], &["y"])
        .input("x", element, dimensions)
        .output("y", element, dimensions)
        .model()
}

fn transform() -> InputTransform {
    let text = "mean=0.485,0.456,0.406 std=0.229,0.224,0.225";
    text.parse().unwrap()
}

fn with_pixels(model: Box<dyn Model>, input: &str, transform: InputTransform) -> Box<dyn Model> {
    let transforms = BTreeMap::from([(input.to_owned(), transform)]);
    transformed(model, &transforms).unwrap()
}

fn load(machine: &Machine, dimensions: &[&str], placement: DevicePlacement) -> Box<dyn Model> {
    let graph = identity(FP32, dimensions);
    let model = machine.try_load(&graph, placement, 8).unwrap();
    with_pixels(model, "x", transform())
}

/// Requests of so many images each, no two bytes in a row alike.
fn requests(images: &[usize], image: Image, turn: usize) -> Vec<Vec<u8>> {
    let bytes = |(index, &images): (usize, &usize)| {
        let byte = |at: usize| (at * 89 + index * 31 + turn * 7).to_le_bytes()[0];
        let count = images * image.iter().product::<usize>();
        (0..count).map(byte).collect()
    };
    images.iter().enumerate().map(bytes).collect()
}

/// What the processor makes of a request.
fn normalised(
    request: &[u8],
    image: Image,
    transform: &InputTransform,
    dtype: DataType,
) -> Vec<u8> {
    let mut normaliser = transform.normaliser(image[2], dtype).unwrap();
    let mut buffer = AlignedBuffer::new(request.len() * 4).unwrap();
    let image_bytes = image.iter().product();
    normaliser.run([Payload::from_slice(request)], image_bytes, &mut buffer);
    buffer
        .payload(request.len() * element_bytes(dtype))
        .to_vec()
}

fn element_bytes(dtype: DataType) -> usize {
    if dtype == DataType::Fp32 { 4 } else { 2 }
}

/// Runs requests of whole images together; what each gets, and what was copied.
fn run(
    instance: &mut dyn Instance,
    requests: &[Vec<u8>],
    image: Image,
    dtype: DataType,
) -> Result<(Vec<Vec<u8>>, Copied), ExecuteError> {
    let size = |size: usize| i64::try_from(size).unwrap();
    let [height, width, channels] = image.map(size);
    let bytes: usize = requests.iter().map(Vec::len).sum();
    let rows = size(bytes / image.iter().product::<usize>().max(1));
    let mut rooms: Vec<Vec<u8>> = (requests.iter())
        .map(|request| vec![0xa5; request.len() * element_bytes(dtype)])
        .collect();
    let pieces: Vec<Payload<'_>> = requests
        .iter()
        .map(|request| Payload::from_slice(request))
        .collect();
    let input = Input {
        dtype: DataType::Uint8,
        shape: &[rows, height, width, channels],
        payload: pieces[0],
        rest: &pieces[1..],
    };
    let output = Output::Pieces {
        dtype,
        shape: &[rows, channels, height, width],
        pieces: (rooms.iter_mut())
            .map(|room| PayloadMut::from_slice(room))
            .collect(),
    };
    let execution = Execution {
        key: None,
        inputs: &[input],
        outputs: &mut [output],
    };
    let copied = instance.run(execution, &mut Taker::default())?;
    Ok((rooms, copied))
}

/// Runs them, and expects the processor's bits without a byte by it.
fn expect(instance: &mut dyn Instance, images: &[usize], image: Image, turn: usize) {
    let requests = requests(images, image, turn);
    let (answers, copied) = run(instance, &requests, image, DataType::Fp32).unwrap();
    assert_normalised(&answers, &requests, image, DataType::Fp32);
    assert_eq!(copied, Copied::default());
}

fn assert_normalised(answers: &[Vec<u8>], requests: &[Vec<u8>], image: Image, dtype: DataType) {
    for (request, answer) in requests.iter().zip(answers) {
        let expected = normalised(request, image, &transform(), dtype);
        assert!(answer == &expected, "{dtype} of {image:?}: every bit");
    }
}

#[test]
fn a_model_answers_on_the_device_what_it_answers_on_the_processor() {
    let test = "pixels::a_model_answers_on_the_device_what_it_answers_on_the_processor";
    let report = fake().delay_us("0-200").run(test, || {
        let machine = Machine::new();
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/models/shades.onnx"
        );
        let graph = std::fs::read(path).unwrap();
        let mut source = machine.source(&graph, plain(), 8);
        let backend = machine.backend();
        let on_device = with_pixels(backend.load(&source).unwrap(), "pixels", transform());
        source.placement = Placement::Host;
        let on_host = with_pixels(backend.load(&source).unwrap(), "pixels", transform());
        assert_eq!(on_device.metadata().inputs[0], on_host.metadata().inputs[0]);
        assert!(on_device.is_on_device() && !on_host.is_on_device());
        let mut instances = [&on_device, &on_host].map(|model| model.instance().unwrap());
        for turn in 0..6 {
            let bytes = &requests(&[3], [8, 8, 3], turn)[0];
            let answers = instances.each_mut().map(|instance| {
                let mut taker = Taker::default();
                let input = Payload::from_slice(bytes);
                let execution = Execution {
                    key: None,
                    inputs: &[Input::whole(DataType::Uint8, &[3, 8, 8, 3], input)],
                    outputs: &mut [Output::Unbound],
                };
                let copied = instance.run(execution, &mut taker).unwrap();
                (taker.taken, copied.transformed_bytes)
            });
            let [(device, by_processor), (host, by_host)] = answers;
            assert_eq!(device, host);
            assert_eq!((by_processor, by_host), (0, 3 * 192));
        }
        drop((instances, on_device, on_host));
        machine.end();
    });
    report.assert_clean();
}

#[test]
fn every_request_gets_the_bits_that_the_processor_makes() {
    for delay in ["0", "0-300"] {
        let test = "pixels::every_request_gets_the_bits_that_the_processor_makes";
        let report = fake().delay_us(delay).run(test, || {
            let machine = Machine::new();
            let model = load(&machine, &FIXED, plain());
            let mut instance = model.instance().unwrap();
            for turn in 0..6 {
                for images in [&[1][..], &[3, 1], &[1, 2, 2, 3], &[8]] {
                    expect(&mut *instance, images, IMAGE, turn);
                }
            }
            drop((instance, model));
            machine.end();
        });
        report.assert_clean();
    }
}

#[test]
fn halves_and_brain_floats_are_made_as_well() {
    let test = "pixels::halves_and_brain_floats_are_made_as_well";
    let report = fake().run(test, || {
        let machine = Machine::new();
        for (element, dtype) in [(FP16, DataType::Fp16), (BF16, DataType::Bf16)] {
            let model = machine.load(&identity(element, &FIXED), 8);
            let model = with_pixels(model, "x", transform());
            let mut instance = model.instance().unwrap();
            for turn in 0..3 {
                let requests = requests(&[3, 1], IMAGE, turn);
                let (answers, copied) = run(&mut *instance, &requests, IMAGE, dtype).unwrap();
                assert_normalised(&answers, &requests, IMAGE, dtype);
                assert_eq!(copied, Copied::default());
            }
        }
        machine.end();
    });
    report.assert_clean();
}

/// Its first dimension is its height, and that of the model's input the channels: neither is a number of rows.
#[test]
fn an_image_without_a_batch_is_made_whole() {
    let test = "pixels::an_image_without_a_batch_is_made_whole";
    let report = fake().run(test, || {
        let machine = Machine::new();
        for image in [[2, 5, 3], [3, 2, 3], [6, 1, 3]] {
            let [height, width, _] = image.map(|size| size.to_string());
            let graph = identity(FP32, &["3", &height, &width]);
            let model = with_pixels(machine.load(&graph, 0), "x", transform());
            let mut instance = model.instance().unwrap();
            let request = &requests(&[1], image, 5)[0];
            let shape = image.map(|size| i64::try_from(size).unwrap());
            let mut taker = Taker::default();
            let execution = Execution {
                key: None,
                inputs: &[Input::whole(
                    DataType::Uint8,
                    &shape,
                    Payload::from_slice(request),
                )],
                outputs: &mut [Output::Unbound],
            };
            instance.run(execution, &mut taker).unwrap();
            let expected = normalised(request, image, &transform(), DataType::Fp32);
            assert!(taker.taken[0].1.bytes == expected, "{image:?}");
        }
        machine.end();
    });
    report.assert_clean();
}

#[test]
fn graphs_are_replayed_over_inputs_that_are_made_before() {
    let test = "pixels::graphs_are_replayed_over_inputs_that_are_made_before";
    let report = fake().delay_us("0-200").run(test, || {
        let machine = Machine::new();
        let placement = DevicePlacement {
            graphs: Some(true),
            // Three images are filled up to four.
            ..accelerated("cuda", &[("batch_sizes", "1,4,8")])
        };
        let model = load(&machine, &FIXED, placement);
        let mut instances = [model.instance().unwrap(), model.instance().unwrap()];
        for turn in 0..5 {
            for instance in &mut instances {
                for images in [&[1][..], &[2, 1], &[8]] {
                    expect(&mut **instance, images, IMAGE, turn);
                }
            }
        }
        let report = harness::report();
        assert_eq!((report.captures, report.replays), (6, 24), "{report:#?}");
        drop((instances, model));
        machine.end();
    });
    report.assert_clean();
}

#[test]
fn a_quarter_of_the_bytes_cross_and_none_by_a_processor() {
    const BYTES: usize = 2 * 6 * 5 * 3;
    let test = "pixels::a_quarter_of_the_bytes_cross_and_none_by_a_processor";
    let report = fake().run(test, || {
        let machine = Machine::new();
        let model = load(&machine, &FIXED, plain());
        let mut instance = model.instance().unwrap();
        let layout = SessionLayout::new(1 << 17, 1 << 17, 64).unwrap();
        let memory = SessionMemory::create(layout, 1).unwrap();
        let registry = machine.transfers.registry();
        let keys = [memory.request(), memory.response()].map(|region| registry.register(region));
        registry.settle();
        let start = layout.payload(RegionKind::Request).start;
        let mut room = memory.response_arena().allocate(4 * BYTES as u64).unwrap();
        for _ in 0..3 {
            let input = memory.request().payload(start, BYTES as u64).unwrap();
            let execution = Execution {
                key: None,
                inputs: &[Input::whole(DataType::Uint8, &[2, 6, 5, 3], input)],
                outputs: &mut [Output::Bound {
                    dtype: DataType::Fp32,
                    shape: &[2, 3, 6, 5],
                    payload: room.payload_mut(),
                }],
            };
            let copied = instance.run(execution, &mut Taker::default()).unwrap();
            assert_eq!(copied, Copied::default());
            assert_normalised(
                &[room.payload().to_vec()],
                &[vec![0; BYTES]],
                IMAGE,
                DataType::Fp32,
            );
        }
        let counters = machine.transfers.device().counters();
        assert_eq!(counters.to_device.get(Path::Direct), 3 * BYTES as u64);
        assert_eq!(counters.to_host.get(Path::Direct), 3 * 4 * BYTES as u64);
        drop(room);
        for key in keys {
            registry.retire(key, ());
        }
        drop((instance, model));
        machine.end();
    });
    report.assert_clean();
    // By the driver's own count, no other byte went either way.
    assert_eq!(report.to_device_registered, 3 * BYTES as u64, "{report:#?}");
    assert_eq!(report.to_host_registered, 3 * 4 * BYTES as u64);
    let others = [
        report.to_device_pinned,
        report.to_host_pinned,
        report.pageable(),
    ];
    assert_eq!(others, [0; 3], "{report:#?}");
}

#[test]
fn two_batches_of_a_session_are_under_way_at_once() {
    let test = "pixels::two_batches_of_a_session_are_under_way_at_once";
    let report = fake().delay_us("500-3000").run(test, || {
        let machine = Machine::new();
        let model = load(&machine, &FIXED, plain());
        let mut instances = [model.instance().unwrap(), model.instance().unwrap()];
        std::thread::scope(|scope| {
            for (number, instance) in instances.iter_mut().enumerate() {
                scope.spawn(move || {
                    for turn in 0..20 {
                        expect(&mut **instance, &[1, 2], IMAGE, 20 * number + turn);
                    }
                });
            }
        });
        let report = harness::report();
        assert_eq!(report.under_way_max, 2, "{report:#?}");
        drop((instances, model));
        machine.end();
    });
    report.assert_clean();
}

#[test]
fn after_load_nothing_is_allocated_and_open_sizes_grow_to_what_comes() {
    let test = "pixels::after_load_nothing_is_allocated_and_open_sizes_grow_to_what_comes";
    let report = fake().run(test, || {
        let machine = Machine::new();
        let model = load(&machine, &FIXED, plain());
        let mut instance = model.instance().unwrap();
        expect(&mut *instance, &[1, 2], IMAGE, 0);
        let before = counts();
        for turn in 0..40 {
            expect(&mut *instance, &[1 + turn % 5, 1, 2], IMAGE, turn);
        }
        let after = counts();
        assert_eq!(before.device_allocations, after.device_allocations);
        assert_eq!(before.pinned_allocations, after.pinned_allocations);
        drop((instance, model));
        let model = load(&machine, &OPEN, plain());
        let mut instance = model.instance().unwrap();
        let sizes = [[1, 1, 3], [6, 5, 3], [2, 40, 3], [0, 7, 3], [32, 32, 3]];
        let mut grown = Vec::new();
        for turn in 0..3 {
            let before = counts().device_allocations;
            for image in sizes {
                expect(&mut *instance, &[2, 1], image, turn);
            }
            grown.push(counts().device_allocations - before);
        }
        assert!(grown[0] > 0, "the slot was made without height and width");
        assert_eq!(grown[1..], [0, 0], "it has grown to all of them");
        drop((instance, model));
        machine.end();
    });
    report.assert_clean();
}

#[test]
fn images_that_the_model_does_not_take_are_refused_and_the_next_ones_run() {
    let test = "pixels::images_that_the_model_does_not_take_are_refused_and_the_next_ones_run";
    let report = fake().run(test, || {
        let machine = Machine::new();
        let profile = [
            ("trt_profile_min_shapes", "x:1x3x5x5"),
            ("trt_profile_opt_shapes", "x:4x3x6x5"),
            ("trt_profile_max_shapes", "x:8x3x7x5"),
        ];
        let model = load(&machine, &OPEN, accelerated("tensorrt", &profile));
        // The profile is that of the model's own input.
        assert_eq!(model.sizes(), [vec![1..=8, 5..=7, 5..=5, 3..=3]]);
        let mut instance = model.instance().unwrap();
        for (images, image, words) in [
            (&[1][..], [8, 5, 3], "outside of the profile"),
            (&[5, 4], IMAGE, "outside of the profile"),
            (&[1], [6, 4, 3], "outside of the profile"),
            (&[1], [6, 5, 4], "has shape [-1, -1, -1, 3]"),
            (&[1], [6, 5, 1], "has shape [-1, -1, -1, 3]"),
        ] {
            let requests = requests(images, image, 0);
            let error = run(&mut *instance, &requests, image, DataType::Fp32).unwrap_err();
            assert!(
                matches!(&error, ExecuteError::Mismatch { reason } if reason.contains(words)),
                "{image:?}: {error}"
            );
            expect(&mut *instance, &[2, 1], IMAGE, 1);
        }
        drop((instance, model));
        machine.end();
    });
    report.assert_clean();
}

#[test]
fn an_output_that_is_the_input_is_the_one_that_was_made() {
    let test = "pixels::an_output_that_is_the_input_is_the_one_that_was_made";
    let report = fake().run(test, || {
        let machine = Machine::new();
        let graph = Graph::default()
            .node("Identity", &["x"], &["y"])
            .input("x", FP32, &FIXED)
            .output("y", FP32, &FIXED)
            .output("x", FP32, &FIXED)
            .model();
        let model = with_pixels(machine.load(&graph, 8), "x", transform());
        let mut instance = model.instance().unwrap();
        let request = &requests(&[2], IMAGE, 3)[0];
        let expected = normalised(request, IMAGE, &transform(), DataType::Fp32);
        for first in [Output::Skipped, Output::Unbound] {
            let mut taker = Taker::default();
            let input = Payload::from_slice(request);
            let execution = Execution {
                key: None,
                inputs: &[Input::whole(DataType::Uint8, &[2, 6, 5, 3], input)],
                outputs: &mut [first, Output::Unbound],
            };
            instance.run(execution, &mut taker).unwrap();
            for (_, tensor) in &taker.taken {
                assert_eq!(tensor.dtype, DataType::Fp32);
                assert_eq!(tensor.shape, [2, 3, 6, 5]);
                assert!(tensor.bytes == expected);
            }
            assert!(!taker.taken.is_empty());
        }
        drop((instance, model));
        machine.end();
    });
    report.assert_clean();
}

#[test]
fn what_the_kernel_does_not_make_is_made_by_a_processor_and_counted() {
    let test = "pixels::what_the_kernel_does_not_make_is_made_by_a_processor_and_counted";
    let report = fake().run(test, || {
        let machine = Machine::new();
        let model = machine.load(&identity(FP32, &["n", "5", "6", "5"]), 8);
        let half: InputTransform = "mean=0.5 std=0.25".parse().unwrap();
        let model = with_pixels(model, "x", half.clone());
        let mut instance = model.instance().unwrap();
        let image = [6, 5, 5];
        let requests = requests(&[1, 2], image, 0);
        let (answers, copied) = run(&mut *instance, &requests, image, DataType::Fp32).unwrap();
        for (request, answer) in requests.iter().zip(&answers) {
            assert!(*answer == normalised(request, image, &half, DataType::Fp32));
        }
        assert_eq!(copied.transformed_bytes, 3 * 150);
        drop((instance, model));
        machine.end();
    });
    report.assert_clean();
}

#[test]
fn no_room_for_pixels_is_a_model_that_is_not_loaded_or_a_batch_that_fails() {
    // The first allocation of a slot is for the model's input, the second for the pixels.
    let fake = fake().fail("cuMemAlloc_v2:2:2");
    let test = "pixels::no_room_for_pixels_is_a_model_that_is_not_loaded_or_a_batch_that_fails";
    let report = fake.run(test, || {
        let machine = Machine::new();
        let before = counts().device_allocations;
        let model = load(&machine, &FIXED, plain());
        assert_eq!((before, counts().device_allocations), (0, 0));
        let error = model.instance().map(drop).unwrap_err().to_string();
        assert!(error.contains("OUT_OF_MEMORY"), "{error}");
        let mut instance = model.instance().unwrap();
        expect(&mut *instance, &[1, 2], IMAGE, 0);
        drop((instance, model));
        machine.end();
    });
    report.assert_clean();
}

#[test]
fn a_launch_that_fails_fails_its_batch() {
    let test = "pixels::a_launch_that_fails_fails_its_batch";
    for call in 1..=4 {
        let failure = format!("cuLaunchKernel:{call}:1");
        let report = fake().fail(failure).delay_us("0-200").run(test, || {
            let machine = Machine::new();
            let model = load(&machine, &FIXED, plain());
            let mut instance = model.instance().unwrap();
            let mut right = 0;
            for turn in 0..12 {
                let requests = requests(&[1, 2], IMAGE, turn);
                let outcome = run(&mut *instance, &requests, IMAGE, DataType::Fp32);
                if let Ok((answers, _)) = outcome {
                    assert_normalised(&answers, &requests, IMAGE, DataType::Fp32);
                    right += 1;
                }
            }
            assert_eq!(right, 11);
            drop((instance, model));
            machine.end();
        });
        report.assert_clean();
    }
}

#[test]
fn a_kernel_that_ends_the_context_is_told_as_a_lost_device() {
    let fake = fake().fail("exec.kernel:4:700").delay_us("0-200");
    let test = "pixels::a_kernel_that_ends_the_context_is_told_as_a_lost_device";
    fake.run(test, || {
        let machine = Machine::new();
        let model = load(&machine, &FIXED, plain());
        let mut instance = model.instance().unwrap();
        let mut lost = 0;
        for turn in 0..12 {
            let requests = requests(&[1, 2], IMAGE, turn);
            match run(&mut *instance, &requests, IMAGE, DataType::Fp32) {
                Ok((answers, _)) => {
                    assert_normalised(&answers, &requests, IMAGE, DataType::Fp32);
                    assert_eq!(lost, 0);
                }
                Err(ExecuteError::DeviceLost { .. }) => lost += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(lost > 0 && machine.transfers.device().is_lost());
    });
}
