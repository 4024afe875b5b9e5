//! What a frame costs: reading a client's command, checking a message, writing what subscribers get.
//!
//! `cargo bench -p groupcast-protocol` (with `-- --quick`: a few seconds).

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use groupcast_protocol::frame::{ClientFrame, encode_group_message};
use groupcast_protocol::{ChannelName, GroupName, Message, websocket};

const MESSAGE_BYTES_MAX: usize = 64 << 10;

const COMMANDS: [(&str, &str); 6] = [
    ("subscribe", r#"{"type":"subscribe","id":1,"group":"my_group"}"#),
    ("subscribe_after", r#"{"type":"subscribe","id":1,"group":"my_group","after":{"epoch":"x7","offset":40}}"#),
    (
        "group_send",
        r#"{"type":"group_send","id":3,"group":"g","message":{"type":"chat.message","text":"hello, world"}}"#,
    ),
    ("query", r#"{"type":"query","id":4,"name":"worst_routes","params":{"origin":"JFK","limit":10}}"#),
    ("ping", r#"{"type":"ping","id":9}"#),
    ("refused", r#"{"type":"subscribe","id":1,"group":"not/a name"}"#),
];

/// A message of `bytes` bytes, as a service would send it.
fn message(bytes: usize) -> Bytes {
    let mut text = String::from(r#"{"type":"tick","values":["#);
    while text.len() + 10 < bytes {
        text.push_str("12.5,");
    }
    text.push_str("0]");
    let padding = bytes - text.len() - 1;
    text.push_str(&" ".repeat(padding));
    text.push('}');
    text.into()
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for (name, text) in COMMANDS {
        let decoded = ClientFrame::decode(text, MESSAGE_BYTES_MAX);
        assert_eq!(decoded.is_err(), name == "refused", "{name}: {decoded:?}");
        group.bench_function(name, |b| b.iter(|| ClientFrame::decode(black_box(text), MESSAGE_BYTES_MAX)));
    }
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("message_parse");
    for bytes in [128, 4096] {
        let raw = message(bytes);
        Message::parse(raw.clone()).expect("a message");
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(bytes.to_string(), |b| b.iter(|| Message::parse(black_box(&raw).clone())));
    }
}

/// Once for each message, however many subscribers it has.
fn encode(c: &mut Criterion) {
    let name = GroupName::parse("my_group").expect("a name");
    let mut group = c.benchmark_group("encode_group_message");
    for bytes in [128, 4096] {
        let message = Message::parse(message(bytes)).expect("a message");
        group.throughput(Throughput::Bytes(bytes as u64));
        for (history, offset) in [("plain", None), ("offset", Some(1_234_567))] {
            group.bench_function(format!("{history}/{bytes}"), |b| {
                b.iter(|| websocket::text(&encode_group_message(&name, offset, black_box(&message))));
            });
        }
    }
}

fn names(c: &mut Criterion) {
    let mut group = c.benchmark_group("names");
    group.bench_function("group", |b| b.iter(|| GroupName::parse(black_box("room.42.messages"))));
    group.bench_function("channel", |b| b.iter(|| ChannelName::parse(black_box("specific.gw1!c123456"))));
    group.bench_function("refused", |b| b.iter(|| GroupName::parse(black_box("room/42"))));
}

criterion_group!(benches, decode, parse, encode, names);
criterion_main!(benches);
