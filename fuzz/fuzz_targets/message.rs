//! Messages and the parameters of queries, which pass through as the bytes that they are: bodies of HTTP, parts of frames.

#![no_main]

use bytes::Bytes;
use groupcast_fuzz::no_beginning_is_accepted;
use groupcast_protocol::frame::{encode_group_message, frame_group_message};
use groupcast_protocol::{GroupName, Message, RawObject, websocket};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    let object = RawObject::parse(bytes.clone());
    let Ok(message) = Message::parse(bytes.clone()) else { return };
    let object = object.expect("a message is an object");
    assert_eq!(message.raw(), object.raw());
    assert!(!message.kind().is_empty());
    assert_eq!(Message::parse(message.raw().clone()).as_ref().ok(), Some(&message));
    assert!(Message::parse_within(bytes, message.raw().len() - 1).is_err(), "it is larger than it may be");
    no_beginning_is_accepted(message.raw(), |part| Message::parse(Bytes::copy_from_slice(part)).is_ok());

    let group = GroupName::parse("g").expect("a name");
    let encoded = encode_group_message(&group, Some(7), &message);
    assert_eq!(websocket::payload(&frame_group_message(&group, Some(7), &message)), &encoded[..]);
    // Numbers beyond a double and lone surrogates are passed on; a tree cannot hold them.
    let Ok(tree) = serde_json::from_slice::<Value>(message.raw()) else { return };
    assert_eq!(tree["type"], message.kind());
    // One level more than a message may have is within a frame.
    if let Ok(frame) = serde_json::from_slice::<Value>(&encoded) {
        assert_eq!(frame["message"], tree);
    }
});
