//! Traces of requests, seen by a collector in the test's own process.

use std::sync::Arc;
use std::sync::Mutex;

use adjoin_control_api::inference::ModelInferRequest;
use adjoin_control_api::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use adjoin_control_api::inference::model_infer_request::InferInputTensor;
use adjoin_tests::server::{Setup, TestServer};
use adjoin_tests::{add_request, wait_for};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use rustix::process::Signal;
use tonic::{Request, Response, Status};

/// Keeps what it gets.
#[derive(Clone, Default)]
struct Collector {
    messages: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.messages.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Serves on a port of its own until the test ends.
    fn start() -> (Self, String) {
        let collector = Self::default();
        let service = TraceServiceServer::new(collector.clone());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().build().unwrap().block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let incoming = tonic::transport::server::TcpIncoming::from(listener);
                let server = tonic::transport::Server::builder().add_service(service);
                server.serve_with_incoming(incoming).await.unwrap();
            });
        });
        (collector, address)
    }

    /// Spans in the order in which they came.
    fn spans(&self) -> Vec<Span> {
        let messages = self.messages.lock().unwrap();
        let resources = messages.iter().flat_map(|message| &message.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// Spans of requests, when there are so many.
    fn requests(&self, count: usize) -> Vec<Span> {
        wait_for("the collector has the traces", || {
            let mut spans = self.spans();
            spans.retain(|span| span.name == "infer");
            (spans.len() >= count).then_some(spans)
        })
    }

    fn children(&self, of: &Span) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.parent_span_id == of.span_id);
        spans
    }
}

fn attribute(span: &Span, key: &str) -> Value {
    let found = span
        .attributes
        .iter()
        .find(|attribute| attribute.key == key);
    let value = found.and_then(|attribute| attribute.value.clone()?.value);
    value.unwrap_or_else(|| panic!("{key} is not in {span:?}"))
}

fn text(value: &str) -> Value {
    Value::StringValue(value.into())
}

fn start(endpoint: &str, rate: u32) -> TestServer {
    let config = format!("[trace]\notlp_endpoint = {endpoint:?}\nrate = {rate}");
    Setup::new(&["add"]).config(&config).start()
}

/// Calls `add` over gRPC, or another model.
fn infer(server: &TestServer, model: &str, parent: Option<&str>) -> Result<(), Status> {
    let input = |name: &str| InferInputTensor {
        name: name.into(),
        datatype: "FP32".into(),
        shape: vec![1, 4],
        ..Default::default()
    };
    let mut request = Request::new(ModelInferRequest {
        model_name: model.into(),
        inputs: vec![input("a"), input("b")],
        raw_input_contents: vec![vec![0; 16].into(), vec![0; 16].into()],
        ..Default::default()
    });
    if let Some(parent) = parent {
        let value = parent.parse().unwrap();
        request.metadata_mut().insert("traceparent", value);
    }
    let control = server.control();
    let mut client = GrpcInferenceServiceClient::new(control.channel());
    control.wait(client.model_infer(request)).map(|_| ())
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[test]
fn requests_of_rings_and_of_messages_are_spans_with_the_parts_of_their_run() {
    let (collector, endpoint) = Collector::start();
    let server = start(&endpoint, 1);
    let client = server.client();
    let model = client.model("add").unwrap();
    add_request(&model, 2).infer().unwrap();
    let ring = collector.requests(1).remove(0);
    infer(&server, "add", Some(PARENT)).unwrap();
    let message = collector.requests(2).remove(1);

    for (span, transport) in [(&ring, "ring"), (&message, "grpc")] {
        assert_eq!(attribute(span, "adjoin.model.name"), text("add"));
        assert_eq!(attribute(span, "adjoin.model.version"), Value::IntValue(1));
        assert_eq!(attribute(span, "adjoin.transport"), text(transport));
        assert!(span.status.is_none(), "{span:?}");
        let children = collector.children(span);
        let names: Vec<_> = children.iter().map(|child| child.name.as_str()).collect();
        assert_eq!(names, ["queue", "gather", "execute", "scatter"]);
        let mut at = span.start_time_unix_nano;
        for child in &children {
            assert_eq!(child.trace_id, span.trace_id);
            assert!(at <= child.start_time_unix_nano, "{child:?} in {span:?}");
            at = child.end_time_unix_nano;
        }
        assert!(at <= span.end_time_unix_nano, "{children:?} in {span:?}");
        let execute = &children[2];
        assert!(execute.start_time_unix_nano < execute.end_time_unix_nano);
    }
    assert_eq!(attribute(&ring, "adjoin.batch_size"), Value::IntValue(2));
    assert!(ring.parent_span_id.is_empty());
    assert_eq!(message.trace_id[..3], [0x0a, 0xf7, 0x65]);
    assert_eq!(message.parent_span_id[..3], [0xb7, 0xad, 0x6b]);
    // Times are those of the calendar: the test does not run for a day.
    let now = std::time::SystemTime::now();
    let now = now
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    let age = now.abs_diff(ring.start_time_unix_nano.into());
    assert!(age < 86_400_000_000_000, "{ring:?}");
}

#[test]
fn errors_are_told_and_only_what_callers_want_is_traced_at_rate_0() {
    let (collector, endpoint) = Collector::start();
    let mut server = start(&endpoint, 0);
    let client = server.client();
    let model = client.model("add").unwrap();
    add_request(&model, 1).infer().unwrap();
    infer(&server, "add", None).unwrap();
    infer(&server, "add", Some(&PARENT.replace("-01", "-00"))).unwrap();
    infer(&server, "other", Some(PARENT)).unwrap_err();
    // The end of the server sends what is left.
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let spans = collector.spans();
    assert_eq!(spans.len(), 1, "{spans:?}");
    let status = spans[0].status.as_ref().unwrap();
    assert_eq!(status.code, StatusCode::Error as i32);
    assert_eq!(status.message, "NotFound");
    assert_eq!(attribute(&spans[0], "adjoin.model.name"), text("other"));
}

#[test]
fn a_collector_that_is_away_costs_its_traces_and_no_request() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let mut server = start(&endpoint, 1);
    let client = server.client();
    let model = client.model("add").unwrap();
    let mut request = add_request(&model, 1);
    wait_for("a failed sending is logged", || {
        request.infer().unwrap();
        let log = server.log();
        log.contains("the collector took no traces").then_some(())
    });
    infer(&server, "add", Some(PARENT)).unwrap();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}
