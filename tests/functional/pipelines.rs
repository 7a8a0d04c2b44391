//! Pipelines: from the bytes of an image to labels, by built-in models and a network between them.

use adjoin_client::{Client, InferError};
use adjoin_control_api::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use adjoin_control_api::inference::model_infer_request::InferInputTensor;
use adjoin_control_api::inference::{ModelInferRequest, ModelMetadataRequest};
use adjoin_schema::status::Status;
use adjoin_tests::server::{Setup, TestServer};
use tonic::Code;

const SIDE: usize = 8;
const CLASSES: usize = 4;
const K: usize = 2;
const MEAN: [f32; 3] = [0.4, 0.5, 0.6];
const STD: [f32; 3] = [0.2, 0.25, 0.3];
/// What a probability may differ by: sums in another order.
const TOLERANCE: f32 = 1e-4;

const PREPARE: &str = r#"
    backend: "adjoin_image"
    max_batch_size: 16
    parameters { key: "width" value { string_value: "8" } }
    parameters { key: "height" value { string_value: "8" } }
    parameters { key: "resize" value { string_value: "box" } }
    parameters { key: "mean" value { string_value: "0.4,0.5,0.6" } }
    parameters { key: "std" value { string_value: "0.2,0.25,0.3" } }
"#;

const PROBABILITIES: &str = r#"backend: "adjoin_softmax" max_batch_size: 16"#;

const BEST: &str = r#"
    backend: "adjoin_top_k"
    max_batch_size: 16
    parameters { key: "k" value { string_value: "2" } }
    parameters { key: "labels" value { string_value: "labels.txt" } }
"#;

const LABELS: [&str; CLASSES] = ["dawn", "noon", "dusk", "night"];

const PIPELINE: &str = r#"
    platform: "ensemble"
    max_batch_size: 16
    input { name: "IMAGE" data_type: TYPE_STRING dims: 1 }
    output { name: "LABEL" data_type: TYPE_STRING dims: 2 }
    output { name: "SCORE" data_type: TYPE_FP32 dims: 2 }
    ensemble_scheduling {
      step { model_name: "best" model_version: -1
        input_map { key: "scores" value: "probabilities" }
        output_map { key: "labels" value: "LABEL" }
        output_map { key: "values" value: "SCORE" } }
      step { model_name: "prepare" model_version: -1
        input_map { key: "image" value: "IMAGE" }
        output_map { key: "pixels" value: "pixels" } }
      step { model_name: "shades" model_version: -1
        input_map { key: "pixels" value: "pixels" }
        output_map { key: "scores" value: "scores" } }
      step { model_name: "probabilities" model_version: -1
        input_map { key: "scores" value: "scores" }
        output_map { key: "probabilities" value: "probabilities" } }
    }
"#;

fn setup() -> Setup {
    Setup::new(&["shades"])
        .configured("prepare", PREPARE)
        .configured("probabilities", PROBABILITIES)
        .configured("best", BEST)
        .file("best/labels.txt", &LABELS.join("\n"))
        .configured("label", PIPELINE)
}

/// Red, green and blue of each pixel, row by row, of an image of twice the side.
type Pixels = Vec<[u8; 3]>;

/// Of each block of four pixels, those of a row and the rows have integers as their means: nothing is rounded.
fn image(seed: usize) -> Pixels {
    let side = 2 * SIDE;
    let pixel = |at: usize| {
        let (x, y) = (at % side, at / side);
        let (column, row) = (x / 2, y / 2);
        let means = [
            23 * column + 31 * seed,
            17 * row + 40 * (seed % 3),
            9 * column * row + 13 * seed,
        ];
        means.map(|mean| u8::try_from(10 + mean % 230 + 4 * (x % 2) + 2 * (y % 2)).unwrap())
    };
    (0..side * side).map(pixel).collect()
}

