//! The kernels against plain loops: our own on a device, their Rust doubles on the fake driver.

use adjoin_cuda::{
    BatchSlot, CudaError, FloatType, Lane, Normalize, NormalizeInput, Path, Run, SlotSpec,
    Transfers,
};
use adjoin_shm::Payload;
use fake_cuda::harness::FakeCuda;
use half::{bf16, f16};

use crate::fixture::{
    SETTINGS, Session, content, register_all, sessions, settings, spec, transfers,
};

const IMAGES: usize = 5;

fn normalize(to: FloatType) -> Normalize {
    Normalize {
        height: 13,
        width: 17,
        channels: 3,
        scale: 1.0 / 255.0,
        // ImageNet's, for three channels.
        mean: [0.485, 0.456, 0.406, 0.0],
        deviation: [0.229, 0.224, 0.225, 1.0],
        to,
    }
}

/// The same by the definition: for each image, channel, row and column.
fn expected(bytes: &[u8], normalize: &Normalize) -> Vec<f32> {
    let (height, width) = (normalize.height as usize, normalize.width as usize);
    let channels = normalize.channels as usize;
    let image_bytes = height * width * channels;
    let mut floats = Vec::new();
    for image in bytes.chunks_exact(image_bytes) {
        for channel in 0..channels {
            for row in 0..height {
                for column in 0..width {
                    let value = f32::from(image[(row * width + column) * channels + channel]);
                    let (mean, deviation) = (normalize.mean[channel], normalize.deviation[channel]);
                    floats.push((value * normalize.scale - mean) / deviation);
                }
            }
        }
    }
    floats
}

/// The bits of floats of a type, in 32 each.
fn bits(floats: &[f32], to: FloatType) -> Vec<u32> {
    let bits = |value: &f32| match to {
        FloatType::Bf16 => u32::from(bf16::from_f32(*value).to_bits()),
        FloatType::Fp16 => u32::from(f16::from_f32(*value).to_bits()),
        FloatType::Fp32 => value.to_bits(),
    };
    floats.iter().map(bits).collect()
}

fn bits_of_bytes(bytes: &[u8], to: FloatType) -> Vec<u32> {
    let (halves, words) = (bytes.as_chunks().0, bytes.as_chunks().0);
    match to.byte_size() {
        2 => (halves.iter())
            .map(|half| u16::from_ne_bytes(*half).into())
            .collect(),
        _ => words.iter().map(|word| u32::from_ne_bytes(*word)).collect(),
    }
}

/// Runs a normalisation of images, and expects every bit of its definition.
fn assert_normalizes(transfers: &Transfers, normalize: &Normalize, images: usize) {
    let bytes_in = images * normalize.input_bytes().unwrap();
    let bytes_out = images * normalize.output_bytes().unwrap();
    let mut session = Session::new(bytes_out, 1);
    register_all(transfers, std::slice::from_ref(&session));
    let spec = SlotSpec {
        inputs: vec![bytes_out],
        pixels: vec![bytes_in],
        outputs: vec![bytes_out],
        pieces_max: 1,
    };
    let mut slot = BatchSlot::new(transfers, spec).unwrap();
    let pixels = session.payload().part(0, bytes_in).unwrap();
    let image_bytes = pixels.to_vec();
    let mut run = slot.begin().unwrap();
    run.gather(0, &[pixels]).unwrap();
    run.normalize(&NormalizeInput {
        input: 0,
        normalize: *normalize,
        images: u32::try_from(images).unwrap(),
    })
    .unwrap();
    hand_out(&mut run, bytes_out);
    run.scatter(0, [session.room()]).unwrap();
    run.finish().unwrap();
    assert!(
        bits_of_bytes(&session.answer(), normalize.to)
            == bits(&expected(&image_bytes, normalize), normalize.to),
        "every bit of {images} images by {normalize:?}"
    );
}

/// The model of these tests: its output is its input.
fn hand_out(run: &mut Run<'_, '_>, byte_size: usize) {
    run.with_lane(|lane, inputs, outputs| {
        lane.copy_on_device((&outputs[0], 0), (&inputs[0], 0), byte_size)
    })
    .unwrap();
}

const TYPES: [FloatType; 3] = [FloatType::Bf16, FloatType::Fp16, FloatType::Fp32];

