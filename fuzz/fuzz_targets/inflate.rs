//! Compressed messages of clients (permessage-deflate): few bytes can stand for very many.

#![no_main]

use flate2::{Compress, Compression, FlushCompress};
use groupcast_channel_layer::deflate::Inflater;
use libfuzzer_sys::fuzz_target;

const BYTES_MAX: usize = 10_000;

fuzz_target!(|data: &[u8]| {
    let mut inflater = Inflater::default();
    let first = inflater.inflate(data, BYTES_MAX);
    if let Ok(out) = &first {
        assert!(out.len() <= BYTES_MAX && out.capacity() <= BYTES_MAX + 1, "it took more than it may");
        if let Some(less) = out.len().checked_sub(1) {
            assert!(inflater.inflate(data, less).is_err(), "the bound does not hold");
        }
    }
    // Nothing is left of the message before.
    assert_eq!(inflater.inflate(data, BYTES_MAX), first);
    let compressed = deflate(data);
    assert_eq!(inflater.inflate(&compressed, data.len()).as_deref(), Ok(data));
});

/// As a client does it (RFC 7692, section 7.2.1).
fn deflate(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 1000);
    let mut compress = Compress::new(Compression::default(), false);
    compress.compress_vec(payload, &mut out, FlushCompress::Sync).expect("there is room");
    let message = out.strip_suffix(&[0, 0, 0xFF, 0xFF]).expect("a sync flush ends so");
    message.to_vec()
}
