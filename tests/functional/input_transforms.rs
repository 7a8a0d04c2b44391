//! Models of floats that are served with bytes of pixels. What they answer is compared bit for bit with the plain model's
//! answer to floats that the test computes itself.

use adjoin_client::{Client, Request, Status};
use adjoin_control_api::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use adjoin_control_api::inference::model_infer_request::InferInputTensor;
use adjoin_control_api::inference::{ModelConfigRequest, ModelInferRequest, ModelMetadataRequest};
use adjoin_tests::server::{Setup, TestServer, model_file};

const SCALE: f32 = 1.0 / 255.0;
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];
/// Pixels of an image of `shades`, and its bytes.
const AREA: usize = 64;
const IMAGE: usize = 3 * AREA;

const IN_FILE: &str = "
    [models.shades.input_transforms.pixels]
    mean = [0.485, 0.456, 0.406]
    std = [0.229, 0.224, 0.225]
";
const IN_PBTXT: &str = r#"
    parameters { key: "input_transform:pixels"
      value { string_value: "mean=0.485,0.456,0.406 std=0.229,0.224,0.225" } }
"#;

/// Bytes of images, every one of the 256 among them.
fn pixels(images: usize, seed: usize) -> Vec<u8> {
    (0..images * IMAGE)
        .map(|index| (index * 89 + seed * 57 + index / 256) as u8)
        .collect()
}

/// Images of `area` pixels as the model has them: normalised, a plane for each channel.
fn normalised(pixels: &[u8], area: usize) -> Vec<f32> {
    let mut planes = Vec::new();
    for image in pixels.chunks(3 * area) {
        for channel in 0..3 {
            for pixel in image.chunks(3) {
                planes.push((f32::from(pixel[channel]) * SCALE - MEAN[channel]) / STD[channel]);
            }
        }
    }
    planes
}

