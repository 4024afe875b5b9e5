//! Whole frames of channels_redis: random bytes, encryption, marks, expiry; and the entries that gateways park them in.

#![no_main]

use bytes::Bytes;
use groupcast_channel_layer::broker::redis::fuzzing as redis;
use groupcast_channel_layer::dialect::{Codec, Keys, Serializer, To};
use groupcast_protocol::Message;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const NOW_SECS: u64 = 1_795_357_817;

fuzz_target!(|data: &[u8]| {
    let [settings, data @ ..] = data else { return };
    let (_, _, frame) = redis::unpark(data);
    assert!(data.ends_with(frame));
    let (is_understood, [_, after]) = redis::told(data);
    // What is told in other words changes nothing; and what is forged, only until Redis says how it is.
    assert!(after == 1 || (is_understood && after == 0), "{after} frames");
    let codec = Codec {
        serializer: if settings & 1 == 0 { Serializer::Msgpack } else { Serializer::Json },
        keys: if settings & 2 == 0 { Keys::default() } else { Keys::new(&["s3cret", "older"]) },
        prefix_bytes: usize::from(settings >> 4),
        max_age_secs: (settings & 4 != 0).then_some(70),
        message_bytes: 1000,
    };
    let _ = codec.is_marked(data);
    if let Ok(frame) = codec.decode(data, NOW_SECS) {
        // Nobody without the key can have written it.
        assert!(codec.keys.is_empty(), "a signature was forged");
        assert_eq!(frame.id.len(), codec.prefix_bytes);
    }
    let Ok(message) = Message::parse(Bytes::copy_from_slice(data)) else { return };
    let Ok(written) = codec.encode(&message, &To::One("a!b"), NOW_SECS) else { return };
    let Ok(read) = codec.decode(&written, NOW_SECS) else { return };
    assert_eq!(read.channels, ["a!b"]);
    if codec.serializer == Serializer::Json {
        // The same but for blanks where the channel was.
        let tree = |message: &Message| serde_json::from_slice::<Value>(message.raw()).ok();
        assert_eq!(tree(&read.message), tree(&message));
    }
    let marked = codec.encode_marked(&message, NOW_SECS).expect("it has few keys");
    assert!(
        codec.is_marked(&marked) && !codec.is_marked(&codec.encode(&message, &To::Nobody, NOW_SECS).expect("it was"))
    );
    if !codec.keys.is_empty() {
        assert!(codec.max_age_secs.is_none() || codec.decode(&written, NOW_SECS + 71).is_err(), "it is too old");
        changed_is_refused(&codec, written, usize::from(*settings));
    }
});

/// One other bit in what is signed, and nobody reads it.
fn changed_is_refused(codec: &Codec, mut frame: Vec<u8>, at: usize) {
    // The last characters of base64 have bits that mean nothing.
    let signed = frame.len() - codec.prefix_bytes - 4;
    let byte = &mut frame[codec.prefix_bytes + at % signed];
    *byte = if *byte == b'A' { b'B' } else { b'A' };
    assert!(codec.decode(&frame, NOW_SECS).is_err(), "a frame that was changed is read");
}
