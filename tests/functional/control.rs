//! The control plane: health, reflection, lists, metrics, tokens, the Open Inference Protocol.

use adjoin_control_api::control as api;
use adjoin_control_api::control::control_client::ControlClient;
use adjoin_control_api::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use adjoin_control_api::inference::{
    self, ModelInferRequest, model_infer_request::InferInputTensor,
};
use adjoin_schema::PROTOCOL_VERSION;
use adjoin_schema::layout::wait;
use adjoin_schema::status::Status;
use adjoin_tests::raw::{RawClient, exchange, hello, refusal};
use adjoin_tests::server::{Setup, TestServer};
use adjoin_tests::{http, root, wait_for};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

#[test]
fn health_is_told_for_the_server_and_for_each_model() {
    let server = Setup::new(&["add"]).start();
    let control = server.control();
    let mut health = HealthClient::new(control.channel());
    let mut check = |service: &str| {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        control
            .wait(health.check(request))
            .map(|response| response.into_inner().status())
    };
    assert_eq!(check("").unwrap(), ServingStatus::Serving);
    assert_eq!(check("add").unwrap(), ServingStatus::Serving);
    assert_eq!(check("other").unwrap_err().code(), Code::NotFound);
}

#[test]
fn sessions_are_listed_by_name_and_can_be_closed_by_their_user() {
    let server = Setup::new(&["add"]).start();
    let named = server.client_with(adjoin_client::ClientOptions::new().name("camera-3"));
    named.model("add").unwrap();
    let control = server.control();
    let sessions = control.sessions();
    assert_eq!(sessions.len(), 1);
    assert_eq!(
        (sessions[0].client_name.as_str(), sessions[0].region_bytes),
        ("camera-3", 2 << 20)
    );
    let mut client = ControlClient::new(control.channel());
    let close = |session_id| api::CloseSessionRequest {
        session_id,
        secret: Vec::new(),
    };
    let missing = control.wait(client.close_session(close(999))).unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    control
        .wait(client.close_session(close(sessions[0].session_id)))
        .unwrap();
    assert!(control.sessions().is_empty());
}

#[test]
fn a_token_opens_one_session_once() {
    let server = Setup::new(&["add"]).start();
    let control = server.control();
    let mut client = ControlClient::new(control.channel());
    let request = api::OpenSessionRequest {
        protocol: PROTOCOL_VERSION,
        request_bytes: 1 << 20,
        response_bytes: 1 << 19,
        ring_entries: 32,
        client_name: "by token".into(),
    };
    let opened = control
        .wait(client.open_session(request.clone()))
        .unwrap()
        .into_inner();
    let token: [u8; 16] = opened.token.clone().try_into().unwrap();
    let with_token = adjoin_schema::attach::Hello {
        token: Some(token),
        request_bytes: 0,
        ..hello()
    };
    let session = RawClient::attach_with(&server.socket_dir(), with_token.clone());
    assert_eq!(
        (session.welcome.response_bytes, session.welcome.ring_entries),
        (1 << 19, 32)
    );
    assert_eq!(control.sessions()[0].client_name, "by token");

    let shown = |token: [u8; 16]| {
        let hello = adjoin_schema::attach::Hello {
            token: Some(token),
            ..hello()
        };
        let message = adjoin_schema::attach::AttachMessage::Hello(hello).encode();
        refusal(exchange(&server.socket_dir(), &message).1).0
    };
    assert_eq!(shown(token), Status::TokenInvalid, "used");
    assert_eq!(shown([9; 16]), Status::TokenInvalid, "never given out");
    let opened = control
        .wait(client.open_session(request.clone()))
        .unwrap()
        .into_inner();
    std::thread::sleep(std::time::Duration::from_millis(opened.token_life_ms + 100));
    assert_eq!(
        shown(opened.token.try_into().unwrap()),
        Status::TokenInvalid,
        "expired"
    );

    let wrong = api::OpenSessionRequest {
        protocol: 99,
        ..request.clone()
    };
    let error = control.wait(client.open_session(wrong)).unwrap_err();
    assert!(
        error.message().contains("99") && error.code() == Code::InvalidArgument,
        "{error}"
    );
    let wrong = api::OpenSessionRequest {
        ring_entries: 100,
        ..request
    };
    let error = control.wait(client.open_session(wrong)).unwrap_err();
    assert!(error.message().contains("100"), "{error}");
}

