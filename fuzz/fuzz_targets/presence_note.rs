//! What gateways tell each other of who is in groups with presence.

#![no_main]

use bytes::Bytes;
use groupcast_channel_layer::reread_note;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let note = Bytes::copy_from_slice(data);
    let Some((written, groups, changes)) = reread_note(&note) else { return };
    assert!(groups + changes <= data.len());
    assert_eq!(reread_note(&written), Some((written.clone(), groups, changes)));
});