fn shades_of(client: &Client, model: &str, images: i64, tail: [i64; 3]) -> Request {
    let shape = [images, tail[0], tail[1], tail[2]];
    let model = client.model(model).unwrap();
    model
        .request()
        .input("pixels", &shape)
        .unwrap()
        .build()
        .unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn scores(request: &mut Request) -> Vec<u32> {
    bits(request.infer().unwrap().get::<f32>("scores").unwrap())
}

/// What the plain model says to the floats.
fn expected(client: &Client, pixels: &[u8]) -> Vec<u32> {
    let mut request = shades_of(client, "plain", (pixels.len() / IMAGE) as i64, [3, 8, 8]);
    let floats = normalised(pixels, AREA);
    request
        .input_mut::<f32>("pixels")
        .unwrap()
        .copy_from_slice(&floats);
    scores(&mut request)
}

/// `shades` with and without the transform.
fn setup() -> Setup {
    Setup::new(&["shades"]).version("plain", 1, &model_file("shades"))
}

fn check_answers(server: &TestServer) {
    let client = server.client();
    let model = client.model("shades").unwrap();
    let input = &model.info().inputs[0];
    assert_eq!(input.shape.as_slice(), [-1, 8, 8, 3]);
    assert_eq!(input.dtype, adjoin_schema::DataType::Uint8);
    for images in [1usize, 5] {
        let mut request = shades_of(&client, "shades", images as i64, [8, 8, 3]);
        // Prepared after the first turn; in between a larger batch moves the memory that the model reads.
        for turn in 0..4 {
            let bytes = pixels(images, turn);
            request
                .input_mut::<u8>("pixels")
                .unwrap()
                .copy_from_slice(&bytes);
            assert_eq!(
                scores(&mut request),
                expected(&client, &bytes),
                "{images} images, turn {turn}"
            );
            let many = 7 << turn;
            let mut large = shades_of(&client, "shades", many as i64, [8, 8, 3]);
            let bytes = pixels(many, turn);
            large
                .input_mut::<u8>("pixels")
                .unwrap()
                .copy_from_slice(&bytes);
            assert_eq!(
                scores(&mut large),
                expected(&client, &bytes),
                "{many} images"
            );
        }
    }
}

#[test]
fn pixels_get_the_answer_of_their_normalised_tensor_bit_for_bit() {
    let server = setup()
        .config("max_batch_size = 64")
        .config(IN_FILE)
        .start();
    check_answers(&server);
    let statistics = server.control().statistics("shades");
    assert!(statistics.transformed_bytes > 0);
    assert_eq!(
        (
            statistics.gathered_bytes,
            statistics.engine_copied_bytes,
            statistics.in_place_count
        ),
        (0, 0, 0)
    );
}

#[test]
fn a_models_own_configuration_does_the_same() {
    let text = format!("max_batch_size: 64 {IN_PBTXT}");
    let server = setup()
        .config("max_batch_size = 64")
        .file("shades/config.pbtxt", &text)
        .start();
    check_answers(&server);
}

#[test]
fn the_built_in_engine_does_the_same() {
    let parameters = r#"parameters { key: "input_transform:image" value { string_value: "scale=0.0625 mean=0.5" } }"#;
    let server = Setup::new(&["digits"])
        .version("plain", 1, &model_file("digits"))
        .on_rten()
        .file("digits/config.pbtxt", parameters)
        .start();
    let client = server.client();
    let request = |model: &str, shape: &[i64]| {
        let model = client.model(model).unwrap();
        model
            .request()
            .input("image", shape)
            .unwrap()
            .build()
            .unwrap()
    };
    let (mut bytes, mut floats) = (
        request("digits", &[5, 8, 8, 1]),
        request("plain", &[5, 1, 8, 8]),
    );
    for turn in 0..3 {
        let pixels: Vec<u8> = (0..5 * AREA)
            .map(|index| (index * 5 + turn * 11) as u8)
            .collect();
        let values: Vec<f32> = pixels
            .iter()
            .map(|&byte| f32::from(byte) * 0.0625 - 0.5)
            .collect();
        bytes
            .input_mut::<u8>("image")
            .unwrap()
            .copy_from_slice(&pixels);
        floats
            .input_mut::<f32>("image")
            .unwrap()
            .copy_from_slice(&values);
        assert_eq!(scores(&mut bytes), scores(&mut floats));
    }
}

#[test]
fn what_the_servers_file_says_stands_over_the_models_own() {
    let wrong = r#"parameters { key: "input_transform:pixels" value { string_value: "std=9" } }"#;
    let server = setup()
        .config(IN_FILE)
        .file("shades/config.pbtxt", wrong)
        .start();
    let client = server.client();
    let bytes = pixels(1, 3);
    let mut request = shades_of(&client, "shades", 1, [8, 8, 3]);
    request
        .input_mut::<u8>("pixels")
        .unwrap()
        .copy_from_slice(&bytes);
    assert_eq!(scores(&mut request), expected(&client, &bytes));
}

#[test]
fn requests_of_several_sessions_are_transformed_where_they_lie_and_get_their_own_rows() {
    let server = setup()
        .config("max_batch_size = 32\nmax_queue_delay_us = 20000")
        .config(IN_FILE)
        .start();
    let reference = server.client();
    let before = server.control().statistics("shades");
    let clients: Vec<Client> = (0..6).map(|_| server.client()).collect();
    let rows = |seed: usize| 1 + seed % 3;
    let pending: Vec<_> = (clients.iter().enumerate())
        .map(|(seed, client)| {
            let mut request = shades_of(client, "shades", rows(seed) as i64, [8, 8, 3]);
            let bytes = pixels(rows(seed), seed);
            request
                .input_mut::<u8>("pixels")
                .unwrap()
                .copy_from_slice(&bytes);
            request.submit().unwrap()
        })
        .collect();
    for (seed, pending) in pending.into_iter().enumerate() {
        let response = pending.wait().unwrap();
        let answer = bits(response.get::<f32>("scores").unwrap());
        assert_eq!(
            answer,
            expected(&reference, &pixels(rows(seed), seed)),
            "session {seed}"
        );
    }
    let after = server.control().statistics("shades");
    assert!(after.max_batch_rows > 3, "no batch was formed: {after:?}");
    let all: usize = (0..6).map(|seed| rows(seed) * IMAGE).sum();
    assert_eq!(
        after.transformed_bytes - before.transformed_bytes,
        all as u64
    );
    assert_eq!((after.gathered_bytes, after.copied_first_bytes), (0, 0));
}

#[test]
fn callers_of_the_open_inference_protocol_see_and_send_pixels() {
    let server = setup().config(IN_FILE).start();
    let control = server.control();
    let mut caller = GrpcInferenceServiceClient::new(control.channel());
    let request = ModelMetadataRequest {
        name: "shades".into(),
        version: String::new(),
    };
    let metadata = control
        .wait(caller.model_metadata(request))
        .unwrap()
        .into_inner();
    let input = &metadata.inputs[0];
    assert_eq!(
        (input.datatype.as_str(), &input.shape[..]),
        ("UINT8", &[-1, 8, 8, 3][..])
    );
    let request = ModelConfigRequest {
        name: "shades".into(),
        version: String::new(),
    };
    let config = control
        .wait(caller.model_config(request))
        .unwrap()
        .into_inner()
        .config
        .unwrap();
    assert_eq!(config.input[0].dims, [8, 8, 3]);
    let parameter = &config.parameters["input_transform:pixels"].string_value;
    assert!(parameter.contains("std=0.229,0.224,0.225"), "{parameter}");

    let bytes = pixels(2, 1);
    let request = ModelInferRequest {
        model_name: "shades".into(),
        inputs: vec![InferInputTensor {
            name: "pixels".into(),
            datatype: "UINT8".into(),
            shape: vec![2, 8, 8, 3],
            ..Default::default()
        }],
        raw_input_contents: vec![bytes.clone().into()],
        ..Default::default()
    };
    let answer = control
        .wait(caller.model_infer(request))
        .unwrap()
        .into_inner();
    let floats = answer.raw_output_contents[0].as_chunks().0.iter();
    let answer: Vec<f32> = floats.map(|bytes| f32::from_le_bytes(*bytes)).collect();
    assert_eq!(bits(&answer), expected(&server.client(), &bytes));
    // Out of the message straight into the model's input.
    let statistics = control.statistics("shades");
    assert_eq!(
        (statistics.message_body_bytes, statistics.transformed_bytes),
        (0, bytes.len() as u64)
    );
}

/// The bits of the FP16 nearest to a value, ties to even, by the definition: the test's own, for values of which the
/// exponent of FP16 holds.
fn half_bits(value: f32) -> u16 {
    let (exponent, fraction) = (
        (value.to_bits() >> 23) as i32 & 0xff,
        value.to_bits() & 0x7f_ffff,
    );
    let (exponent, sign) = (exponent - 127 + 15, (value.to_bits() >> 16) as u16 & 0x8000);
    assert!(
        (1..31).contains(&exponent),
        "{value} is subnormal or out of range"
    );
    let cut = exponent.cast_unsigned() << 10 | fraction >> 13;
    let (rest, middle) = (fraction & 0x1fff, 0x1000);
    let up = rest > middle || (rest == middle && cut & 1 == 1);
    sign | (cut as u16 + u16::from(up))
}

#[test]
fn images_of_any_size_become_floats_of_either_width() {
    let server = Setup::new(&["negatives"])
        .config(
            "[models.negatives.input_transforms]
            single = { mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }
            half = { mean = [-0.25] }",
        )
        .start();
    let client = server.client();
    let model = client.model("negatives").unwrap();
    // Of one pixel, of less and of more than what is looked at at once, of lines that end anywhere.
    for (height, width) in [(1, 1), (7, 13), (37, 53), (1, 4099)] {
        let shape = [2, height, width, 3];
        let builder = model.request().input("single", &shape).unwrap();
        let mut request = builder.input("half", &shape).unwrap().build().unwrap();
        let area = usize::try_from(height * width).unwrap();
        let bytes: Vec<u8> = (0..2 * 3 * area)
            .map(|index| (index * 31 + index / 97) as u8)
            .collect();
        request
            .input_mut::<u8>("single")
            .unwrap()
            .copy_from_slice(&bytes);
        request
            .input_mut::<u8>("half")
            .unwrap()
            .copy_from_slice(&bytes);
        let outputs = request.infer().unwrap();
        assert_eq!(outputs.shape("single_out").unwrap(), [2, 3, height, width]);
        let negatives: Vec<f32> = normalised(&bytes, area)
            .iter()
            .map(|value| -value)
            .collect();
        assert_eq!(
            bits(outputs.get::<f32>("single_out").unwrap()),
            bits(&negatives)
        );
        let mut halves = Vec::new();
        for image in bytes.chunks(3 * area) {
            for channel in 0..3 {
                let bytes = image.iter().skip(channel).step_by(3);
                halves.extend(bytes.map(|&byte| half_bits(-(f32::from(byte) * SCALE + 0.25))));
            }
        }
        let given: Vec<u16> = outputs
            .bytes("half_out")
            .unwrap()
            .as_chunks()
            .0
            .iter()
            .map(|bytes| u16::from_le_bytes(*bytes))
            .collect();
        assert_eq!(given, halves, "{height} x {width}");
    }
}

#[test]
fn requests_that_are_no_pixels_are_refused_and_the_session_goes_on() {
    let server = setup().config(IN_FILE).start();
    let client = server.client();
    let model = client.model("shades").unwrap();
    let refused = model
        .request()
        .input("pixels", &[1, 3, 8, 8])
        .map(|_| ())
        .unwrap_err();
    assert!(refused.to_string().contains("[batch,8,8,3]"), "{refused}");
    let mut request = shades_of(&client, "shades", 1, [8, 8, 3]);
    assert!(request.input_mut::<f32>("pixels").is_err());
    let none = shades_of(&client, "shades", 0, [8, 8, 3])
        .infer()
        .map(|_| ())
        .unwrap_err();
    assert_eq!(none.status(), Some(Status::ShapeMismatch));
    let bytes = pixels(1, 0);
    request
        .input_mut::<u8>("pixels")
        .unwrap()
        .copy_from_slice(&bytes);
    assert_eq!(scores(&mut request), expected(&client, &bytes));
}

#[test]
fn transforms_that_do_not_fit_the_model_keep_it_from_being_loaded() {
    let server = Setup::new(&["shades", "add", "scale_u8", "fixed"])
        .flags(&["--model-control-mode", "explicit"])
        .start();
    let admin = server.admin();
    let load = |model: &str, input: &str, text: &str| {
        let parameters = format!(
            r#"{{"parameters": {{"input_transform:{input}": {{"string_value": "{text}"}}}}}}"#
        );
        admin
            .load_as(model, &parameters)
            .map_err(|error| error.message().to_owned())
    };
    for (model, input, text, words) in [
        ("shades", "pixel", "", ["no input \"pixel\"", "\"pixels\""]),
        ("shades", "pixels", "std=1,0,1", ["std is 0", "divided by"]),
        ("shades", "pixels", "mean=1,2", ["2 channels", "has 3"]),
        (
            "shades",
            "pixels",
            "mean=1,2 std=1,2,3",
            ["mean has 2", "std has 3"],
        ),
        (
            "shades",
            "pixels",
            "scale=nan",
            ["scale is NaN", "number other than 0"],
        ),
        ("shades", "pixels", "gamma=2", ["gamma=2", "scale=N"]),
        (
            "add",
            "a",
            "",
            ["of 2 dimensions", "(channels, height, width)"],
        ),
        (
            "fixed",
            "x",
            "",
            ["of 2 dimensions", "(channels, height, width)"],
        ),
        (
            "scale_u8",
            "x",
            "",
            ["of 2 dimensions", "(channels, height, width)"],
        ),
    ] {
        let refused = load(model, input, text).unwrap_err();
        let has = |word: &&str| refused.contains(*word);
        assert!(
            words.iter().all(has),
            "{refused:?} should contain {words:?}"
        );
    }
    load("shades", "pixels", "mean=1,2,3").unwrap();
}

#[test]
fn a_server_with_a_wrong_transform_in_its_file_does_not_start() {
    for (lines, word) in [
        (
            "[models.shades.input_transforms]\npixels = { std = [0.0] }",
            "models.shades.input_transforms.pixels: std is 0",
        ),
        (
            "[models.shades.input_transforms]\npixels = { stddev = [1.0] }",
            "stddev",
        ),
        (
            "input_transforms = { pixels = {} }",
            "defaults.input_transforms",
        ),
    ] {
        let setup = setup().config(lines);
        let directory = setup.lay_out();
        let ended = setup
            .spawn(directory.path(), &directory.path().join("run"))
            .wait()
            .unwrap();
        assert!(!ended.success());
        let log = std::fs::read_to_string(directory.path().join("server.log")).unwrap();
        assert!(log.contains(word), "{log}");
    }
}
