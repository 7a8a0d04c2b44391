//! Models that are served with pixels: the device makes their inputs, of a quarter of the bytes, and gives the same answers.

use adjoin_client::{Client, Request, Status};
use adjoin_control_api::inference::ModelInferRequest;
use adjoin_control_api::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use adjoin_control_api::inference::model_infer_request::InferInputTensor;
use adjoin_fake_nvinfer::{Plan, major};
use adjoin_tests::gpu::{GpuServer, GpuSetup};
use adjoin_tests::wait_for;
use fake_cuda::harness::FakeCuda;

const SCALE: f32 = 1.0 / 255.0;
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];
/// Pixels of an image, and its bytes.
const AREA: usize = 16 * 16;
const IMAGE: usize = 3 * AREA;

const CONFIG: &str = r#"
    max_batch_size: 8
    parameters { key: "input_transform:x"
      value { string_value: "mean=0.485,0.456,0.406 std=0.229,0.224,0.225" } }
"#;

/// A plan that gives back its images, 16 x 16 of so many channels.
fn identity(channels: usize) -> Plan {
    let image = format!("{channels},16,16");
    Plan::new(major())
        .line(&format!("input x FP32 -1,{image}"))
        .line(&format!("output y FP32 -1,{image}"))
        .line(&format!("profile 0 x 1,{image} 4,{image} 8,{image}"))
        .line("affine x y 1 0")
}

/// The same plan twice: `pixels` takes pixels, `floats` what is made of them.
fn setup(fake: FakeCuda) -> GpuSetup {
    GpuSetup::new(fake, &["add"])
        .plan("pixels", identity(3), CONFIG)
        .plan("floats", identity(3), "max_batch_size: 8")
}

fn image_bytes(images: usize, seed: usize) -> Vec<u8> {
    let byte = |at: usize| (at * 89 + seed * 57 + at / 256).to_le_bytes()[0];
    (0..images * IMAGE).map(byte).collect()
}

/// Images as the plan has them: normalised, a plane for each channel, each step rounded as a processor does.
fn normalised(bytes: &[u8]) -> Vec<f32> {
    let mut planes = Vec::new();
    for image in bytes.chunks(IMAGE) {
        for channel in 0..3 {
            for pixel in image.chunks(3) {
                planes.push((f32::from(pixel[channel]) * SCALE - MEAN[channel]) / STD[channel]);
            }
        }
    }
    planes
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn request(client: &Client, model: &str, images: usize, image: [i64; 3]) -> Request {
    let model = client.model(model).unwrap();
    let rows = i64::try_from(images).unwrap();
    let shape = [rows, image[0], image[1], image[2]];
    let request = model.request().input("x", &shape).unwrap();
    request.build().unwrap()
}

fn of_pixels(client: &Client, images: usize) -> Request {
    request(client, "pixels", images, [16, 16, 3])
}

/// Sends images, and expects the bits of a processor.
fn check(request: &mut Request, bytes: &[u8]) {
    let input = request.input_mut::<u8>("x").unwrap();
    input.copy_from_slice(bytes);
    let outputs = request.infer().unwrap();
    let answer = bits(outputs.get::<f32>("y").unwrap());
    assert!(answer == bits(&normalised(bytes)), "every bit");
}

fn copied(server: &GpuServer, model: &str, path: &str) -> u64 {
    server.metric(&format!(
        "adjoin_bytes_copied_total{{model=\"{model}\",version=\"1\",path=\"{path}\"}}"
    ))
}

#[test]
fn pixels_cross_as_a_quarter_of_the_bytes_and_get_the_bits_of_a_processor() {
    let server = setup(FakeCuda::new().delay_us("0-300")).start();
    let client = server.client();
    server.wait_for_regions(1);
    let info = client.model("pixels").unwrap();
    let input = &info.info().inputs[0];
    assert_eq!(input.dtype, adjoin_schema::DataType::Uint8);
    assert_eq!(input.shape.as_slice(), [-1, 16, 16, 3]);
    let staged = || ["to_device", "to_host"].map(|way| server.bytes(way, "staged"));
    // Warm-up ran in memory of the server's own.
    let before = staged();
    let mut to_device = [0, 0];
    for images in [1, 3] {
        let mut pixels = of_pixels(&client, images);
        let mut floats = request(&client, "floats", images, [3, 16, 16]);
        for turn in 0..5 {
            let bytes = image_bytes(images, turn);
            let start = server.bytes("to_device", "direct");
            check(&mut pixels, &bytes);
            let between = server.bytes("to_device", "direct");
            let input = floats.input_mut::<f32>("x").unwrap();
            input.copy_from_slice(&normalised(&bytes));
            let outputs = floats.infer().unwrap();
            let answer = bits(outputs.get::<f32>("y").unwrap());
            assert!(answer == bits(&normalised(&bytes)));
            to_device[0] += between - start;
            to_device[1] += server.bytes("to_device", "direct") - between;
        }
    }
    let bytes = 5 * 4 * IMAGE as u64;
    assert_eq!(to_device, [bytes, 4 * bytes]);
    assert_eq!(server.bytes("to_host", "direct"), 2 * 4 * bytes);
    assert_eq!(staged(), before, "none by a processor");
    assert_eq!(server.bytes("to_device", "pageable"), 0);
    for path in [
        "transform",
        "gather",
        "scatter",
        "message_body",
        "engine_input",
    ] {
        assert_eq!(copied(&server, "pixels", path), 0, "{path}");
    }
    let counted = server.control().statistics("pixels");
    assert_eq!((counted.request_count, counted.transformed_bytes), (10, 0));
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
    assert_eq!((report.pageable(), report.pending), (0, 0));
    assert_eq!(
        report.to_device_registered,
        5 * bytes,
        "as the driver has seen it"
    );
}

#[test]
fn sessions_and_messages_meet_in_batches_and_get_their_own_images() {
    let server = setup(FakeCuda::new().delay_us("0-300")).start();
    let clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
    std::thread::scope(|scope| {
        for (number, client) in clients.iter().enumerate() {
            scope.spawn(move || {
                let mut request = of_pixels(client, 1 + number % 2);
                for turn in 0..20 {
                    check(
                        &mut request,
                        &image_bytes(1 + number % 2, 10 * turn + number),
                    );
                }
            });
        }
    });
    let bytes = image_bytes(1, 77);
    let message = ModelInferRequest {
        model_name: "pixels".into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "UINT8".into(),
            shape: vec![1, 16, 16, 3],
            ..Default::default()
        }],
        raw_input_contents: vec![bytes.clone().into()],
        ..Default::default()
    };
    let control = server.control();
    let mut client = GrpcInferenceServiceClient::new(control.channel());
    let staged = server.bytes("to_device", "staged");
    let answer = control.wait(client.model_infer(message)).unwrap();
    let answer = &answer.into_inner().raw_output_contents[0];
    let floats = answer.as_chunks().0.iter();
    let floats: Vec<u32> = floats.map(|bytes| u32::from_le_bytes(*bytes)).collect();
    assert!(floats == bits(&normalised(&bytes)));
    // A message is not registered, so a processor brings its pixels to where the device is; they are pixels all the same.
    assert_eq!(server.bytes("to_device", "staged") - staged, IMAGE as u64);
    assert_eq!(copied(&server, "pixels", "transform"), 0);
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
    assert_eq!((report.pageable(), report.pending), (0, 0));
}

