//! Inputs of pixels: made on the device, with the bits of the processor's transform, of bytes that it reads where they lie.

use std::collections::BTreeMap;

use adjoin_backend::{Copied, Dimension, ExecuteError, Execution, Input, Instance, Model, Output};
use adjoin_cuda::{Path, Transfers};
use adjoin_fake_nvinfer::Plan;
use adjoin_input_transform::{InputTransform, transformed};
use adjoin_schema::DataType;
use adjoin_schema::layout::{RegionKind, SessionLayout};
use adjoin_shm::{AlignedBuffer, Payload, PayloadMut, SessionMemory};
use fake_cuda::harness::{FakeCuda, counts};

use crate::fixture::{Taker, load, load_with, plan, transfers, values_of};

/// Images of these tests, unless they say otherwise: height, width and channels.
const IMAGE: [usize; 3] = [6, 5, 3];

/// A plan that gives back its input, 1 to 8 images of 5 to 7 rows and 5 columns.
fn identity(channels: usize) -> Plan {
    plan()
        .line(&format!("input x FP32 -1,{channels},-1,5"))
        .line(&format!("output y FP32 -1,{channels},-1,5"))
        .line(&format!(
            "profile 0 x 1,{channels},5,5 4,{channels},6,5 8,{channels},7,5"
        ))
        .line("affine x y 1 0")
}

fn transform() -> InputTransform {
    let text = "mean=0.485,0.456,0.406 std=0.229,0.224,0.225";
    text.parse().unwrap()
}

fn with_pixels(model: Box<dyn Model>, transform: InputTransform) -> Box<dyn Model> {
    transformed(model, &BTreeMap::from([("x".to_owned(), transform)])).unwrap()
}

fn model(transfers: &Transfers) -> Box<dyn Model> {
    with_pixels(load(transfers, identity(3)), transform())
}

/// Requests of so many images each, no two bytes in a row alike.
fn requests(images: &[usize], image: [usize; 3], turn: usize) -> Vec<Vec<u8>> {
    let bytes = |(index, &images): (usize, &usize)| {
        let byte = |at: usize| (at * 89 + index * 31 + turn * 7).to_le_bytes()[0];
        let count = images * image.iter().product::<usize>();
        (0..count).map(byte).collect()
    };
    images.iter().enumerate().map(bytes).collect()
}

/// What the processor makes of a request, as bits.
fn normalised(request: &[u8], image: [usize; 3], transform: &InputTransform) -> Vec<u32> {
    let mut normaliser = transform.normaliser(image[2], DataType::Fp32).unwrap();
    let mut buffer = AlignedBuffer::new(request.len() * 4).unwrap();
    let image_bytes = image.iter().product();
    normaliser.run([Payload::from_slice(request)], image_bytes, &mut buffer);
    bits(&buffer.payload(request.len() * 4).to_vec())
}

fn bits(bytes: &[u8]) -> Vec<u32> {
    values_of(bytes).into_iter().map(f32::to_bits).collect()
}

/// Runs requests of whole images together; the bits that each gets, and what was copied.
fn run(
    instance: &mut dyn Instance,
    requests: &[Vec<u8>],
    image: [usize; 3],
) -> Result<(Vec<Vec<u32>>, Copied), ExecuteError> {
    let size = |size: usize| i64::try_from(size).unwrap();
    let [height, width, channels] = image.map(size);
    let bytes: usize = requests.iter().map(Vec::len).sum();
    let rows = size(bytes / image.iter().product::<usize>().max(1));
    let mut rooms: Vec<Vec<u8>> = (requests.iter())
        .map(|request| vec![0xa5; request.len() * 4])
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
        dtype: DataType::Fp32,
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
    Ok((rooms.iter().map(|room| bits(room)).collect(), copied))
}

/// Runs them, and expects the processor's bits without a byte by it.
fn expect(instance: &mut dyn Instance, images: &[usize], image: [usize; 3], turn: usize) {
    let requests = requests(images, image, turn);
    let expected: Vec<_> = (requests.iter())
        .map(|request| normalised(request, image, &transform()))
        .collect();
    let (answers, copied) = run(instance, &requests, image).unwrap();
    assert!(answers == expected, "turn {turn}, {images:?} of {image:?}");
    assert_eq!(copied, Copied::default());
}

