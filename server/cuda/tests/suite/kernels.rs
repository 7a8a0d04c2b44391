//! The kernels against plain loops: our own on a device, their Rust doubles on the fake driver.

use adjoin_cuda::{BatchSlot, CudaError, HalfOrFloat, Lane, Normalize, SlotSpec};
use fake_cuda::harness::FakeCuda;
use half::f16;

use crate::fixture::{SETTINGS, Session, content, register_all, settings, spec, transfers};

const IMAGES: usize = 5;

fn normalize(to: HalfOrFloat) -> Normalize {
    // ImageNet's, for three channels.
    let mean = [0.485, 0.456, 0.406];
    let deviation = [0.229, 0.224, 0.225];
    let mut normalize = Normalize {
        height: 13,
        width: 17,
        channels: 3,
        scale: [0.0; 4],
        offset: [0.0; 4],
        to,
    };
    for channel in 0..3 {
        normalize.scale[channel] = 1.0 / (255.0 * deviation[channel]);
        normalize.offset[channel] = -mean[channel] / deviation[channel];
    }
    normalize
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
                    floats.push(value.mul_add(normalize.scale[channel], normalize.offset[channel]));
                }
            }
        }
    }
    floats
}

fn normalized(test: &str, to: HalfOrFloat, check: impl Fn(&[u8], &[f32])) {
    let report = FakeCuda::new().delay_us("0-300").run_anywhere(test, || {
        let transfers = transfers(SETTINGS);
        let normalize = normalize(to);
        let bytes_in = IMAGES * normalize.input_bytes().unwrap();
        let bytes_out = IMAGES * normalize.output_bytes().unwrap();
        let mut session = Session::new(bytes_out, 1);
        register_all(&transfers, std::slice::from_ref(&session));
        let spec = SlotSpec {
            inputs: vec![bytes_in],
            outputs: vec![bytes_out],
            pieces_max: 1,
        };
        let mut slot = BatchSlot::new(&transfers, spec).unwrap();
        let mut engine = Lane::new(transfers.device(), 8).unwrap();
        let image_bytes = session.payload().part(0, bytes_in).unwrap().to_vec();
        let mut run = slot.begin().unwrap();
        run.gather(0, &[session.payload().part(0, bytes_in).unwrap()])
            .unwrap();
        run.compute_in(&mut engine, |lane, inputs, outputs| {
            let kernels = transfers.kernels();
            kernels.normalize(lane, &normalize, IMAGES as u32, &inputs[0], &outputs[0])
        })
        .unwrap();
        run.scatter(0, [session.room()]).unwrap();
        run.finish().unwrap();
        engine.settle().unwrap();
        check(&session.answer(), &expected(&image_bytes, &normalize));
    });
    if let Some(report) = report {
        report.assert_clean();
    }
}

#[test]
fn bytes_to_floats() {
    normalized(
        "kernels::bytes_to_floats",
        HalfOrFloat::Float,
        |answer, expected| {
            let floats: Vec<f32> = answer
                .chunks_exact(4)
                .map(|bytes| f32::from_ne_bytes(bytes.try_into().unwrap()))
                .collect();
            assert!(floats == expected, "every bit");
        },
    );
}

#[test]
fn bytes_to_halves() {
    normalized(
        "kernels::bytes_to_halves",
        HalfOrFloat::Half,
        |answer, expected| {
            let halves: Vec<f16> = answer
                .chunks_exact(2)
                .map(|bytes| f16::from_ne_bytes(bytes.try_into().unwrap()))
                .collect();
            let expected: Vec<f16> = expected.iter().map(|&value| f16::from_f32(value)).collect();
            assert!(halves == expected, "every bit");
        },
    );
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
        let good = normalize(HalfOrFloat::Float);
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
