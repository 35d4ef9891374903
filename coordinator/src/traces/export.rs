//! Sends spans by OpenTelemetry's protocol (OTLP over gRPC).

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Sent, Status};
use tokio::sync::mpsc::Receiver;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::spans::{Attributes, Happening, Span, Value};
use super::target::TraceTarget;

/// Most spans of one message.
const BATCH: usize = 512;
/// After how long a message that was not taken is sent again; after the last it is given up. Fixed: no job waits for it.
const AGAIN: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
];

/// Sends what comes until nothing more can.
pub(super) async fn run(target: TraceTarget, mut waiting: Receiver<Span>) {
    let mut client = TraceServiceClient::new(target.endpoint.connect_lazy());
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let count = batch.len();
        let message = message(&target, batch.drain(..));
        if let Err(refusal) = send(&mut client, &target, &message).await {
            let place = target.endpoint.uri();
            tracing::warn!("{count} spans could not be sent to {place}: {}", refusal.message());
        }
    }
}

async fn send(
    client: &mut TraceServiceClient<Channel>,
    target: &TraceTarget,
    message: &ExportTraceServiceRequest,
) -> Result<(), tonic::Status> {
    let mut waits = AGAIN.into_iter();
    loop {
        let mut request = Request::new(message.clone());
        *request.metadata_mut() = target.headers.clone();
        let refusal = match client.export(request).await {
            Ok(answer) => {
                if let Some(part) = answer.into_inner().partial_success.filter(|part| part.rejected_spans > 0)
                {
                    tracing::warn!("{} spans were not taken: {}", part.rejected_spans, part.error_message);
                }
                return Ok(());
            }
            Err(refusal) => refusal,
        };
        match waits.next().filter(|_| may_pass(refusal.code())) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return Err(refusal),
        }
    }
}

/// Refusals after which the protocol sends again.
fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn message(target: &TraceTarget, spans: impl Iterator<Item = Span>) -> ExportTraceServiceRequest {
    let text = |value: &String| Some(AnyValue { value: Some(any_value::Value::StringValue(value.clone())) });
    let of = |(key, value): &(String, String)| KeyValue {
        key: key.clone(),
        value: text(value),
        ..Default::default()
    };
    let resource = Resource { attributes: target.resource.iter().map(of).collect(), ..Default::default() };
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..Default::default()
    };
    let spans = spans.map(sent).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..Default::default() }];
    let all = ResourceSpans { resource: Some(resource), scope_spans, ..Default::default() };
    ExportTraceServiceRequest { resource_spans: vec![all] }
}

fn sent(span: Span) -> Sent {
    let status = span.error.map(|message| Status { message, code: StatusCode::Error.into() });
    Sent {
        trace_id: span.trace.to_vec(),
        span_id: span.id.to_vec(),
        parent_span_id: span.parent.map(Vec::from).unwrap_or_default(),
        name: span.name,
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: nanoseconds(span.begun),
        end_time_unix_nano: nanoseconds(span.ended),
        attributes: attributes(span.attributes),
        events: span.events.into_iter().map(event).collect(),
        dropped_events_count: span.dropped_events,
        status: Some(status.unwrap_or_default()),
        ..Default::default()
    }
}

fn event(happening: Happening) -> Event {
    Event {
        name: happening.name.into(),
        time_unix_nano: nanoseconds(happening.unix_ms),
        attributes: attributes(happening.attributes),
        ..Default::default()
    }
}

fn attributes(all: Attributes) -> Vec<KeyValue> {
    let of = |(key, value): (&str, Value)| {
        let value = match value {
            Value::Text(text) => any_value::Value::StringValue(text),
            Value::Number(number) => any_value::Value::IntValue(number),
            Value::Real(real) => any_value::Value::DoubleValue(real),
        };
        KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
    };
    all.into_iter().map(of).collect()
}

fn nanoseconds(unix_ms: u64) -> u64 {
    unix_ms.saturating_mul(1_000_000)
}