#[test]
fn the_portable_doorbell_carries_indices_both_ways() {
    let server = Setup::new(&["add"]).start();
    let mut session = RawClient::attach(&server.socket_dir());
    let control = server.control();
    let mut client = ControlClient::new(control.channel());

    let wrong = api::DoorbellSignal {
        session_id: session.welcome.session_id,
        secret: vec![0; 16],
        tail: 0,
    };
    let denied = control
        .wait(client.doorbell(tokio_stream::iter([wrong])))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);

    let first = api::DoorbellSignal {
        session_id: session.welcome.session_id,
        secret: session.welcome.secret.to_vec(),
        tail: 0,
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    control.wait(sender.send(first)).unwrap();
    let signals = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = control.wait(client.doorbell(signals)).unwrap().into_inner();
    // The client sleeps on the stream alone, and never touches its event descriptor.
    adjoin_shm::doorbell::announce(session.memory.client_wait(), wait::STREAM);
    let descriptor = session.write(b"no descriptor at all");
    let entry = session.submission(descriptor.offset(), 20);
    wait_for("the server sleeps", || {
        (adjoin_shm::doorbell::wanted(session.memory.server_wait()) != 0).then_some(())
    });
    session.push_silently(entry);
    control
        .wait(sender.send(api::DoorbellSignal {
            tail: 1,
            ..Default::default()
        }))
        .unwrap();
    let answer = control.wait(answers.message()).unwrap().unwrap();
    assert_eq!(answer.tail, 1);
    assert_eq!(
        session.completion().status,
        Status::DescriptorInvalid as u16
    );
}

/// A server whose metrics listen on a port that was free a moment ago.
fn with_metrics(models: &[&str]) -> (TestServer, String) {
    let address = http::free_address();
    (
        Setup::new(models)
            .flags(&["--metrics-addr", &address])
            .start(),
        address,
    )
}