#[test]
fn every_request_gets_the_bits_that_the_processor_makes() {
    for delay in ["0", "0-300"] {
        let fake = FakeCuda::new().delay_us(delay);
        let test = "pixels::every_request_gets_the_bits_that_the_processor_makes";
        let report = fake.run(test, || {
            let transfers = transfers();
            let mut instance = model(&transfers).instance().unwrap();
            // By copies at first, then captured, then replayed; larger and smaller ones, and other heights, between them.
            for turn in 0..5 {
                for images in [&[1][..], &[3, 1], &[1, 2, 2, 3], &[8]] {
                    expect(&mut *instance, images, IMAGE, turn);
                }
                expect(&mut *instance, &[2, 1], [7, 5, 3], turn);
                expect(&mut *instance, &[1], [5, 5, 3], turn);
            }
        });
        report.assert_clean();
        assert!(report.graph_launches >= 6 * 3, "{report:#?}");
    }
}

#[test]
fn clients_see_pixels_and_the_plan_its_own_input() {
    FakeCuda::new().run(
        "pixels::clients_see_pixels_and_the_plan_its_own_input",
        || {
            let transfers = transfers();
            let model = model(&transfers);
            let input = &model.metadata().inputs[0];
            assert_eq!(input.dtype, DataType::Uint8);
            let batch = Dimension::Named("batch".to_owned());
            assert_eq!(input.dimensions[0], batch);
            assert_eq!(input.open_shape().as_slice(), [-1, -1, 5, 3]);
            assert_eq!(model.sizes(), [vec![1..=8, 5..=7, 5..=5, 3..=3]]);
            assert!(model.is_on_device());
            assert_eq!(model.batches_at_once(), 2);
        },
    );
}

#[test]
fn a_quarter_of_the_bytes_cross_and_none_by_a_processor() {
    let test = "pixels::a_quarter_of_the_bytes_cross_and_none_by_a_processor";
    const IMAGES: usize = 2;
    const BYTES: usize = IMAGES * 6 * 5 * 3;
    let report = FakeCuda::new().run(test, || {
        let transfers = transfers();
        let mut instance = model(&transfers).instance().unwrap();
        let layout = SessionLayout::new(1 << 17, 1 << 17, 64).unwrap();
        let memory = SessionMemory::create(layout, 1).unwrap();
        let registry = transfers.registry();
        let keys = [memory.request(), memory.response()].map(|region| registry.register(region));
        registry.settle();
        let mut room = memory.response_arena().allocate(4 * BYTES as u64).unwrap();
        let start = layout.payload(RegionKind::Request).start;
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
            let expected = normalised(&[0; BYTES], IMAGE, &transform());
            assert!(bits(&room.payload().to_vec()) == expected);
        }
        let counters = transfers.device().counters();
        assert_eq!(counters.to_device.get(Path::Direct), 3 * BYTES as u64);
        assert_eq!(counters.to_host.get(Path::Direct), 3 * 4 * BYTES as u64);
        let by_processor = [&counters.to_device, &counters.to_host].map(|way| way.by_processor());
        assert_eq!(by_processor, [0, 0]);
        drop(room);
        for key in keys {
            registry.retire(key, ());
        }
    });
    report.assert_clean();
    assert_eq!(report.to_device_registered, 3 * BYTES as u64, "{report:#?}");
    assert_eq!(report.to_host_registered, 3 * 4 * BYTES as u64);
}

#[test]
fn after_warm_up_nothing_is_allocated() {
    FakeCuda::new().run("pixels::after_warm_up_nothing_is_allocated", || {
        let mut instance = model(&transfers()).instance().unwrap();
        let mut turns = |from: usize, to: usize| {
            for turn in from..to {
                expect(&mut *instance, &[1 + turn % 4, 2], IMAGE, turn);
                expect(&mut *instance, &[1, 2], [5 + turn % 3, 5, 3], turn);
            }
        };
        // Every size until it is captured, for which the TensorRT of these tests takes memory of its own.
        turns(0, 36);
        let before = counts();
        turns(36, 72);
        let after = counts();
        assert_eq!(before.device_allocations, after.device_allocations);
        assert_eq!(before.pinned_allocations, after.pinned_allocations);
    });
}

/// Each of the batches waits in the middle of its run for the other one.
#[test]
fn two_batches_overlap_and_each_has_its_own_pixels() {
    let test = "pixels::two_batches_overlap_and_each_has_its_own_pixels";
    let report = FakeCuda::new().delay_us("0-300").run(test, || {
        let transfers = transfers();
        let plan = identity(3).line("meet 3 2");
        let model = with_pixels(load(&transfers, plan), transform());
        std::thread::scope(|scope| {
            for batch in 0..model.batches_at_once() {
                let mut instance = model.instance().unwrap();
                scope.spawn(move || {
                    for turn in 0..6 {
                        expect(&mut *instance, &[1, 2], IMAGE, 10 * turn + batch);
                    }
                });
            }
        });
    });
    report.assert_clean();
    assert!(report.graph_launches >= 2 * 4, "{report:#?}");
}

