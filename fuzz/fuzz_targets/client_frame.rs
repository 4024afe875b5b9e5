//! Commands of clients, as text messages of a WebSocket.

#![no_main]

use groupcast_fuzz::{no_beginning_is_accepted, text};
use groupcast_protocol::frame::{ClientFrame, Command, Request};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const MESSAGE_BYTES_MAX: usize = 300;

fuzz_target!(|data: &[u8]| {
    let Some(text) = text(data) else { return };
    let Ok(frame) = ClientFrame::decode(text, MESSAGE_BYTES_MAX) else { return };
    let encoded = frame.encode();
    let again = ClientFrame::decode(std::str::from_utf8(&encoded).expect("frames are text"), MESSAGE_BYTES_MAX);
    assert_eq!(again.as_ref(), Ok(&frame), "{encoded:?}");
    no_beginning_is_accepted(text.trim_end().as_bytes(), |part| {
        std::str::from_utf8(part).is_ok_and(|part| ClientFrame::decode(part, MESSAGE_BYTES_MAX).is_ok())
    });
    if let Request::Command(Command::GroupSend { message, .. }) = &frame.request {
        assert!(message.raw().len() <= MESSAGE_BYTES_MAX, "a message is larger than it may be");
    }
    // Numbers beyond a double and lone surrogates are passed on; a tree cannot hold them.
    let Ok(tree) = serde_json::from_str::<Value>(text) else { return };
    agree(&frame, &tree);
});

/// Another reader of JSON finds the same.
fn agree(frame: &ClientFrame, tree: &Value) {
    let Request::Command(command) = &frame.request else { return assert_eq!(tree["type"], "ping") };
    let (kind, group) = match command {
        Command::Subscribe { group, .. } => ("subscribe", Some(group)),
        Command::SubscribeQuery { query, .. } => {
            assert_eq!(tree["query"], **query);
            ("subscribe", None)
        }
        Command::Unsubscribe { group } => ("unsubscribe", Some(group)),
        Command::GroupSend { group, message, .. } => {
            assert_eq!(tree["message"]["type"], message.kind());
            ("group_send", Some(group))
        }
        Command::Query { name, .. } => {
            assert_eq!(tree["name"], **name);
            ("query", None)
        }
        Command::Cancel { .. } => ("cancel", None),
        Command::Members { group } => ("members", Some(group)),
        Command::History { group, .. } => ("history", Some(group)),
        Command::Authenticate { token } => {
            assert_eq!(tree["token"], token.reveal());
            ("authenticate", None)
        }
    };
    assert_eq!(tree["type"], kind);
    assert!(group.is_none_or(|group| tree["group"] == group.as_str()), "{group:?} is not that of {tree}");
}
