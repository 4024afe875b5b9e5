//! Frames of WebSocket, as a client writes them: RFC 6455, and the same wherever the network cuts them.

#![no_main]

use std::borrow::Cow;

use groupcast_protocol::websocket::reader::{Incoming, ReadLimits, Reader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [settings, cut, stream @ ..] = data else { return };
    let limits = ReadLimits { message_bytes_max: 500, fragments_max: 8, deflate: settings & 1 == 1 };
    let whole = read(stream, stream.len().max(1), &limits);
    for piece in [1, usize::from(*cut).max(1)] {
        let pieces = read(stream, piece, &limits);
        assert_eq!(kinds(&pieces), kinds(&whole), "in pieces of {piece}");
    }
    whole.iter().for_each(|incoming| check(incoming, &limits));
    // A payload that we write is read as it was, also behind what came before it.
    if !settings & 2 == 0 {
        let framed = masked(stream, [*cut, 7, *settings, 0]);
        let limits = ReadLimits { message_bytes_max: stream.len(), ..limits };
        assert_eq!(read(&framed, framed.len(), &limits), [Incoming::Binary(Cow::Borrowed(stream))]);
    }
});

/// What comes of a stream that arrives in pieces of this size.
fn read(stream: &[u8], piece: usize, limits: &ReadLimits) -> Vec<Incoming<'static>> {
    let (mut reader, mut all) = (Reader::default(), Vec::new());
    for piece in stream.chunks(piece) {
        let mut scratch = piece.to_vec();
        let mut input = &mut scratch[..];
        while let Some(incoming) = reader.next(&mut input, limits) {
            let is_over = matches!(incoming, Incoming::Close(..) | Incoming::Broken(..));
            all.push(owned(incoming));
            if is_over {
                return all;
            }
        }
        assert!(input.is_empty(), "something is left unread");
    }
    all
}

fn check(incoming: &Incoming<'_>, limits: &ReadLimits) {
    match incoming {
        Incoming::Text(text) => assert!(text.len() <= limits.message_bytes_max),
        Incoming::Binary(bytes) => assert!(bytes.len() <= limits.message_bytes_max),
        Incoming::Deflated { payload, .. } => {
            assert!(limits.deflate && payload.len() <= limits.message_bytes_max);
        }
        Incoming::Ping(payload) => assert!(payload.len() <= 125),
        Incoming::Close(code, reason) => {
            assert!(reason.len() <= 123);
            assert!(code.is_none_or(|code| code >= 1000 && !matches!(code, 1004..=1006 | 1015..=2999)));
        }
        // RFC 6455, section 7.4.1: what may be sent.
        Incoming::Broken(code, _) => assert!(matches!(code.as_u16(), 1002 | 1007 | 1008 | 1009)),
        Incoming::Part { .. } | Incoming::Pong => {}
    }
}

/// The words of a refusal may differ with what has come of a frame; its code may not.
fn kinds(all: &[Incoming<'static>]) -> Vec<Incoming<'static>> {
    let kind = |incoming: &Incoming<'static>| match incoming {
        Incoming::Broken(code, _) => Incoming::Broken(*code, String::new()),
        other => other.clone(),
    };
    all.iter().map(kind).collect()
}

fn owned(incoming: Incoming<'_>) -> Incoming<'static> {
    match incoming {
        Incoming::Text(text) => Incoming::Text(Cow::Owned(text.into_owned())),
        Incoming::Binary(bytes) => Incoming::Binary(Cow::Owned(bytes.into_owned())),
        Incoming::Deflated { text, payload } => Incoming::Deflated { text, payload: Cow::Owned(payload.into_owned()) },
        Incoming::Part { empty } => Incoming::Part { empty },
        Incoming::Ping(payload) => Incoming::Ping(Cow::Owned(payload.into_owned())),
        Incoming::Pong => Incoming::Pong,
        Incoming::Close(code, reason) => Incoming::Close(code, Cow::Owned(reason.into_owned())),
        Incoming::Broken(code, reason) => Incoming::Broken(code, reason),
    }
}

/// A binary message as a client sends it (RFC 6455, section 5.2).
fn masked(payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0x82];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 126);
            frame.extend((long as u16).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