/// An uncompressed bitmap: rows from the bottom up, blue first.
fn bitmap(pixels: &Pixels) -> Vec<u8> {
    let side = u32::try_from(2 * SIDE).unwrap();
    let size = u32::try_from(3 * pixels.len()).unwrap();
    let mut file = b"BM".to_vec();
    for word in [54 + size, 0, 54, 40, side, side] {
        file.extend(word.to_le_bytes());
    }
    file.extend([1, 0, 24, 0]);
    for word in [0, size, 2835, 2835, 0, 0] {
        file.extend(u32::to_le_bytes(word));
    }
    for row in pixels.chunks(2 * SIDE).rev() {
        for [red, green, blue] in row {
            file.extend([*blue, *green, *red]);
        }
    }
    file
}

/// Strings as the wire has them.
fn strings(elements: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for element in elements {
        bytes.extend(u32::try_from(element.len()).unwrap().to_le_bytes());
        bytes.extend(element);
    }
    bytes
}

fn split(mut bytes: &[u8]) -> Vec<String> {
    let mut elements = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (element, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        elements.push(String::from_utf8(element.to_vec()).unwrap());
        bytes = rest;
    }
    elements
}

/// The same as the pipeline, step by step: the mean of each block of four pixels, normalised; a convolution with the
/// weights of `tests/models/make.py`; the positive parts' mean; softmax; the highest two.
fn expected(pixels: &Pixels) -> Vec<(&'static str, f32)> {
    let normalised = |channel: usize, x: usize, y: usize| {
        let at =
            |dx: usize, dy: usize| f32::from(pixels[(2 * y + dy) * 2 * SIDE + 2 * x + dx][channel]);
        let mean = (at(0, 0) + at(1, 0) + at(0, 1) + at(1, 1)) / 4.0;
        (mean / 255.0 - MEAN[channel]) / STD[channel]
    };
    let weight =
        |o: usize, c: usize, i: usize, j: usize| ((3 * o + 5 * c + 2 * i + j) % 7) as f32 - 3.0;
    let half = SIDE / 2;
    let score = |o: usize| {
        let mut sum = 0.0;
        for (y, x) in (0..half * half).map(|at| (at / half, at % half)) {
            let mut value = 0.0;
            for (c, at) in (0..12).map(|at| (at / 4, at % 4)) {
                let (i, j) = (at / 2, at % 2);
                value += weight(o, c, i, j) * normalised(c, 2 * x + j, 2 * y + i);
            }
            sum += value.max(0.0);
        }
        sum / (half * half) as f32
    };
    let exponentials: Vec<f32> = (0..CLASSES).map(|o| score(o).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    let mut best: Vec<(&str, f32)> = LABELS
        .into_iter()
        .zip(exponentials.iter().map(|value| value / sum))
        .collect();
    best.sort_by(|a, b| b.1.total_cmp(&a.1));
    best.truncate(K);
    best
}

fn check(labels: &[u8], scores: &[f32], seeds: &[usize]) {
    let labels = split(labels);
    assert_eq!(
        (labels.len(), scores.len()),
        (K * seeds.len(), K * seeds.len())
    );
    for (row, &seed) in seeds.iter().enumerate() {
        for (place, (label, score)) in expected(&image(seed)).into_iter().enumerate() {
            let at = K * row + place;
            assert!(
                labels[at] == label && (scores[at] - score).abs() < TOLERANCE,
                "image {seed}, place {place}: {:?} {}, expected {label:?} {score}",
                labels[at],
                scores[at]
            );
        }
    }
}

fn images(seeds: &[usize]) -> Vec<u8> {
    let files: Vec<_> = seeds.iter().map(|&seed| bitmap(&image(seed))).collect();
    strings(&files)
}

fn request(client: &Client, bytes: &[u8], rows: usize) -> adjoin_client::Request {
    let model = client.model("label").unwrap();
    let builder = model.request();
    let builder = builder
        .input_with_bytes("IMAGE", &[rows as i64, 1], bytes.len() as u64)
        .unwrap();
    let mut request = builder.build().unwrap();
    request
        .input_bytes_mut("IMAGE")
        .unwrap()
        .copy_from_slice(bytes);
    request
}

fn message(bytes: Vec<u8>, rows: usize) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "label".into(),
        inputs: vec![InferInputTensor {
            name: "IMAGE".into(),
            datatype: "BYTES".into(),
            shape: vec![rows as i64, 1],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![bytes.into()],
        ..ModelInferRequest::default()
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let elements = bytes.as_chunks().0.iter().copied();
    elements.map(f32::from_le_bytes).collect()
}

#[test]
fn images_become_labels_over_shared_memory_and_over_grpc() {
    let server = setup().start();
    let client = server.client();
    let seeds = [0, 1, 2];
    // The labels of these images differ, or the test would show little.
    let firsts: Vec<_> = (0..12).map(|seed| expected(&image(seed))[0].0).collect();
    assert!(firsts.iter().any(|first| *first != firsts[0]), "{firsts:?}");

    let mut native = request(&client, &images(&seeds), seeds.len());
    for _ in 0..3 {
        // Prepared after the first turn.
        let outputs = native.infer().unwrap();
        assert_eq!(outputs.shape("LABEL").unwrap(), [3, 2]);
        let scores = outputs.get::<f32>("SCORE").unwrap();
        check(outputs.bytes("LABEL").unwrap(), scores, &seeds);
    }
    for seed in 3..12 {
        let mut one = request(&client, &images(&[seed]), 1);
        let outputs = one.infer().unwrap();
        let scores = outputs.get::<f32>("SCORE").unwrap();
        check(outputs.bytes("LABEL").unwrap(), scores, &[seed]);
    }

    let control = server.control();
    let mut grpc = GrpcInferenceServiceClient::new(control.channel());
    let answer = control.wait(grpc.model_infer(message(images(&seeds), seeds.len())));
    let answer = answer.unwrap().into_inner();
    let place = |name| answer.outputs.iter().position(|output| output.name == name);
    let raw = |name| &answer.raw_output_contents[place(name).unwrap()];
    assert_eq!(answer.outputs[place("LABEL").unwrap()].datatype, "BYTES");
    check(raw("LABEL"), &floats(raw("SCORE")), &seeds);

    let asked = ModelMetadataRequest {
        name: "label".into(),
        version: String::new(),
    };
    let metadata = control
        .wait(grpc.model_metadata(asked))
        .unwrap()
        .into_inner();
    assert_eq!(metadata.platform, "ensemble");
    assert_eq!(metadata.inputs[0].shape, [-1, 1]);
    assert_eq!(metadata.outputs[1].shape, [-1, 2]);
    let statistics = control.statistics("label");
    assert_eq!(
        (statistics.request_count, statistics.inference_count),
        (13, 21)
    );
}

fn answers(server: &TestServer, clients: &[Client], turns: usize) {
    std::thread::scope(|scope| {
        for (index, client) in clients.iter().enumerate() {
            scope.spawn(move || {
                for turn in 0..turns {
                    let seed = turns * index + turn;
                    let mut request = request(client, &images(&[seed]), 1);
                    let outputs = request.infer().unwrap();
                    let scores = outputs.get::<f32>("SCORE").unwrap();
                    check(outputs.bytes("LABEL").unwrap(), scores, &[seed]);
                }
            });
        }
    });
    drop(server.control());
}

#[test]
fn requests_of_several_clients_meet_in_one_batch_of_a_step() {
    let waits = "max_batch_size: 16 dynamic_batching { max_queue_delay_microseconds: 50000 }";
    let server = setup().file("shades/config.pbtxt", waits).start();
    let clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    answers(&server, &clients, 6);
    let control = server.control();
    let step = control.statistics("shades");
    assert_eq!(step.request_count, 24);
    assert!(
        step.execution_count < 24 && step.max_batch_rows > 1,
        "{step:?}"
    );
    assert_eq!(control.statistics("label").request_count, 24);
}

#[test]
fn what_is_no_image_fails_its_own_request_with_the_step_and_the_reason() {
    let server = setup().start();
    let client = server.client();
    let bytes = strings(&[bitmap(&image(0)), b"no image".to_vec()]);
    let error = request(&client, &bytes, 2).infer().unwrap_err();
    assert_eq!(error.status(), Some(Status::ValuesRefused));
    let text = error.to_string();
    assert!(
        text.contains("step 2") && text.contains("\"label\""),
        "{text}"
    );

    let control = server.control();
    let mut grpc = GrpcInferenceServiceClient::new(control.channel());
    let refused = control
        .wait(grpc.model_infer(message(bytes, 2)))
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let text = refused.message();
    for part in ["step 2", "\"prepare\"", "image 1", "8 bytes", "JPEG"] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    // A neighbour that lies about its strings, and the session itself, go on.
    let lying = request(&client, b"\xff\xff\xff\x7f", 1)
        .infer()
        .unwrap_err();
    assert_eq!(lying.status(), Some(Status::ValuesRefused));
    let mut good = request(&client, &images(&[4]), 1);
    let outputs = good.infer().unwrap();
    let scores = outputs.get::<f32>("SCORE").unwrap();
    check(outputs.bytes("LABEL").unwrap(), scores, &[4]);
}

#[test]
fn models_of_steps_come_and_go_while_the_pipeline_serves() {
    let server = setup()
        .flags(&["--model-control-mode", "explicit", "--load-model", "*"])
        .start();
    let client = server.client();
    let admin = server.admin();
    let mut request = request(&client, &images(&[0]), 1);
    for _ in 0..3 {
        let outputs = request.infer().unwrap();
        let scores = outputs.get::<f32>("SCORE").unwrap();
        check(outputs.bytes("LABEL").unwrap(), scores, &[0]);
        admin.unload("shades").unwrap();
        let error = request.infer().unwrap_err();
        assert!(matches!(error, InferError::ModelNotReady(_)), "{error}");
        admin.load("shades").unwrap();
    }
}

/// Rows of 64 numbers through the same slow model twice: its answer is taken back by the second run.
const TWICE: &str = r#"
    platform: "ensemble"
    max_batch_size: 16
    input { name: "x" data_type: TYPE_FP32 dims: 64 }
    output { name: "y" data_type: TYPE_FP32 dims: 64 }
    ensemble_scheduling {
      max_inflight_requests: 2
      step { model_name: "slow" model_version: -1
        input_map { key: "x" value: "x" } output_map { key: "y" value: "t" } }
      step { model_name: "slow" model_version: -1
        input_map { key: "x" value: "t" } output_map { key: "y" value: "y" } }
    }
"#;

fn twice(client: &Client, seed: f32) -> adjoin_client::Request {
    let builder = client.model("twice").unwrap().request();
    let mut request = builder.input("x", &[1, 64]).unwrap().build().unwrap();
    request.input_mut::<f32>("x").unwrap().fill(seed);
    request
}

#[test]
fn what_a_client_leaves_behind_between_two_steps_takes_nobodys_place() {
    let server = Setup::new(&["slow"]).configured("twice", TWICE).start();
    let staying = server.client();
    for round in 0..4u8 {
        let leaving = server.client();
        let pending: Vec<_> = (0..5u8)
            .map(|seed| twice(&leaving, f32::from(seed)).submit().unwrap())
            .collect();
        if round % 2 == 0 {
            // Some of them are on their way by now.
            twice(&staying, 1.0).infer().unwrap();
        }
        drop(pending);
        drop(leaving);
        let seed = f32::from(round);
        let mut request = twice(&staying, seed);
        assert_eq!(
            request.infer().unwrap().get::<f32>("y").unwrap(),
            [seed; 64]
        );
    }
}
