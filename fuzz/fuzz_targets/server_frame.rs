//! Frames of the gateway, as clients that are built on the protocol crate read them.

#![no_main]

use groupcast_fuzz::{no_beginning_is_accepted, text};
use groupcast_protocol::frame::ServerFrame;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(text) = text(data) else { return };
    let Ok(frame) = ServerFrame::decode(text) else { return };
    let encoded = frame.encode();
    let again = ServerFrame::decode(std::str::from_utf8(&encoded).expect("frames are text"));
    assert_eq!(again.map_err(|error| error.to_string()), Ok(frame), "{encoded:?}");
    no_beginning_is_accepted(text.trim_end().as_bytes(), |part| {
        std::str::from_utf8(part).is_ok_and(|part| ServerFrame::decode(part).is_ok())
    });
});
