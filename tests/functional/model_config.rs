//! Models that are configured as users of other servers do it: by `config.pbtxt` and by load requests.

use adjoin_client::{Status, SubmitOptions};
use adjoin_control_api::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use adjoin_control_api::inference::infer_parameter::ParameterChoice;
use adjoin_control_api::inference::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use adjoin_control_api::inference::{
    InferParameter, ModelConfig, ModelConfigRequest, ModelInferRequest,
};
use adjoin_tests::control::ControlPlane;
use adjoin_tests::server::{Setup, model_file};
use tonic::Code;

fn config(control: &ControlPlane, model: &str) -> ModelConfig {
    let mut client = GrpcInferenceServiceClient::new(control.channel());
    let request = ModelConfigRequest {
        name: model.into(),
        version: String::new(),
    };
    let answer = control.wait(client.model_config(request)).unwrap();
    answer.into_inner().config.unwrap()
}

/// Clients see a square where the model has a row.
const SQUARES: &str = r#"
    max_batch_size: 8
    input [
      { name: "a" data_type: TYPE_FP32 dims: [ 2, 2 ] reshape { shape: [ 4 ] } },
      { name: "b" data_type: TYPE_FP32 dims: [ 2, 2 ] reshape { shape: [ 4 ] } }
    ]
    output { name: "sum" data_type: TYPE_FP32 dims: [ 2, 2 ] reshape { shape: [ 4 ] } label_filename: "labels.txt" }
    instance_group { count: 2 kind: KIND_CPU }
    version_policy { specific { versions: [ 1 ] } }
    model_warmup { name: "random" batch_size: 3
      inputs { key: "a" value { data_type: TYPE_FP32 dims: [ 2, 2 ] random_data: true } }
      inputs { key: "b" value { data_type: TYPE_FP32 dims: [ 2, 2 ] zero_data: true } } }
"#;

#[test]
fn a_model_is_served_as_its_configuration_shows_it() {
    let server = Setup::new(&["add", "fixed"])
        .version("add", 2, &model_file("add"))
        .file("add/config.pbtxt", SQUARES)
        .file("add/labels.txt", "north\neast\nsouth\nwest\n")
        .start();
    let client = server.client();
    let model = client.model("add").unwrap();
    assert_eq!(model.info().ready_versions, [1]);
    assert_eq!(model.info().inputs[0].shape.as_slice(), [-1, 2, 2]);
    let builder = model.request().input("a", &[3, 2, 2]).unwrap();
    let mut request = builder.input("b", &[3, 2, 2]).unwrap().build().unwrap();
    for turn in 0..3u8 {
        // Prepared after the first turn.
        request.input_mut::<f32>("a").unwrap().fill(f32::from(turn));
        request.input_mut::<f32>("b").unwrap().fill(0.5);
        let outputs = request.infer().unwrap();
        assert_eq!(
            outputs.get::<f32>("sum").unwrap()[..],
            [f32::from(turn) + 0.5; 12]
        );
        assert_eq!(outputs.shape("sum").unwrap(), [3, 2, 2]);
    }
    let refused = model.request().input("a", &[3, 4]).unwrap_err().to_string();
    assert!(
        refused.contains("[3,4]") && refused.contains("[batch,2,2]"),
        "{refused}"
    );

    let control = server.control();
    let listed = control
        .models()
        .into_iter()
        .find(|m| m.name == "add")
        .unwrap();
    assert_eq!((listed.instances, listed.max_batch_size), (2, 8));
    let config = config(&control, "add");
    assert_eq!(
        (
            config.name.as_str(),
            config.platform.as_str(),
            config.max_batch_size
        ),
        ("add", "onnxruntime_onnx", 8)
    );
    assert_eq!(config.input[0].reshape.as_ref().unwrap().shape, [4]);
    assert_eq!(config.default_model_filename, "model.onnx");
    assert_eq!(config.model_warmup.len(), 1);
}

#[test]
fn without_a_configuration_it_is_completed_from_the_model() {
    let server = Setup::new(&["add", "fixed"])
        .config("[models.add]\ninstances = 2")
        .start();
    let control = server.control();
    let add = config(&control, "add");
    assert_eq!(
        (add.max_batch_size, add.input.len(), add.output.len()),
        (32, 2, 1)
    );
    assert_eq!(add.input[0].dims, [4]);
    assert_eq!(add.instance_group[0].count, 2);
    assert_eq!(config(&control, "fixed").max_batch_size, 0);
}

