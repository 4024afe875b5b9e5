//! The bytes of OTLP: the only place that knows OpenTelemetry's schema.

use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
pub(super) use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use super::span::{Kind, Record, Value};
use crate::config::TracingConfig;

/// Bits 8 and 9 of a span's flags: whether its parent is another program's is known, and so it is.
const PARENT_KNOWN: u32 = 0x100;
const PARENT_REMOTE: u32 = 0x200;

/// Says which program this is.
pub(super) fn resource(config: &TracingConfig, node: &str) -> Resource {
    let own = [
        ("service.name", config.service_name()),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", node),
    ];
    let is_own = |name: &str| name == "service.name" || name == "service.version";
    let given = config.found.attributes.iter().filter(|(name, _)| !is_own(name));
    let given: Vec<_> = given.map(|(name, value)| key_value(name, Any::StringValue(value.clone()))).collect();
    let is_given = |name: &str| given.iter().any(|known| known.key == name);
    let own = own.into_iter().filter(|(name, _)| !is_given(name));
    let own = own.map(|(name, value)| key_value(name, Any::StringValue(value.to_owned())));
    let attributes = own.chain(given.clone()).collect();
    Resource { attributes, ..Resource::default() }
}

/// The body of a request.
pub(super) fn encode(resource: &Resource, batch: &[Record]) -> Vec<u8> {
    let scope = InstrumentationScope {
        name: "groupcast".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let spans = batch.iter().map(span).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }];
    let of_resource = ResourceSpans { resource: Some(resource.clone()), scope_spans, schema_url: String::new() };
    ExportTraceServiceRequest { resource_spans: vec![of_resource] }.encode_to_vec()
}

/// How many spans of a request the collector says that it did not want. An answer that makes no sense says nothing.
pub(super) fn rejected(answer: &[u8]) -> u64 {
    let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
    answer.partial_success.and_then(|partial| u64::try_from(partial.rejected_spans).ok()).unwrap_or(0)
}

fn span(record: &Record) -> Span {
    let context = &record.context;
    let remote = if record.is_parent_remote { PARENT_REMOTE } else { 0 };
    let error = record.error.as_ref();
    Span {
        trace_id: context.trace_id().to_vec(),
        span_id: context.parent_id().to_vec(),
        trace_state: context.tracestate().unwrap_or_default().to_owned(),
        parent_span_id: record.parent.map(Vec::from).unwrap_or_default(),
        flags: u32::from(context.flags()) | PARENT_KNOWN | remote,
        name: record.name.clone().into_owned(),
        kind: kind(record.kind).into(),
        start_time_unix_nano: record.began_ns,
        end_time_unix_nano: record.ended_ns,
        attributes: record.attributes.iter().map(|(name, value)| key_value(name, any(value))).collect(),
        status: error.map(|why| Status { message: why.clone(), code: StatusCode::Error.into() }),
        ..Span::default()
    }
}

fn kind(kind: Kind) -> SpanKind {
    match kind {
        Kind::Server => SpanKind::Server,
        Kind::Client => SpanKind::Client,
        Kind::Producer => SpanKind::Producer,
        Kind::Consumer => SpanKind::Consumer,
    }
}

fn any(value: &Value) -> Any {
    match value {
        Value::Text(text) => Any::StringValue(text.clone()),
        Value::Word(word) => Any::StringValue((*word).to_owned()),
        Value::Number(number) => Any::IntValue(*number),
    }
}

fn key_value(name: &str, value: Any) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