#[test]
fn images_that_the_model_does_not_take_are_refused_and_the_next_ones_run() {
    let test = "pixels::images_that_the_model_does_not_take_are_refused_and_the_next_ones_run";
    let report = FakeCuda::new().run(test, || {
        let mut instance = model(&transfers()).instance().unwrap();
        for (images, image, words) in [
            (&[1][..], [8, 5, 3], "outside of the optimization profile"),
            (&[1], [4, 5, 3], "outside of the optimization profile"),
            (&[5, 4], IMAGE, "outside of the optimization profile"),
            (&[1], [6, 4, 3], "has shape [-1, -1, 5, 3]"),
            (&[1], [6, 5, 4], "has shape [-1, -1, 5, 3]"),
            (&[1], [6, 5, 1], "has shape [-1, -1, 5, 3]"),
        ] {
            let error = run(&mut *instance, &requests(images, image, 0), image).unwrap_err();
            assert!(
                matches!(&error, ExecuteError::Mismatch { reason } if reason.contains(words)),
                "{image:?}: {error}"
            );
            expect(&mut *instance, &[2, 1], IMAGE, 1);
        }
        // What is one image too short.
        let mut cut = requests(&[1, 1], IMAGE, 0);
        cut[1].truncate(7);
        let error = run(&mut *instance, &cut, IMAGE).unwrap_err();
        assert!(matches!(error, ExecuteError::Mismatch { .. }), "{error}");
        expect(&mut *instance, &[2, 1], IMAGE, 2);
    });
    report.assert_clean();
}

#[test]
fn what_the_kernel_does_not_make_is_made_by_a_processor_and_counted() {
    let test = "pixels::what_the_kernel_does_not_make_is_made_by_a_processor_and_counted";
    FakeCuda::new().run(test, || {
        let transfers = transfers();
        let image = [6, 5, 5];
        let half: InputTransform = "mean=0.5 std=0.25".parse().unwrap();
        let model = with_pixels(load(&transfers, identity(5)), half.clone());
        assert_eq!(model.sizes(), [vec![1..=8, 5..=7, 5..=5, 5..=5]]);
        let mut instance = model.instance().unwrap();
        for turn in 0..4 {
            let requests = requests(&[1, 2], image, turn);
            let (answers, copied) = run(&mut *instance, &requests, image).unwrap();
            let expected: Vec<_> = (requests.iter())
                .map(|request| normalised(request, image, &half))
                .collect();
            assert!(answers == expected);
            assert_eq!(copied.transformed_bytes, 3 * 150);
        }
    });
}

/// One input is of pixels; the other one is gathered as ever.
#[test]
fn an_input_of_pixels_beside_another_one() {
    let test = "pixels::an_input_of_pixels_beside_another_one";
    let report = FakeCuda::new().delay_us("0-200").run(test, || {
        let transfers = transfers();
        let both = plan()
            .line("input z FP32 -1,2")
            .line("input x FP32 -1,1,2,2")
            .line("output w FP32 -1,2")
            .line("output y FP32 -1,1,2,2")
            .line("profile 0 z 1,2 1,2 4,2")
            .line("profile 0 x 1,1,2,2 1,1,2,2 4,1,2,2")
            .line("affine z w 2 1")
            .line("affine x y 1 0");
        let model = with_pixels(load(&transfers, both), "scale=1 mean=1".parse().unwrap());
        let mut instance = model.instance().unwrap();
        let floats: Vec<u8> = [1.5_f32, 2.5]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        for turn in 0..4_u8 {
            let pixels = [turn, 10, 20, 255];
            let (mut first, mut second) = ([0; 8], [0; 16]);
            let execution = Execution {
                key: None,
                inputs: &[
                    Input::whole(DataType::Fp32, &[1, 2], Payload::from_slice(&floats)),
                    Input::whole(DataType::Uint8, &[1, 2, 2, 1], Payload::from_slice(&pixels)),
                ],
                outputs: &mut [
                    Output::Bound {
                        dtype: DataType::Fp32,
                        shape: &[1, 2],
                        payload: PayloadMut::from_slice(&mut first),
                    },
                    Output::Bound {
                        dtype: DataType::Fp32,
                        shape: &[1, 1, 2, 2],
                        payload: PayloadMut::from_slice(&mut second),
                    },
                ],
            };
            instance.run(execution, &mut Taker::default()).unwrap();
            assert_eq!(values_of(&first), [4.0, 6.0]);
            assert_eq!(
                values_of(&second),
                [f32::from(turn) - 1.0, 9.0, 19.0, 254.0]
            );
        }
    });
    report.assert_clean();
}