#[test]
fn classes_have_the_labels_of_their_file() {
    let server = Setup::new(&["add"])
        .file(
            "add/config.pbtxt",
            r#"output { name: "sum" label_filename: "labels.txt" }"#,
        )
        .file("add/labels.txt", "north\neast\nsouth\nwest\n")
        .start();
    let control = server.control();
    let mut client = GrpcInferenceServiceClient::new(control.channel());
    let input = |name: &str| InferInputTensor {
        name: name.into(),
        datatype: "FP32".into(),
        shape: vec![1, 4],
        ..Default::default()
    };
    let classes = InferParameter {
        parameter_choice: Some(ParameterChoice::Int64Param(2)),
    };
    let values = [0.0f32, 7.0, 1.0, 3.0].map(f32::to_le_bytes).concat();
    let request = ModelInferRequest {
        model_name: "add".into(),
        inputs: vec![input("a"), input("b")],
        outputs: vec![InferRequestedOutputTensor {
            name: "sum".into(),
            parameters: [("classification".to_owned(), classes)].into(),
        }],
        raw_input_contents: vec![values.into(), vec![0; 16].into()],
        ..Default::default()
    };
    let answer = control
        .wait(client.model_infer(request))
        .unwrap()
        .into_inner();
    let text = String::from_utf8_lossy(&answer.raw_output_contents[0]).into_owned();
    assert!(
        text.contains("7.000000:1:east") && text.contains("3.000000:3:west"),
        "{text:?}"
    );
}

#[test]
fn a_file_of_another_name_is_loaded_where_it_is_named_or_the_only_one() {
    let server = Setup::new(&[])
        .flags(&["--model-control-mode", "explicit"])
        .start();
    let models = server.directory().join("models");
    for (model, file) in [
        ("named", "net.bin"),
        ("only", "net.onnx"),
        ("wrong", "other.bin"),
    ] {
        let version = models.join(model).join("1");
        std::fs::create_dir_all(&version).unwrap();
        std::fs::copy(model_file("add"), version.join(file)).unwrap();
    }
    std::fs::write(
        models.join("named/config.pbtxt"),
        "default_model_filename: 'net.bin' platform: 'onnxruntime_onnx'",
    )
    .unwrap();
    let admin = server.admin();
    admin.load("named").unwrap();
    admin.load("only").unwrap();
    let wrong = admin.load("wrong").unwrap_err();
    assert!(wrong.message().contains("no version to serve"), "{wrong:?}");
}

#[test]
fn a_load_request_brings_a_configuration_for_as_long_as_it_is_loaded() {
    let server = Setup::new(&["add"])
        .file("add/config.pbtxt", "max_batch_size: 4")
        .flags(&["--model-control-mode", "explicit", "--load-model", "add"])
        .start();
    let (admin, control) = (server.admin(), server.control());
    assert_eq!(config(&control, "add").max_batch_size, 4);
    let json = r#"{"max_batch_size": "2", "instance_group": [{"count": 3}]}"#;
    admin.load_as("add", json).unwrap();
    assert_eq!(config(&control, "add").max_batch_size, 2);
    assert_eq!(config(&control, "add").instance_group[0].count, 3);
    admin.load_as("add", json).unwrap();
    assert_eq!(
        server.log().matches("model ready").count(),
        2,
        "it was loaded already"
    );
    for (json, word) in [
        ("{", "load request"),
        (r#"{"max_batch": 1}"#, "max_batch"),
        (
            r#"{"max_batch_size": 2, "sequence_batching": {}}"#,
            "sequence_batching",
        ),
        (
            r#"{"max_batch_size": 2, "input": [{"name": "q", "data_type": "TYPE_FP32", "dims": [4]}]}"#,
            "\"q\"",
        ),
    ] {
        let wrong = admin.load_as("add", json).unwrap_err();
        assert_eq!(wrong.code(), Code::Internal);
        assert!(
            wrong.message().contains(word) && wrong.message().contains("served as before: 1"),
            "{wrong:?} should contain {word:?}"
        );
        assert_eq!(config(&control, "add").max_batch_size, 2);
    }
    admin.load("add").unwrap();
    assert_eq!(config(&control, "add").max_batch_size, 4, "the file again");
    let file = server.directory().join("models/add/config.pbtxt");
    std::fs::write(file, "max_batch_size: 16").unwrap();
    admin.load("add").unwrap();
    assert_eq!(config(&control, "add").max_batch_size, 16, "another file");
}

#[test]
fn requests_that_wait_for_too_long_are_refused_or_delayed_as_their_level_says() {
    let server = Setup::new(&["slow"])
        .file(
            "slow/config.pbtxt",
            "max_batch_size: 1 dynamic_batching {
               priority_levels: 2 default_priority_level: 2
               default_queue_policy { timeout_action: REJECT default_timeout_microseconds: 1 }
               priority_queue_policy { key: 1 value { timeout_action: DELAY default_timeout_microseconds: 1 } }
             }",
        )
        .start();
    let client = server.client();
    let model = client.model("slow").unwrap();
    let submit = |priority| {
        let builder = model.request().input("x", &[1, 64]).unwrap();
        let request = builder.build().unwrap();
        let options = SubmitOptions::new().priority(priority);
        request.submit_with(&options).unwrap()
    };
    // What finds the instance busy waits for longer than a microsecond.
    let pending: Vec<_> = [2, 2, 2, 1, 1, 1]
        .map(|level| (level, submit(level)))
        .into();
    let mut refused = 0;
    for (level, pending) in pending {
        match pending.wait() {
            Ok(_) => {}
            Err(failed) => {
                assert_eq!(level, 2, "a delayed request is run: {}", failed.error);
                assert_eq!(failed.error.status(), Some(Status::DeadlineExceeded));
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
}
