//! From traces to the messages of OTLP.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use rustix::rand::GetRandomFlags;
use rustix::time::{ClockId, clock_gettime};

use crate::trace::{Run, Trace, Transport};

/// The message for some traces. Those that get no random numbers are left out.
pub(super) fn message(traces: &[Trace]) -> ExportTraceServiceRequest {
    let offset_ns = unix_offset_ns();
    let spans = traces
        .iter()
        .filter_map(|trace| of_request(trace, offset_ns));
    let scope = InstrumentationScope {
        name: "adjoin".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..Default::default()
    };
    let spans = ScopeSpans {
        scope: Some(scope),
        spans: spans.flatten().collect(),
        ..Default::default()
    };
    let resource = Resource {
        attributes: vec![
            text("service.name", "adjoin"),
            text("service.version", env!("CARGO_PKG_VERSION")),
        ],
        ..Default::default()
    };
    let resource_spans = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![spans],
        ..Default::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![resource_spans],
    }
}

/// What has to be added to times of the server's clock to get times since 1970, in ns.
fn unix_offset_ns() -> u64 {
    let unix = clock_gettime(ClockId::Realtime);
    let unix_ns = unix.tv_sec.unsigned_abs() * 1_000_000_000 + unix.tv_nsec.unsigned_abs();
    unix_ns.wrapping_sub(adjoin_shm::clock::now_ns())
}

/// The span of a request, and those of the parts of its run.
fn of_request(trace: &Trace, offset_ns: u64) -> Option<Vec<Span>> {
    let mut random = [0; 16 + 5 * 8];
    let filled = rustix::rand::getrandom(&mut random, GetRandomFlags::empty()).ok()?;
    if filled != random.len() {
        return None;
    }
    let (trace_id, span_ids) = random.split_at(16);
    let mut span_ids = span_ids.chunks(8).map(<[u8]>::to_vec);
    let trace_id = trace
        .parent
        .map_or_else(|| trace_id.to_vec(), |parent| parent.trace_id.to_vec());
    let at = |time_ns: u64| time_ns.wrapping_add(offset_ns);
    let status = trace.error.as_ref().map(|error| Status {
        message: error.clone(),
        code: StatusCode::Error.into(),
    });
    let mut attributes = vec![
        text("adjoin.model.name", &trace.model),
        number("adjoin.model.version", trace.version),
        text("adjoin.transport", transport(trace.transport)),
    ];
    if let Some(run) = &trace.run {
        attributes.push(number("adjoin.batch_size", run.batch_size.into()));
    }
    let request = Span {
        trace_id,
        span_id: span_ids.next()?,
        parent_span_id: trace
            .parent
            .map_or_else(Vec::new, |parent| parent.span_id.to_vec()),
        name: "infer".into(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: at(trace.begin_ns),
        end_time_unix_nano: at(trace.end_ns),
        attributes,
        status,
        ..Default::default()
    };
    let mut spans = vec![request];
    for ((name, begin_ns, end_ns), span_id) in trace.run.iter().flat_map(parts).zip(span_ids) {
        spans.push(Span {
            trace_id: spans[0].trace_id.clone(),
            span_id,
            parent_span_id: spans[0].span_id.clone(),
            name: name.into(),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: at(begin_ns),
            end_time_unix_nano: at(end_ns),
            ..Default::default()
        });
    }
    Some(spans)
}

/// The parts of a run with their times, one after the other.
fn parts(run: &Run) -> [(&'static str, u64, u64); 4] {
    let mut begin_ns = run.enqueued_ns;
    [
        ("queue", run.queue_ns),
        ("gather", run.gather_ns),
        ("execute", run.execute_ns),
        ("scatter", run.scatter_ns),
    ]
    .map(|(name, taken_ns)| {
        let end_ns = begin_ns.saturating_add(taken_ns);
        let part = (name, begin_ns, end_ns);
        begin_ns = end_ns;
        part
    })
}

fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Ring => "ring",
        Transport::Grpc => "grpc",
        Transport::Http => "http",
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..Default::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn number(key: &str, value: u64) -> KeyValue {
    attribute(
        key,
        Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Parent;

    fn trace() -> Trace {
        Trace {
            parent: None,
            transport: Transport::Ring,
            model: "digits".into(),
            version: 3,
            begin_ns: 1_000,
            end_ns: 9_000,
            error: None,
            run: Some(Run {
                enqueued_ns: 2_000,
                queue_ns: 300,
                gather_ns: 0,
                execute_ns: 5_000,
                scatter_ns: 70,
                batch_size: 8,
            }),
        }
    }

    fn spans(trace: Trace) -> Vec<Span> {
        let mut message = message(&[trace]);
        message.resource_spans.remove(0).scope_spans.remove(0).spans
    }

    #[test]
    fn a_request_has_four_children_one_after_the_other() {
        let spans = spans(trace());
        let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["infer", "queue", "gather", "execute", "scatter"]);
        let taken = |span: &Span| span.end_time_unix_nano - span.start_time_unix_nano;
        let times: Vec<_> = spans.iter().map(taken).collect();
        assert_eq!(times, [8_000, 300, 0, 5_000, 70]);
        assert_eq!(
            spans[1].start_time_unix_nano - spans[0].start_time_unix_nano,
            1_000
        );
        for pair in spans[1..].windows(2) {
            assert_eq!(pair[0].end_time_unix_nano, pair[1].start_time_unix_nano);
        }
        assert!(spans[0].parent_span_id.is_empty() && spans[0].status.is_none());
        for child in &spans[1..] {
            assert_eq!(child.parent_span_id, spans[0].span_id);
            assert_eq!(child.trace_id, spans[0].trace_id);
        }
        let mut ids: Vec<_> = spans.iter().map(|span| span.span_id.clone()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(
            (ids.len(), ids[0].len(), spans[0].trace_id.len()),
            (5, 8, 16)
        );
    }

    #[test]
    fn a_parent_is_kept_and_an_error_told() {
        let parent = Parent {
            trace_id: [7; 16],
            span_id: [9; 8],
            is_sampled: true,
        };
        let spans = spans(Trace {
            parent: Some(parent),
            error: Some("queue_full".into()),
            run: None,
            ..trace()
        });
        assert_eq!(spans.len(), 1);
        assert_eq!(
            (&spans[0].trace_id[..], &spans[0].parent_span_id[..]),
            (&[7; 16][..], &[9; 8][..])
        );
        let status = spans[0].status.as_ref().unwrap();
        assert_eq!(
            (status.code, status.message.as_str()),
            (StatusCode::Error as i32, "queue_full")
        );
    }
}
