//! The response cache, through gRPC.

use adjoin_control_api::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use adjoin_control_api::inference::{
    ModelInferRequest, ModelStatisticsRequest, model_infer_request::InferInputTensor,
};
use adjoin_tests::server::{Setup, TestServer};

/// A server of the model `add`, whose answers are kept if `is_kept`.
fn server(is_kept: bool, config: &str) -> TestServer {
    let text = format!("response_cache {{ enable: {is_kept} }}");
    Setup::new(&["add"])
        .config(config)
        .file("add/config.pbtxt", &text)
        .start()
}

fn ask(a: f32, wanted: usize) -> ModelInferRequest {
    let input = |name: &str| InferInputTensor {
        name: name.into(),
        datatype: "FP32".into(),
        shape: vec![1, 4],
        ..InferInputTensor::default()
    };
    let bytes = |value: f32| value.to_le_bytes().repeat(4).into();
    ModelInferRequest {
        model_name: "add".into(),
        id: format!("{a} {wanted}"),
        inputs: vec![input("a"), input("b")],
        raw_input_contents: vec![bytes(a), bytes(1.0)],
        ..ModelInferRequest::default()
    }
}

/// Hits, misses and executions after these questions, each answered right.
fn counts(server: &TestServer, questions: &[f32]) -> [u64; 3] {
    let control = server.control();
    let mut client = GrpcInferenceServiceClient::new(control.channel());
    for (index, &a) in questions.iter().enumerate() {
        let request = ask(a, index);
        let id = request.id.clone();
        let answer = control
            .wait(client.model_infer(request))
            .unwrap()
            .into_inner();
        assert_eq!(answer.id, id);
        let sum = (a + 1.0).to_le_bytes().repeat(4);
        assert_eq!(answer.raw_output_contents[0], sum);
    }
    let request = ModelStatisticsRequest {
        name: "add".into(),
        version: String::new(),
    };
    let statistics = control.wait(client.model_statistics(request)).unwrap();
    let of_model = statistics.into_inner().model_stats.remove(0);
    let stats = of_model.inference_stats.unwrap();
    let [hit, miss, success] =
        [stats.cache_hit, stats.cache_miss, stats.success].map(|it| it.unwrap().count);
    assert!(success >= questions.len() as u64);
    [hit, miss, of_model.execution_count]
}

#[test]
fn an_answer_is_kept_for_the_same_question_and_no_other() {
    let questions = [1.0, 2.0, 1.0, 1.0, 3.0, 2.0];
    assert_eq!(counts(&server(true, ""), &questions), [3, 3, 3]);
    assert_eq!(counts(&server(false, ""), &questions), [0, 0, 6]);
    let without_room = "[limits]\nresponse_cache_bytes = 0";
    assert_eq!(counts(&server(true, without_room), &questions), [0, 0, 6]);
}

#[test]
fn requests_of_sessions_always_run() {
    let server = server(true, "");
    let client = server.client();
    let model = client.model("add").unwrap();
    for _ in 0..3 {
        adjoin_tests::add_request(&model, 1).infer().unwrap();
    }
    assert_eq!(counts(&server, &[])[2], 3);
}
