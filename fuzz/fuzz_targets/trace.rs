//! The headers of W3C Trace Context: a line with `traceparent`, and behind it `tracestate`, if there is one.

#![no_main]

use groupcast_protocol::TraceContext;
use groupcast_protocol::trace::{STATE_LEN_MAX, STATE_MEMBERS_MAX};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let (parent, state) = (lines.next().unwrap_or_default(), lines.next());
    let Some(context) = TraceContext::parse(parent, state) else {
        assert!(TraceContext::parse(parent, None).is_none(), "a bad tracestate is dropped alone");
        return;
    };
    let header = context.traceparent();
    assert!(header.len() == 55 && header.starts_with("00-"));
    assert_eq!(header.as_bytes()[2..52], parent[2..52], "trace and parent are as they were");
    assert!(context.trace_id() != [0; 16] && context.parent_id() != [0; 8]);
    assert_eq!(TraceContext::parse(&header, context.tracestate().map(str::as_bytes)).as_ref(), Some(&context));
    let text = context.to_string();
    assert_eq!(TraceContext::from_text(&text).as_ref(), Some(&context));
    // It goes into a header, a column and, with other white space, into an envelope.
    assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{text:?}");
    if let Some(state) = context.tracestate() {
        assert!(state.len() <= STATE_LEN_MAX && state.split(',').count() <= STATE_MEMBERS_MAX);
        assert!(state.split(',').all(|member| member.contains('=') && member.trim() == member), "{state:?}");
    }
});