#[test]
fn no_room_for_pixels_is_a_model_that_is_not_loaded() {
    // The first allocation is for the plan's input, the second for the pixels.
    let test = "pixels::no_room_for_pixels_is_a_model_that_is_not_loaded";
    let report = FakeCuda::new().fail("cuMemAlloc_v2:2:2").run(test, || {
        let transfers = transfers();
        assert_eq!(counts().device_allocations, 0);
        let model = model(&transfers);
        let error = model.instance().unwrap_err().to_string();
        assert!(error.contains("out of memory"), "{error}");
        expect(&mut *model.instance().unwrap(), &[1, 2], IMAGE, 0);
    });
    report.assert_clean();
}

#[test]
fn a_launch_that_fails_fails_its_batch() {
    let test = "pixels::a_launch_that_fails_fails_its_batch";
    for call in 1..=8 {
        let failure = format!("cuLaunchKernel:{call}:1");
        let fake = FakeCuda::new().fail(failure).delay_us("0-200");
        let report = fake.run(test, || {
            let mut instance = model(&transfers()).instance().unwrap();
            let mut right = 0;
            for turn in 0..12 {
                let requests = requests(&[1, 2], IMAGE, turn);
                let Ok((answers, _)) = run(&mut *instance, &requests, IMAGE) else {
                    continue;
                };
                let expected: Vec<_> = (requests.iter())
                    .map(|request| normalised(request, IMAGE, &transform()))
                    .collect();
                assert!(answers == expected);
                right += 1;
            }
            assert!(right >= 11, "one failure, and {right} of 12 were right");
        });
        report.assert_clean();
    }
}

#[test]
fn a_kernel_that_ends_the_context_loses_the_device_which_comes_back() {
    let test = "pixels::a_kernel_that_ends_the_context_loses_the_device_which_comes_back";
    for kernel in [1, 2, 5] {
        let failure = format!("exec.kernel:{kernel}:700");
        let report = FakeCuda::new().fail(failure).delay_us(100).run(test, || {
            let lost = transfers();
            let lost_model = model(&lost);
            let mut instance = lost_model.instance().unwrap();
            let requests = requests(&[1, 2], IMAGE, 0);
            let outcomes: Vec<_> = (0..6)
                .map(|_| run(&mut *instance, &requests, IMAGE))
                .collect();
            let is_lost = |outcome: &Result<_, ExecuteError>| {
                matches!(outcome, Err(ExecuteError::DeviceLost { .. }))
            };
            let first = outcomes.iter().position(is_lost).unwrap();
            assert!(outcomes[..first].iter().all(Result::is_ok), "{outcomes:?}");
            assert!(outcomes[first..].iter().all(is_lost), "{outcomes:?}");
            drop((instance, lost_model));
            let back = lost.rebuild().unwrap();
            expect(&mut *model(&back).instance().unwrap(), &[1, 2], IMAGE, 1);
        });
        report.assert_clean();
        assert_eq!(report.resets, 1);
    }
}

#[test]
fn a_transform_that_does_not_fit_the_plan_is_refused_as_on_the_processor() {
    let test = "pixels::a_transform_that_does_not_fit_the_plan_is_refused_as_on_the_processor";
    FakeCuda::new().run(test, || {
        let transfers = transfers();
        let refusal = |plan: Plan, name: &str| {
            let model = load_with(&transfers, &plan.into_bytes(), &[]).unwrap();
            let transforms = BTreeMap::from([(name.to_owned(), transform())]);
            transformed(model, &transforms)
                .map(drop)
                .unwrap_err()
                .to_string()
        };
        let channels = refusal(identity(4), "x");
        assert!(channels.contains("numbers for 3 channels"), "{channels}");
        let missing = refusal(identity(3), "z");
        assert!(missing.contains("no input \"z\""), "{missing}");
        let flat = refusal(crate::fixture::affine(), "x");
        assert!(flat.contains("of 2 dimensions"), "{flat}");
    });
}