/// Names of the metrics in `/metrics`, without the suffixes that the text format adds.
fn metric_names(text: &str) -> std::collections::BTreeSet<String> {
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    names
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_metric_is_documented_and_every_documented_one_is_there() {
    let (server, address) = with_metrics(&["add"]);
    // One of each: a request, a refusal, a fault, so that families with labels have a line.
    let client = server.client();
    let model = client.model("add").unwrap();
    let mut request = adjoin_tests::add_request(&model, 1);
    request.infer().unwrap();
    let mut liar = RawClient::attach(&server.socket_dir());
    let mut entry = liar.submission(0, 0);
    entry.kind = 77;
    liar.push(entry);
    assert_eq!(liar.ended(), Status::EntryInvalid);
    let wrong = adjoin_schema::attach::Hello {
        protocol: 99,
        ..hello()
    };
    let message = adjoin_schema::attach::AttachMessage::Hello(wrong).encode();
    assert_eq!(
        refusal(exchange(&server.socket_dir(), &message).1).0,
        Status::ProtocolMismatch
    );

    // The liar's memory goes when a worker hears of its end.
    let text = wait_for("one session is left", || {
        let text = http::get(&address, "/metrics");
        text.contains("\nadjoin_sessions 1\n").then_some(text)
    });
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let documented = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let documented: std::collections::BTreeSet<String> = documented
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| line.split('`').next().unwrap().to_owned())
        .filter(|name| name.starts_with("adjoin_") || name.starts_with("nv_"))
        .collect();
    assert_eq!(metric_names(&text), documented);
    for line in [
        "adjoin_session_faults_total{reason=\"entry_invalid\"} 1",
        "adjoin_sessions_refused_total{reason=\"protocol_mismatch\"} 1",
        "adjoin_requests_in_place_total{model=\"add\",version=\"1\"} 1",
        "adjoin_sessions 1",
        "nv_inference_request_success{model=\"add\",version=\"1\"} 1",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(http::get(&address, "/healthz").starts_with("HTTP/1.1 200"));
    assert!(http::get(&address, "/other").starts_with("HTTP/1.1 404"));
}

fn infer_message(shape: &[i64], bytes: usize) -> ModelInferRequest {
    let input = |name: &str| InferInputTensor {
        name: name.into(),
        datatype: "FP32".into(),
        shape: shape.into(),
        ..Default::default()
    };
    let raw = |value: f32| value.to_le_bytes().repeat(bytes / 4).into();
    ModelInferRequest {
        model_name: "add".into(),
        id: "r1".into(),
        inputs: vec![input("b"), input("a")],
        raw_input_contents: vec![raw(1.0), raw(0.25)],
        ..Default::default()
    }
}

#[test]
fn the_open_inference_protocol_gives_the_same_answers() {
    let server = Setup::new(&["add"]).start();
    let control = server.control();
    let mut client = GrpcInferenceServiceClient::new(control.channel());
    let answer = control
        .wait(client.model_infer(infer_message(&[2, 4], 32)))
        .unwrap()
        .into_inner();
    assert_eq!(
        (answer.id.as_str(), answer.model_version.as_str()),
        ("r1", "1")
    );
    assert_eq!(answer.outputs[0].shape, [2, 4]);
    assert_eq!(
        answer.raw_output_contents[0],
        1.25f32.to_le_bytes().repeat(8)
    );
    let statistics = control.statistics("add");
    assert_eq!(
        (statistics.in_place_count, statistics.message_body_bytes),
        (0, 64)
    );

    let metadata = inference::ModelMetadataRequest {
        name: "add".into(),
        version: String::new(),
    };
    let metadata = control
        .wait(client.model_metadata(metadata))
        .unwrap()
        .into_inner();
    assert_eq!(
        (metadata.versions, metadata.inputs.len()),
        (vec!["1".to_owned()], 2)
    );
    let ready = inference::ModelReadyRequest {
        name: "add".into(),
        version: "7".into(),
    };
    assert!(
        !control
            .wait(client.model_ready(ready))
            .unwrap()
            .into_inner()
            .ready
    );
}

#[test]
fn wrong_messages_get_the_protocols_codes_and_sentences() {
    let server = Setup::new(&["add"]).start();
    let control = server.control();
    let mut client = GrpcInferenceServiceClient::new(control.channel());
    let mut refused =
        |message: ModelInferRequest| control.wait(client.model_infer(message)).unwrap_err();
    let cases: [(ModelInferRequest, Code, &str); 6] = [
        (
            ModelInferRequest {
                model_name: "no".into(),
                ..infer_message(&[2, 4], 32)
            },
            Code::NotFound,
            "Request for unknown model",
        ),
        (infer_message(&[2, 5], 40), Code::InvalidArgument, "[2,5]"),
        (
            infer_message(&[2, 4], 28),
            Code::InvalidArgument,
            "32 bytes, and 28 came",
        ),
        (
            infer_message(&[-1, 4], 32),
            Code::InvalidArgument,
            "[-1, 4]",
        ),
        (
            infer_message(&[i64::MAX, 4], 32),
            Code::InvalidArgument,
            "shape",
        ),
        (
            ModelInferRequest {
                model_version: "0".into(),
                ..infer_message(&[2, 4], 32)
            },
            Code::InvalidArgument,
            "\"0\"",
        ),
    ];
    for (message, code, word) in cases {
        let status = refused(message);
        assert!(
            status.code() == code && status.message().contains(word),
            "{status:?} should contain {word:?}"
        );
    }
    let missing = ModelInferRequest {
        inputs: Vec::new(),
        raw_input_contents: Vec::new(),
        ..infer_message(&[2, 4], 32)
    };
    assert!(refused(missing).message().contains("\"a\""));
}

#[test]
fn reflection_names_every_service() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let server = Setup::new(&["add"]).start();
    let control = server.control();
    let mut client = ServerReflectionClient::new(control.channel());
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = control
        .wait(client.server_reflection_info(tokio_stream::iter([list])))
        .unwrap()
        .into_inner();
    let answer = control.wait(answers.message()).unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<_> = services
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    for name in [
        "adjoin.control.v1.Control",
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
    ] {
        assert!(
            names.iter().any(|known| known == name),
            "{name} is not among {names:?}"
        );
    }
}

#[test]
fn logs_for_programs_are_one_object_a_line() {
    let server = Setup::new(&["add"])
        .flags(&["--log-format", "json"])
        .start();
    let mut liar = RawClient::attach(&server.socket_dir());
    let mut entry = liar.submission(0, 0);
    entry.kind = 77;
    liar.push(entry);
    assert_eq!(liar.ended(), Status::EntryInvalid);
    let log = server.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let closed = lines
        .iter()
        .find(|line| line["message"] == "closed session that broke the protocol")
        .unwrap();
    assert_eq!(
        (&closed["reason"], &closed["level"]),
        (&"entry_invalid".into(), &"WARN".into())
    );
}