#[test]
fn what_the_kernel_does_not_make_is_made_by_a_processor_and_counted() {
    let config = r#"
        max_batch_size: 8
        parameters { key: "input_transform:x" value { string_value: "mean=0.5" } }
    "#;
    let server = GpuSetup::new(FakeCuda::new(), &[])
        .plan("spectral", identity(5), config)
        .start();
    let client = server.client();
    let before = copied(&server, "spectral", "transform");
    let mut request = request(&client, "spectral", 2, [16, 16, 5]);
    request.input_mut::<u8>("x").unwrap().fill(255);
    let outputs = request.infer().unwrap();
    let answer = outputs.get::<f32>("y").unwrap();
    assert!(answer.iter().all(|value| *value == 0.5), "{answer:?}");
    let counted = copied(&server, "spectral", "transform") - before;
    assert_eq!(counted, 2 * 5 * AREA as u64);
    assert_eq!(server.end().violations, Vec::<String>::new());
}

#[test]
fn images_of_another_size_are_refused_when_they_come_in() {
    let server = setup(FakeCuda::new()).start();
    let client = server.client();
    let model = client.model("pixels").unwrap();
    for shape in [
        [1, 16, 16, 4],
        [1, 16, 16, 1],
        [1, 15, 16, 3],
        [1, 3, 16, 16],
    ] {
        let request = model.request().input("x", &shape);
        let outcome = request.and_then(|request| request.build());
        let refused = outcome.map(drop).unwrap_err().to_string();
        assert!(refused.contains("shape"), "{shape:?}: {refused}");
    }
    check(&mut of_pixels(&client, 2), &image_bytes(2, 1));
    assert_eq!(server.end().violations, Vec::<String>::new());
}

#[test]
fn a_model_without_room_for_its_pixels_is_not_served_and_says_why() {
    // The first model's input, then its pixels.
    let server = GpuSetup::new(FakeCuda::new().fail("cuMemAlloc_v2:2+:2"), &["add"])
        .plan("pixels", identity(3), CONFIG)
        .start();
    let (state, reason) = server.index("pixels");
    assert_eq!(state, "UNAVAILABLE");
    assert!(reason.contains("OUT_OF_MEMORY"), "{reason}");
    assert!(server.is_ready() && server.is_model_ready("add"));
    assert_eq!(server.end().violations, Vec::<String>::new());
}

#[test]
fn a_kernel_that_ends_the_context_loses_the_models_which_come_back_with_their_pixels() {
    let server = setup(FakeCuda::new().fail("exec.kernel:120:700")).start();
    let client = server.client();
    let mut request = of_pixels(&client, 2);
    let bytes = image_bytes(2, 5);
    request
        .input_mut::<u8>("x")
        .unwrap()
        .copy_from_slice(&bytes);
    let error = wait_for("a request fails", || request.infer().map(drop).err());
    assert_eq!(error.status(), Some(Status::ExecutionFailed), "{error}");
    wait_for("the model is back", || {
        (server.metric("adjoin_device_resets_total{outcome=\"done\"}") == 1
            && server.is_model_ready("pixels"))
        .then_some(())
    });
    server.wait_for_regions(1);
    let direct = server.bytes("to_device", "direct");
    for turn in 0..5 {
        check(&mut request, &image_bytes(2, turn));
    }
    let moved = server.bytes("to_device", "direct") - direct;
    assert_eq!(moved, 5 * 2 * IMAGE as u64);
    assert_eq!(copied(&server, "pixels", "transform"), 0);
    let report = server.end();
    assert_eq!(report.violations, Vec::<String>::new());
    assert_eq!((report.pageable(), report.resets), (0, 1));
}
