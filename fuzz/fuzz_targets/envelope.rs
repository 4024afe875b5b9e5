//! What nodes publish for each other by Redis: `gc1 EPOCH OFFSET - MESSAGE`.

#![no_main]

use bytes::Bytes;
use groupcast_fuzz::no_beginning_is_accepted;
use groupcast_protocol::{Envelope, OFFSET_MAX};
use libfuzzer_sys::fuzz_target;

const MESSAGE_BYTES_MAX: usize = 200;

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    let Ok(envelope) = Envelope::decode(&bytes, MESSAGE_BYTES_MAX) else { return };
    assert!((1..=OFFSET_MAX).contains(&envelope.position.offset));
    assert!(envelope.message.raw().len() <= MESSAGE_BYTES_MAX);
    let encoded = envelope.encode();
    assert_eq!(Envelope::decode(&encoded, MESSAGE_BYTES_MAX).as_ref().ok(), Some(&envelope));
    let tail = Envelope::tail(&envelope.message);
    assert!(encoded.starts_with(Envelope::HEAD.as_bytes()) && encoded.ends_with(&tail));
    no_beginning_is_accepted(data.trim_ascii_end(), |part| {
        Envelope::decode(&Bytes::copy_from_slice(part), MESSAGE_BYTES_MAX).is_ok()
    });
});
