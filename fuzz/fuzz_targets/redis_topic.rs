//! Names of topics that a Redis server pushes, below a prefix that may be any text.

#![no_main]

use groupcast_channel_layer::broker::redis::fuzzing as redis;
use groupcast_fuzz::{head, text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (prefix, topic) = head(data);
    let Some(prefix) = text(prefix) else { return };
    let Some((group, again)) = redis::group(prefix, topic) else { return };
    assert_eq!(again.as_bytes(), topic, "{group} has another topic");
});