#[test]
fn pixels_become_the_bits_of_the_definition() {
    let test = "kernels::pixels_become_the_bits_of_the_definition";
    let report = FakeCuda::new().delay_us("0-300").run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        for to in TYPES {
            for channels in 1..=4 {
                let normalize = Normalize {
                    channels,
                    ..normalize(to)
                };
                assert_normalizes(&transfers, &normalize, IMAGES);
            }
        }
    });
    if let Some(report) = report {
        report.assert_clean();
        assert_eq!(report.kernels, 12);
    }
}

/// 256 pixels whose bytes are all there are, under numbers that are used and such as overflow, vanish and lie between two
/// values.
#[test]
fn every_byte_becomes_the_same_bits_under_all_numbers() {
    let test = "kernels::every_byte_becomes_the_same_bits_under_all_numbers";
    let report = FakeCuda::new().run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        for (scale, mean, deviation) in [
            (1.0 / 255.0, 0.485, 0.229),
            (1.0 / 255.0, 0.456, 0.224),
            (1.0 / 255.0, 0.5, 0.5),
            (1.0 / 127.5, 1.0, 1.0),
            (1.0, 123.675, 58.395),
            (1.0, 103.53, 57.375),
            (1.0, 0.0, -3.0),
            (3.0e37, 1.0, 1.0e-3),
            (1.0e-39, 0.0, 1.0),
            (1.0e-7, 0.0, 1.5),
        ] {
            for to in TYPES {
                let normalize = Normalize {
                    height: 16,
                    width: 16,
                    channels: 1,
                    scale,
                    mean: [mean; 4],
                    deviation: [deviation; 4],
                    to,
                };
                assert_normalizes(&transfers, &normalize, 4);
            }
        }
    });
    if let Some(report) = report {
        report.assert_clean();
    }
}

#[test]
fn requests_of_several_sessions_are_made_in_one_launch_also_in_a_graph() {
    let test = "kernels::requests_of_several_sessions_are_made_in_one_launch_also_in_a_graph";
    let report = FakeCuda::new().delay_us("0-200").run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        let normalize = normalize(FloatType::Fp32);
        let image = normalize.input_bytes().unwrap();
        let mut sessions = sessions(4, 4 * image);
        // The last one is staged.
        register_all(&transfers, &sessions[..3]);
        let spec = SlotSpec {
            inputs: vec![4 * 4 * image],
            pixels: vec![4 * image],
            outputs: vec![4 * 4 * image],
            pieces_max: 4,
        };
        let mut slot = BatchSlot::new(&transfers, spec).unwrap();
        let made = |images: u32| NormalizeInput {
            input: 0,
            normalize,
            images,
        };
        let graph = slot
            .capture::<CudaError>(&[made(2)], |lane, inputs, outputs| {
                lane.copy_on_device((&outputs[0], 0), (&inputs[0], 0), 2 * 4 * image)
            })
            .unwrap();
        for chosen in [0..2, 2..4, 1..3, 0..4] {
            let chosen = &mut sessions[chosen];
            let images = u32::try_from(chosen.len()).unwrap();
            let is_captured = images == 2;
            let mut run = slot.begin().unwrap();
            let pieces: Vec<Payload<'_>> = (chosen.iter())
                .map(|session| session.payload().part(0, image).unwrap())
                .collect();
            let expected: Vec<Vec<f32>> = (pieces.iter())
                .map(|piece| expected(&piece.to_vec(), &normalize))
                .collect();
            if is_captured {
                run.place_input(0, &pieces).unwrap();
            } else {
                run.gather(0, &pieces).unwrap();
                run.normalize(&made(images)).unwrap();
                hand_out(&mut run, chosen.len() * 4 * image);
            }
            drop(pieces);
            let rooms = chosen.iter_mut().map(Session::room);
            if is_captured {
                run.place_output(0, rooms).unwrap();
                run.replay(&graph).unwrap();
            } else {
                run.scatter(0, rooms).unwrap();
            }
            run.finish().unwrap();
            for (session, expected) in chosen.iter().zip(expected) {
                let answer = bits_of_bytes(&session.answer(), FloatType::Fp32);
                assert!(answer == bits(&expected, FloatType::Fp32));
            }
        }
        let counted = &transfers.device().counters().to_device;
        assert_eq!(
            counted.get(Path::Direct),
            8 * image as u64,
            "bytes of pixels"
        );
        assert_eq!(counted.get(Path::Staged), 2 * image as u64);
    });
    if let Some(report) = report {
        report.assert_clean();
        assert_eq!(report.graph_launches, 3);
    }
}

