//! The codec against what the Python packages write (`vectors/channels_redis.json`, made and checked by
//! `tests/python/channels_vectors.py`), against strangers' bytes, and against itself.

use bytes::Bytes;
use groupcast_protocol::{Message, MessageError};
use proptest::prelude::*;
use serde_json::Value;

use super::msgpack::{self, MsgpackError};
use super::{CodecError, Decoded, Serializer, To, json};

const VECTORS: &str = include_str!("../../vectors/channels_redis.json");

#[test]
fn messages_are_written_as_python_writes_them() {
    for vector in vectors("sent") {
        let sent = message(text(&vector["json"]));
        let names = names(&vector["recipients"]);
        let written = msgpack::encode(&sent, &to(&vector["recipients"], &names)).expect("it can be written");
        assert_eq!(hex(&written), text(&vector["msgpack"]), "{}", text(&vector["json"]));
        let read = msgpack::decode(&written, usize::MAX).expect("it can be read");
        assert_eq!(read.channels, names);
        assert_same(text(&vector["json"]), read.message.as_str());
    }
}

#[test]
fn long_values_have_the_heads_that_python_gives_them() {
    for vector in vectors("long") {
        let length = vector["length"].as_u64().expect("a number") as usize;
        let value = match text(&vector["kind"]) {
            "s" => Value::from("s".repeat(length)),
            "l" => Value::from(vec![0; length]),
            "b" => serde_json::json!({"$bytes": base64(&vec![7; length])}),
            _ => (0..length).map(|n| (format!("k{n}"), Value::from(n))).collect(),
        };
        let written = msgpack::encode(&wrap("v", &value), &To::Nobody).expect("it can be written");
        // The members of an object come in another order; behind its head they are of the same length.
        let head = if vector["kind"] == "m" { 14 } else { 24 };
        assert_eq!(hex(&written[..head]), text(&vector["start"])[..2 * head]);
        assert_eq!(written.len() as u64, vector["bytes"].as_u64().expect("a number"));
        let read = msgpack::decode(&written, usize::MAX).expect("it can be read");
        assert_eq!(parsed(read.message.as_str())["v"], value);
    }
}

#[test]
fn what_python_writes_is_read() {
    for vector in vectors("received") {
        let read = msgpack::decode(&bytes(text(&vector["msgpack"])), 1000).expect("it can be read");
        assert_eq!(read, Decoded { message: message(text(&vector["json"])), channels: names(&vector["recipients"]) });
    }
    for vector in vectors("received_json") {
        let read = json::decode(text(&vector["text"]).as_bytes(), 1000).expect("it can be read");
        assert_eq!(read, Decoded { message: message(text(&vector["json"])), channels: names(&vector["recipients"]) });
    }
}

