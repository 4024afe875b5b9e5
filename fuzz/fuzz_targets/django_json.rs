//! Messages of channels_redis in JSON, as Python writes it.

#![no_main]

use groupcast_channel_layer::dialect::{Decoded, To, json};
use groupcast_fuzz::no_beginning_is_accepted;
use groupcast_protocol::Message;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const BYTES_MAX: usize = 400;

fuzz_target!(|data: &[u8]| {
    let Ok(Decoded { message, channels }) = json::decode(data, BYTES_MAX) else { return };
    assert!(message.raw().len() <= BYTES_MAX, "{} bytes", message.raw().len());
    no_beginning_is_accepted(data.trim_ascii_end(), |part| json::decode(part, BYTES_MAX).is_ok());
    let names: Vec<&str> = channels.iter().map(String::as_str).collect();
    let bytes = json::encode(&message, &To::Several(&names)).expect("the key of the channels is not in it any more");
    let again = json::decode(&bytes, bytes.len()).expect("what we write can be read");
    // The same but for blanks where the channels were.
    let without_blanks = |message: &Message| {
        let text = message.as_str().strip_suffix('}').expect("an object");
        text.trim_end().to_owned()
    };
    assert_eq!((without_blanks(&again.message), &again.channels), (without_blanks(&message), &channels));
    // What another reader of JSON finds, where there is nothing that only Python reads.
    let Ok(Value::Object(mut tree)) = serde_json::from_slice::<Value>(data) else { return };
    let told = match tree.remove("__asgi_channel__") {
        None => Vec::new(),
        Some(Value::String(name)) => vec![name],
        Some(other) => serde_json::from_value(other).expect("names"),
    };
    assert_eq!(told, channels);
    let left: Value = serde_json::from_slice(message.raw()).expect("JSON");
    assert_eq!(left, Value::Object(tree));
});