#[test]
fn inputs_without_memory_for_pixels_are_not_made_of_any() {
    let test = "kernels::inputs_without_memory_for_pixels_are_not_made_of_any";
    let report = FakeCuda::new().run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        let mut slot = BatchSlot::new(&transfers, spec(1 << 16, 1)).unwrap();
        let made = |input| NormalizeInput {
            input,
            normalize: normalize(FloatType::Fp32),
            images: 1,
        };
        let mut run = slot.begin().unwrap();
        let error = run.normalize(&made(0)).unwrap_err();
        assert!(error.to_string().contains("not as pixels"), "{error}");
        let error = run.normalize(&made(7)).unwrap_err();
        assert!(
            matches!(error, CudaError::NoSuchTensor { index: 7, .. }),
            "{error}"
        );
        drop(run);
        let captured = slot.capture::<CudaError>(&[made(0)], |_, _, _| Ok(()));
        assert!(captured.unwrap_err().to_string().contains("not as pixels"));
        slot.begin().unwrap().finish().unwrap();
    });
    if let Some(report) = report {
        report.assert_clean();
    }
}

#[test]
fn images_that_cannot_be_are_refused() {
    let report = FakeCuda::new().run_anywhere("kernels::images_that_cannot_be_are_refused", || {
        let transfers = transfers(SETTINGS);
        let mut slot = BatchSlot::new(&transfers, spec(4096, 1)).unwrap();
        let mut run = slot.begin().unwrap();
        let mut attempt = |normalize: Normalize, images: u32| {
            run.with_lane(|lane, inputs, outputs| {
                let kernels = transfers.kernels();
                kernels.normalize(lane, &normalize, images, &inputs[0], &outputs[0])
            })
        };
        let good = normalize(FloatType::Fp32);
        for channels in [0, 5] {
            let error = attempt(Normalize { channels, ..good }, 1).unwrap_err();
            assert!(matches!(error, CudaError::Arguments { .. }), "{error}");
        }
        let large = Normalize {
            height: u32::MAX,
            width: u32::MAX,
            ..good
        };
        assert!(matches!(
            attempt(large, 1),
            Err(CudaError::Arguments { .. })
        ));
        assert!(matches!(
            attempt(good, 1000),
            Err(CudaError::OutOfRange { .. })
        ));
        assert!(attempt(good, 0).is_ok());
        run.finish().unwrap();
    });
    if let Some(report) = report {
        report.assert_clean();
    }
}

#[test]
fn the_copy_kernel_takes_any_size_and_alignment() {
    let test = "kernels::the_copy_kernel_takes_any_size_and_alignment";
    let report = FakeCuda::new().run_anywhere(test, || {
        let transfers = transfers(settings(usize::MAX, usize::MAX));
        let session = Session::new(200_000, 9);
        register_all(&transfers, std::slice::from_ref(&session));
        let mut answers = Session::new(200_000, 0);
        register_all(&transfers, std::slice::from_ref(&answers));
        let mut slot = BatchSlot::new(&transfers, spec(200_000, 8)).unwrap();
        let mut engine = Lane::new(transfers.device(), 8).unwrap();
        // Starts and sizes that are multiples of 16, of 4, and of nothing.
        let parts = [
            (0, 64),
            (100, 17),
            (1000, 1),
            (4096, 70_000),
            (80_004, 40),
            (90_001, 30_003),
        ];
        let pieces: Vec<_> = parts
            .iter()
            .map(|&(at, byte_size)| session.payload().part(at, byte_size).unwrap())
            .collect();
        let mut run = slot.begin().unwrap();
        let byte_size = run.gather(0, &pieces).unwrap();
        run.compute_in(&mut engine, |lane, inputs, outputs| {
            lane.copy_on_device((&outputs[0], 0), (&inputs[0], 0), byte_size)
        })
        .unwrap();
        let mut rooms = Vec::new();
        let mut rest = answers.room();
        for (_, byte_size) in parts {
            let (room, after) = rest.split_at(byte_size);
            rooms.push(room);
            // A byte in between, so that they do not lie side by side.
            rest = after.split_at(1).1;
        }
        run.scatter(0, rooms).unwrap();
        run.finish().unwrap();
        engine.settle().unwrap();
        let (whole, answer) = (content(200_000, 9), answers.answer());
        let mut at = 0;
        for (from, byte_size) in parts {
            assert!(
                answer[at..at + byte_size] == whole[from..from + byte_size],
                "{from}+{byte_size}"
            );
            at += byte_size + 1;
        }
    });
    if let Some(report) = report {
        report.assert_clean();
    }
}
