//! The traces of a record's messages, as headers of the stored message: gateways that do not know them read the record as
//! it is.
//!
//! ```text
//! Groupcast-Trace: 0 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
//! Groupcast-Trace: 2 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 rojo=00f067aa0ba902b7
//! ```
//!
//! The number is the message's place in the record, from 0. W3C's own names are of one trace, and a record has many messages.

use std::sync::Arc;

use async_nats::header::{HeaderMap, HeaderName};
use groupcast_protocol::{Message, TraceContext};

const NAME: HeaderName = HeaderName::from_static("Groupcast-Trace");

/// What the header of one trace has beside its `tracestate`, and some.
const HEADER: usize = 100;

/// What goes with messages that are stored together; nothing for those without a trace. Where there is no room for all, none:
/// a message is not refused for its trace.
pub(super) fn headers(messages: &[Message], room: usize) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if messages.iter().map(bytes).sum::<usize>() > room {
        return headers;
    }
    for (at, message) in messages.iter().enumerate() {
        if let Some(trace) = message.trace() {
            headers.append(NAME, format!("{at} {trace}"));
        }
    }
    headers
}

/// At most so many bytes a message's trace takes.
pub(super) fn bytes(message: &Message) -> usize {
    let size = |trace: &TraceContext| HEADER + trace.tracestate().map_or(0, str::len);
    message.trace().as_deref().map_or(0, size)
}

/// Gives messages the traces that came with them. What makes no sense, or is about none of them, is passed over.
pub(super) fn give(messages: &mut [Message], headers: Option<&HeaderMap>) {
    let traces = headers.into_iter().flat_map(|headers| headers.get_all(NAME)).filter_map(|text| read(text.as_str()));
    for (at, trace) in traces {
        if let Some(message) = messages.get_mut(at) {
            *message = message.clone().with_trace(Some(Arc::new(trace)));
        }
    }
}

fn read(text: &str) -> Option<(usize, TraceContext)> {
    let (at, trace) = text.split_once(' ')?;
    Some((at.parse().ok()?, TraceContext::from_text(trace)?))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 a=b";

    fn messages() -> Vec<Message> {
        let message = Message::parse(Bytes::from_static(br#"{"type":"a"}"#)).expect("a valid message");
        vec![message; 3]
    }

    #[test]
    fn each_message_gets_its_own() {
        let trace = TraceContext::from_text(TRACE).map(Arc::new);
        let mut sent = messages();
        sent[2] = sent[2].clone().with_trace(trace);
        let room = bytes(&sent[2]);
        let headers = headers(&sent, room);
        let mut read = messages();
        give(&mut read, Some(&headers));
        assert_eq!(read, sent);
        let line = headers.get(NAME).expect("it is there").as_str().len() + "Groupcast-Trace: \r\n".len();
        assert!(line + "255".len() <= room, "{line}");
        assert!(self::headers(&messages(), 0).is_empty(), "there is none");
        assert!(self::headers(&sent, room - 1).is_empty(), "there is no room");
    }

    #[test]
    fn what_makes_no_sense_is_passed_over() {
        let mut headers = HeaderMap::new();
        for text in ["", "0", "0 00-ab", &format!("3 {TRACE}"), &format!("-1 {TRACE}"), TRACE] {
            headers.append(NAME, text);
        }
        let mut read = messages();
        give(&mut read, Some(&headers));
        assert_eq!(read, messages());
        give(&mut read, None);
        assert_eq!(read, messages());
    }
}
