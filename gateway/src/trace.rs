//! The headers of W3C Trace Context: read of requests that come, written on those that go.
//!
//! What they mean is `protocol`'s. Where they are not valid they are ignored, and nobody hears of it.

use std::sync::Arc;

use groupcast_protocol::trace::{TRACEPARENT, TRACESTATE};
use groupcast_protocol::{Trace, TraceContext};
use http::{HeaderMap, HeaderValue};

use crate::telemetry::Scope;

/// The trace that a request belongs to. Two `traceparent` are as good as none; several `tracestate` are one list (W3C Trace
/// Context, sections 3.2 and 3.3.1).
pub(crate) fn of_headers(headers: &HeaderMap) -> Trace {
    let mut parents = headers.get_all(TRACEPARENT).into_iter();
    let parent = parents.next()?;
    if parents.next().is_some() {
        return None;
    }
    let states: Vec<&[u8]> = headers.get_all(TRACESTATE).iter().map(|value| value.as_bytes()).collect();
    let state = (!states.is_empty()).then(|| states.join(&b','));
    TraceContext::parse(parent.as_bytes(), state.as_deref()).map(Arc::new)
}

/// The trace that a request is answered in: the one that was begun for it, or the one that it names.
pub(crate) fn of_request(headers: &HeaderMap) -> Trace {
    Scope::current().unwrap_or_else(|| of_headers(headers))
}

/// What tells whoever is asked which trace it is for; nothing without one.
pub(crate) fn headers(trace: &Trace) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Some(trace) = trace else { return headers };
    let value = |text: &str| HeaderValue::from_str(text).expect("a trace is visible ASCII and spaces");
    headers.insert(TRACEPARENT, value(&trace.traceparent()));
    if let Some(state) = trace.tracestate() {
        headers.insert(TRACESTATE, value(state));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn told(lines: &[(&'static str, &[u8])]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value).expect("a value"));
        }
        of_headers(&headers).map(|trace| trace.to_string())
    }

    #[test]
    fn what_is_sent_is_read() {
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[("traceparent", PARENT.as_bytes())]).as_deref(), Some(PARENT));
        let states = [("traceparent", PARENT.as_bytes()), ("tracestate", b"a=1"), ("tracestate", b"b=2, c=3")];
        assert_eq!(told(&states), Some(format!("{PARENT} a=1,b=2,c=3")));
    }

    #[test]
    fn what_is_not_valid_is_ignored() {
        assert_eq!(told(&[("traceparent", PARENT.as_bytes()), ("traceparent", PARENT.as_bytes())]), None);
        assert_eq!(told(&[("tracestate", b"a=1")]), None);
        assert_eq!(told(&[("traceparent", b"\xff0-\x80")]), None);
        let long = vec![b'x'; 8192];
        for state in [b"\xe9=1".as_slice(), b"", &long] {
            assert_eq!(told(&[("traceparent", PARENT.as_bytes()), ("tracestate", state)]).as_deref(), Some(PARENT));
        }
    }

    #[test]
    fn what_was_read_is_written() {
        let context = TraceContext::parse(PARENT, Some(b"a=1 b,c=d")).map(Arc::new);
        let headers = headers(&context);
        assert_eq!(headers["traceparent"], PARENT);
        assert_eq!(headers["tracestate"], "a=1 b,c=d");
        assert_eq!(of_headers(&headers), context);
        assert!(super::headers(&None).is_empty());
    }
}
