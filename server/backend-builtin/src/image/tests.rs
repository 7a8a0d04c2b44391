//! Images of known pixels through the step.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::PathBuf;

use adjoin_backend::ModelSource;
use image::{DynamicImage, ImageFormat, RgbImage};

use super::*;

fn step(parameters: &[(&str, &str)]) -> Result<ImageStep, LoadError> {
    let pairs = parameters.iter();
    let source = ModelSource {
        name: "m".into(),
        version: 1,
        path: PathBuf::new(),
        intra_op_threads: 1,
        parameters: pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>(),
        placement: Default::default(),
        rows_max: Default::default(),
    };
    ImageStep::new(&Parameters::new(
        &source,
        ImageStep::NAME,
        ImageStep::PARAMETERS,
    )?)
}

fn encode(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let image = DynamicImage::ImageRgb8(image.clone());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Each pixel says where it is.
fn ramp(width: u8, height: u8) -> RgbImage {
    RgbImage::from_fn(width.into(), height.into(), |x, y| {
        let [x, y] = [x, y].map(|at| u8::try_from(at).unwrap());
        image::Rgb([10 * x, 10 * y, 7])
    })
}

fn run(step: &mut ImageStep, images: &[&[u8]]) -> Result<Value, String> {
    let mut bytes = Vec::new();
    for image in images {
        strings::push(&mut bytes, image).unwrap();
    }
    let input = Tensor {
        dtype: DataType::Bytes,
        shape: &[dimension(images.len()), 1],
        bytes: &bytes,
    };
    step.compute(&[input]).map(|mut results| results.remove(0))
}

fn bytes(parameters: &[(&str, &str)], image: &RgbImage) -> Vec<u8> {
    let mut all = vec![("data_type", "UINT8")];
    all.extend(parameters);
    let png = encode(image, ImageFormat::Png);
    let value = run(&mut step(&all).unwrap(), &[&png]).unwrap();
    value.elements.bytes().to_vec()
}

#[test]
fn pixels_stand_where_layout_and_order_say() {
    let image = ramp(3, 2);
    let first = bytes(&[("width", "3"), ("height", "2")], &image);
    let wanted = [0, 10, 20, 0, 10, 20, 0, 0, 0, 10, 10, 10, 7, 7, 7, 7, 7, 7];
    assert_eq!(first, wanted);
    let size = [("width", "3"), ("height", "2")];
    let bgr = bytes(
        &[size[0], size[1], ("layout", "NHWC"), ("channels", "BGR")],
        &image,
    );
    assert_eq!(bgr[..9], [7, 0, 0, 7, 0, 10, 7, 0, 20]);
    assert_eq!(bgr[9..12], [7, 10, 0]);
    let gray = bytes(&[size[0], size[1], ("channels", "GRAY")], &image);
    assert_eq!(gray.len(), 6);
}

#[test]
fn numbers_are_scaled_shifted_and_divided_by_channel() {
    let image = encode(&ramp(2, 1), ImageFormat::Png);
    let settings = [
        ("width", "2"),
        ("height", "1"),
        ("scale", "0.5"),
        ("mean", "1,2,3"),
        ("std", "1,2,4"),
    ];
    let value = run(&mut step(&settings).unwrap(), &[&image, &image]).unwrap();
    assert_eq!(value.shape, [2, 3, 1, 2]);
    let one = [-1.0, 4.0, -1.0, -1.0, 0.125, 0.125];
    let Elements::Float(values) = value.elements else {
        panic!("another type");
    };
    assert_eq!(values, [one, one].concat());

    let mut half = settings.to_vec();
    half.push(("data_type", "FP16"));
    let value = run(&mut step(&half).unwrap(), &[&image]).unwrap();
    assert_eq!(
        value.elements,
        Elements::Half(one.map(half::f16::from_f32).into())
    );
}

#[test]
fn proportions_are_stretched_cut_or_framed() {
    // Four pixels wide, two high: columns 0 and 3 are red.
    let image = RgbImage::from_fn(4, 2, |x, _| {
        image::Rgb([if x % 3 == 0 { 200 } else { 0 }, 0, 0])
    });
    let red = |more: &[(&str, &str)]| {
        let mut all = vec![("width", "2"), ("height", "2"), ("resize", "box")];
        all.extend(more);
        bytes(&all, &image)[..4].to_vec()
    };
    assert_eq!(red(&[("fit", "stretch")]), [100, 100, 100, 100]);
    assert_eq!(red(&[("fit", "crop")]), [0, 0, 0, 0]);
    // All of the height at twice the size, so the middle two of eight columns.
    assert_eq!(red(&[("fit", "crop"), ("shorter_side", "4")]), [0, 0, 0, 0]);
    // The image becomes 2 x 1; the row that is left over comes last.
    assert_eq!(red(&[("fit", "letterbox"), ("pad", "9")]), [100, 100, 9, 9]);
    let tall = RgbImage::from_fn(1, 4, |_, y| image::Rgb([if y < 2 { 200 } else { 0 }, 0, 0]));
    let framed = [
        ("width", "4"),
        ("height", "4"),
        ("fit", "letterbox"),
        ("pad", "1"),
    ];
    let framed = bytes(&framed, &tall);
    assert_eq!(framed[..8], [1, 200, 1, 1, 1, 200, 1, 1]);
}

#[test]
fn every_format_is_read() {
    let image = RgbImage::from_pixel(16, 16, image::Rgb([200, 100, 50]));
    let size = [("width", "4"), ("height", "4"), ("data_type", "UINT8")];
    let mut step = step(&size).unwrap();
    for format in [
        ImageFormat::Jpeg,
        ImageFormat::Png,
        ImageFormat::Bmp,
        ImageFormat::WebP,
    ] {
        let value = run(&mut step, &[&encode(&image, format)]).unwrap();
        let bytes = value.elements.bytes();
        for (channel, wanted) in [200_u8, 100, 50].into_iter().enumerate() {
            let plane = &bytes[channel * 16..][..16];
            // JPEG loses a little.
            let is_near = plane.iter().all(|byte| byte.abs_diff(wanted) <= 3);
            assert!(is_near, "{format:?}: {plane:?}, not {wanted}");
        }
    }
}

#[test]
fn what_is_no_image_is_named_and_the_next_one_runs() {
    let size = [("width", "4"), ("height", "4")];
    let mut step = step(&size).unwrap();
    let good = encode(&ramp(4, 4), ImageFormat::Png);
    let error = |step: &mut ImageStep, bytes: &[u8]| run(step, &[&good, bytes]).unwrap_err();
    let text = error(&mut step, b"hello");
    assert!(
        text.contains("image 1") && text.contains("68, 65"),
        "{text}"
    );
    assert!(error(&mut step, b"").contains("0 bytes"));
    let cut = &good[..good.len() / 2];
    assert!(error(&mut step, cut).contains("image 1"));
    for format in [ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Bmp] {
        let whole = encode(&ramp(8, 8), format);
        for length in 0..whole.len() {
            // Whatever a decoder says of a part, it does not panic.
            let _ = run(&mut step, &[&whole[..length]]);
        }
    }
    run(&mut step, &[&good]).unwrap();
}

#[test]
fn images_that_unfold_to_too_many_pixels_are_not_decoded() {
    let bomb = encode(&RgbImage::new(200, 100), ImageFormat::Png);
    let limit = |most| {
        let settings = [("width", "4"), ("height", "4"), ("pixels_max", most)];
        run(&mut step(&settings).unwrap(), &[&bomb])
    };
    limit("20000").unwrap();
    let error = limit("19999").unwrap_err();
    assert!(
        error.contains("200 x 100") && error.contains("19999"),
        "{error}"
    );
    // Few pixels, but many while it is resized.
    let narrow = encode(&RgbImage::new(1, 5000), ImageFormat::Png);
    let settings = [("width", "400"), ("height", "1"), ("pixels_max", "1000000")];
    let error = run(&mut step(&settings).unwrap(), &[&narrow]).unwrap_err();
    assert!(error.contains("1 x 5000"), "{error}");
}

#[test]
fn wrong_parameters_are_refused_with_what_was_expected() {
    let reason = |parameters: &[(&str, &str)]| step(parameters).unwrap_err().to_string();
    let with = |name, value| reason(&[("width", "4"), ("height", "4"), (name, value)]);
    assert!(reason(&[("width", "4")]).contains("\"height\""));
    assert!(reason(&[("width", "0"), ("height", "4")]).contains("from 1 to 16384"));
    assert!(with("layout", "CHW").contains("one of NCHW, NHWC"));
    assert!(with("mean", "1,2").contains("expected 1 or 3"));
    assert!(with("mean", "1,x").contains("\"1,x\""));
    assert!(with("std", "1,0,1").contains('0'));
    assert!(with("pad", "1").contains("letterbox"));
    assert!(with("shorter_side", "9").contains("crop"));
    assert!(with("colour", "red").contains("channels"));
    let small = [
        ("width", "4"),
        ("height", "4"),
        ("fit", "crop"),
        ("shorter_side", "3"),
    ];
    assert!(reason(&small).contains("4 x 4"));
    let scaled = [
        ("width", "4"),
        ("height", "4"),
        ("data_type", "UINT8"),
        ("scale", "2"),
    ];
    assert!(reason(&scaled).contains("UINT8"));
}
