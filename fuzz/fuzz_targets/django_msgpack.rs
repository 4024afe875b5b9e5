//! Messages of channels_redis in MessagePack.

#![no_main]

use groupcast_channel_layer::dialect::{CodecError, Decoded, To, msgpack};
use groupcast_fuzz::no_beginning_is_accepted;
use libfuzzer_sys::fuzz_target;

const JSON_BYTES_MAX: usize = 400;

fuzz_target!(|data: &[u8]| {
    let Ok(Decoded { message, channels }) = msgpack::decode(data, JSON_BYTES_MAX) else { return };
    assert!(message.raw().len() <= JSON_BYTES_MAX, "{} bytes of JSON", message.raw().len());
    no_beginning_is_accepted(data, |part| msgpack::decode(part, JSON_BYTES_MAX).is_ok());
    let names: Vec<&str> = channels.iter().map(String::as_str).collect();
    let again = match msgpack::encode(&message, &To::Several(&names)) {
        Ok(bytes) => msgpack::decode(&bytes, JSON_BYTES_MAX).expect("what we write can be read"),
        // A number that no other reader could take cannot have come from MessagePack.
        Err(error) => panic!("{message:?} cannot be written: {error}"),
    };
    assert_eq!(again, Decoded { message: message.clone(), channels });
    let reserved = msgpack::encode(&message, &To::Nobody).and_then(|bytes| msgpack::decode(&bytes, JSON_BYTES_MAX));
    assert!(!matches!(reserved, Err(CodecError::Reserved)), "the key of the channels is left in the message");
});
