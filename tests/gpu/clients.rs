//! Requests to a model that doubles and adds one, by each way into the server.

use adjoin_client::{Client, InferError, Request};
use adjoin_control_api::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use adjoin_control_api::inference::{ModelInferRequest, model_infer_request::InferInputTensor};
use adjoin_tests::gpu::GpuServer;
use adjoin_tests::http;
use serde_json::{Value, json};

/// A request of so many rows of four.
pub(crate) fn request(client: &Client, model: &str, rows: i64) -> Request {
    let model = client.model(model).unwrap();
    model
        .request()
        .input("x", &[rows, 4])
        .unwrap()
        .build()
        .unwrap()
}

/// Runs a request with values from `base` on, and looks at its answer.
pub(crate) fn run(request: &mut Request, base: f32) -> Result<(), InferError> {
    let input = request.input_mut::<f32>("x").unwrap();
    for (index, value) in input.iter_mut().enumerate() {
        *value = base + index as f32;
    }
    let outputs = request.infer()?;
    let answer = outputs.get::<f32>("y").unwrap();
    for (index, value) in answer.iter().enumerate() {
        assert_eq!(*value, 2.0 * (base + index as f32) + 1.0, "element {index}");
    }
    Ok(())
}

/// One row of four by gRPC.
pub(crate) fn by_grpc(
    server: &GpuServer,
    model: &str,
    base: f32,
) -> Result<Vec<f32>, tonic::Status> {
    let values = [base, base + 1.0, base + 2.0, base + 3.0];
    let message = ModelInferRequest {
        model_name: model.into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 4],
            ..Default::default()
        }],
        raw_input_contents: vec![
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        ],
        ..Default::default()
    };
    let control = server.control();
    let mut client = GrpcInferenceServiceClient::new(control.channel());
    let answer = control.wait(client.model_infer(message))?.into_inner();
    let bytes = &answer.raw_output_contents[0];
    Ok(bytes
        .as_chunks()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect())
}

/// One row of four by HTTP: status and body of the answer.
pub(crate) fn by_http(server: &GpuServer, model: &str, base: f32) -> (u16, Value) {
    let body = json!({
        "inputs": [{
            "name": "x",
            "datatype": "FP32",
            "shape": [1, 4],
            "data": [base, base + 1.0, base + 2.0, base + 3.0],
        }],
    });
    let path = format!("/v2/models/{model}/infer");
    let text = http::post(server.http(), &path, &body.to_string());
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

/// The status of a GET by HTTP.
pub(crate) fn http_status(address: &str, path: &str) -> u16 {
    let text = http::get(address, path);
    text.split(' ').nth(1).unwrap().parse().unwrap()
}

/// What one row from `base` on gives.
pub(crate) fn expected(base: f32) -> Vec<f32> {
    (0..4)
        .map(|index| 2.0 * (base + index as f32) + 1.0)
        .collect()
}