#[test]
fn json_gets_the_channels_at_its_end() {
    let write = |to: &To<'_>| json::encode(&message(r#"{"type":"x","a":[1, {}]}"#), to).expect("it can be written");
    assert_eq!(write(&To::Nobody), br#"{"type":"x","a":[1, {}]}"#);
    assert_eq!(write(&To::One("a!\"")), br#"{"type":"x","a":[1, {}], "__asgi_channel__": "a!\""}"#);
    assert_eq!(
        write(&To::Several(&["a!b", "a!c"])),
        br#"{"type":"x","a":[1, {}], "__asgi_channel__": ["a!b", "a!c"]}"#
    );
}

#[test]
fn nobody_names_channels_himself() {
    for sent in [r#"{"type":"x","__asgi_channel__":"a!b"}"#, r#"{"__asgi\u005fchannel__":null,"type":"x"}"#] {
        for to in [To::Nobody, To::One("a!c"), To::Several(&[])] {
            for serializer in [Serializer::Msgpack, Serializer::Json] {
                assert!(matches!(serializer.encode(&message(sent), &to), Err(CodecError::Reserved)), "{sent}");
            }
        }
    }
    // It means something as a key of the outermost object only.
    for sent in
        [r#"{"type":"__asgi_channel__","a":{"__asgi_channel__":1}}"#, r#"{"type":"x","a":["__asgi_channel__"]}"#]
    {
        for serializer in [Serializer::Msgpack, Serializer::Json] {
            let written = serializer.encode(&message(sent), &To::Nobody).expect("it can be written");
            assert_eq!(serializer.decode(&written, 1000).expect("it can be read").message.as_str(), sent);
        }
    }
}

#[test]
fn a_number_beyond_64_bits_is_refused() {
    for number in ["18446744073709551616", "-9223372036854775809", "123456789012345678901234567890"] {
        let sent = message(&format!(r#"{{"type":"x","n":[{number}]}}"#));
        let refused = msgpack::encode(&sent, &To::Nobody);
        assert!(matches!(&refused, Err(CodecError::NumberTooLarge { text }) if text == number), "{refused:?}");
        assert!(json::encode(&sent, &To::Nobody).is_ok());
    }
}

#[test]
fn half_of_a_pair_is_replaced() {
    for sent in [r"\ud800", r"\udc00", r"\ud800\ud800", r"\ud800x", r"\ud800\n"] {
        let sent = message(&format!(r#"{{"type":"x","t":"{sent}"}}"#));
        let written = msgpack::encode(&sent, &To::Nobody).expect("it can be written");
        let read = msgpack::decode(&written, 1000).expect("it can be read").message;
        assert!(read.as_str().contains('\u{fffd}'), "{read:?}");
    }
}

#[test]
fn what_no_message_is_is_refused() {
    use MsgpackError as E;
    for (wrong, error) in [
        ("", E::Short),
        ("c0", E::NotAMap),
        ("93010203", E::NotAMap),
        ("81", E::Short),
        ("81a161", E::Short),
        ("810101", E::Key),
        ("81c4016101", E::Key),
        ("81a1ff01", E::Utf8),
        ("81a161a1ff", E::Utf8),
        ("81a161a2ff", E::Short),
        ("81a1610100", E::Rest),
        ("81a161d40102", E::Type),
        ("81a161c7010100", E::Type),
        ("81a161c1", E::Type),
        ("81a16181c101", E::Key),
        ("dfffffffff", E::Short),
        ("81a161ddffffffff", E::Short),
        ("81a161dfffffffff", E::Short),
        ("81a161dbffffffff", E::Short),
        ("81a161c6ffffffff", E::Short),
    ] {
        let read = msgpack::decode(&bytes(wrong), 1000);
        assert!(matches!(read, Err(CodecError::Msgpack(found)) if found == error), "{wrong}: {read:?}");
    }
    let nested = |depth| [bytes("82a474797065a178a161"), vec![0x91; depth], vec![0xc0]].concat();
    assert!(msgpack::decode(&nested(126), 1000).is_ok());
    assert!(matches!(msgpack::decode(&nested(127), 1000), Err(CodecError::Msgpack(E::Depth))));
    assert!(matches!(msgpack::decode(&nested(100_000), 1000), Err(CodecError::Msgpack(E::Depth))));
    for (form, wrong) in [
        (Serializer::Msgpack, "80"),
        (Serializer::Msgpack, "81a161a162"),
        (Serializer::Msgpack, "81a47479706501"),
        (Serializer::Msgpack, "81a474797065a0"),
        (Serializer::Msgpack, "82a474797065a178a474797065a179"),
        (Serializer::Json, &hex(b"[]")),
        (Serializer::Json, &hex(br#"{"type":"x"} y"#)),
        (Serializer::Json, &hex(br#"{"type":"x","a":Nan}"#)),
        (Serializer::Json, &hex(br#"{"type":"x","a":--Infinity}"#)),
        (Serializer::Json, &hex(b"{\"type\":\"\xff\"}")),
    ] {
        let read = form.decode(&bytes(wrong), 1000);
        assert!(matches!(read, Err(CodecError::Message(_))), "{wrong}: {read:?}");
    }
}

#[test]
fn channels_are_texts_and_named_once() {
    let key = "b05f5f617367695f6368616e6e656c5f5f";
    for wrong in ["01".to_owned(), "c0".into(), "81a16101".into(), "9101".into(), format!("a161{key}a162")] {
        let members = if wrong.len() > 10 { 3 } else { 2 };
        let payload = bytes(&format!("8{members}a474797065a178{key}{wrong}"));
        assert!(matches!(msgpack::decode(&payload, 1000), Err(CodecError::Channels)), "{wrong}");
    }
    for wrong in ["7", "null", "{}", "[1]", "[[]]", r#""a","__asgi_channel__":"b""#] {
        let payload = format!(r#"{{"type":"x","__asgi_channel__":{wrong}}}"#);
        assert!(matches!(json::decode(payload.as_bytes(), 1000), Err(CodecError::Channels)), "{wrong}");
    }
}

#[test]
fn what_grows_is_bounded() {
    // One byte each, and six in JSON.
    let payload = [bytes("82a474797065a178a161da1000"), vec![0; 0x1000]].concat();
    assert!(msgpack::decode(&payload, 25_000).is_ok());
    assert!(matches!(msgpack::decode(&payload, 20_000), Err(CodecError::TooLarge { max: 20_000 })));
}

proptest! {
    #[test]
    fn strangers_bytes_do_no_harm(payload in proptest::collection::vec(any::<u8>(), 0..300), map in 0x80u8..0x90) {
        let with_head = [&[map][..], &payload].concat();
        for payload in [&payload, &with_head] {
            for serializer in [Serializer::Msgpack, Serializer::Json] {
                if let Ok(read) = serializer.decode(payload, 1000) {
                    prop_assert!(Message::parse(read.message.raw().clone()).is_ok());
                }
            }
        }
    }

    #[test]
    fn a_changed_byte_does_no_harm(at in any::<prop::sample::Index>(), to in any::<u8>(), value in value(5)) {
        let mut written = msgpack::encode(&wrap("value", &value), &To::Several(&["a!b"])).expect("it can be written");
        let at = at.index(written.len());
        written[at] = to;
        let _ = msgpack::decode(&written, 10_000);
        let mut written = json::encode(&wrap("value", &value), &To::Several(&["a!b"])).expect("it can be written");
        let at = at % written.len();
        written[at] = to;
        let _ = json::decode(&written, 10_000);
    }

    #[test]
    fn messages_come_back(value in value(8), name in ".*") {
        let sent = wrap("value", &value);
        for serializer in [Serializer::Msgpack, Serializer::Json] {
            for (to, names) in [(To::Nobody, vec![]), (To::One(&name), vec![name.clone()]), (To::Several(&[&name, "a"]), vec![name.clone(), "a".to_owned()])] {
                let written = serializer.encode(&sent, &to).expect("it can be written");
                let read = serializer.decode(&written, 1 << 20).expect("it can be read");
                prop_assert_eq!(&read.channels, &names);
                prop_assert_eq!(&parsed(read.message.as_str()), &parsed(sent.as_str()));
            }
        }
    }
}

/// Any value that msgpack can have.
fn value(size: u32) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-40_000i64..70_000).prop_map(Value::from),
        any::<f64>().prop_map(|float| Value::from(if float.is_finite() { float } else { 0.5 })),
        ".*".prop_map(Value::from),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| serde_json::json!({"$bytes": base64(&bytes)})),
    ];
    leaf.prop_recursive(size, 64, 20, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
            proptest::collection::hash_map(".*", inner, 0..20).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn wrap(key: &str, value: &Value) -> Message {
    message(&serde_json::json!({"type": "x", key: value}).to_string())
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The same values. A whole number has no minus zero, in Python neither; what is too large for a float comes back as `null`.
fn assert_same(sent: &str, read: &str) {
    match serde_json::from_str::<Value>(&sent.replace(":-0,", ":0,")) {
        Ok(sent) => assert_eq!(sent, parsed(read)),
        Err(_) => assert!(read.contains("null"), "{read}"),
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn message(text: &str) -> Message {
    Message::parse(Bytes::copy_from_slice(text.as_bytes()))
        .unwrap_or_else(|error: MessageError| panic!("{text}: {error}"))
}

fn vectors(of: &str) -> Vec<Value> {
    match parsed(VECTORS)[of].take() {
        Value::Array(vectors) if !vectors.is_empty() => vectors,
        other => panic!("no vectors: {other}"),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn names(value: &Value) -> Vec<String> {
    match value {
        Value::Null => vec![],
        Value::String(name) => vec![name.clone()],
        names => names.as_array().expect("a list").iter().map(|name| text(name).to_owned()).collect(),
    }
}

fn to<'a>(value: &Value, names: &'a [String]) -> To<'a> {
    match value {
        Value::Null => To::Nobody,
        Value::String(_) => To::One(&names[0]),
        _ => To::Several(names.iter().map(String::as_str).collect::<Vec<_>>().leak()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(digit).collect()
}
