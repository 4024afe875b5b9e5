//! A message: a JSON object with a `type`, kept as the bytes it came in.
//!
//! The payload is checked once, at the edge, and then passes through untouched: nothing rebuilds it.
//! What a `type` means is for consumers and clients.

use std::borrow::Cow;

use bytes::Bytes;

use crate::trace::Trace;

/// How deeply arrays and objects may nest: as deep as `serde_json` reads a tree. Others stop at a few hundred.
pub const DEPTH_MAX: usize = 127;

/// A JSON object with a non-empty string `type`, and the trace that it belongs to, if its sender named one.
///
/// Cheap to clone. The trace is no part of the bytes, and nobody who is sent the message sees it. The bytes are valid UTF-8 and valid JSON without surrounding white space:
///
/// ```text
/// {"type":"execute_query","queryset_id":7}
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    raw: Bytes,
    kind: Kind,
    trace: Trace,
}

/// Where the text of `type` is.
#[derive(Clone, PartialEq, Eq)]
enum Kind {
    /// In `raw`, between these positions: no escapes, so nothing is copied.
    Slice(u32, u32),
    /// Unescaped.
    Owned(Box<str>),
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Not UTF-8.
    #[error("the message is not UTF-8; encode it as UTF-8 JSON")]
    NotUtf8,
    /// JSON perhaps, but not an object.
    #[error("the message is not a JSON object; send an object with a string `type`")]
    NotAnObject,
    /// Not JSON, or `type` is missing, there twice or not a string.
    #[error("the message is not a JSON object with a string `type`: {0}")]
    Json(#[from] serde_json::Error),
    /// `type` is the empty string.
    #[error("the message's `type` is empty; name what the message is, as in {{\"type\":\"chat.message\"}}")]
    EmptyType,
    /// Nested more deeply than [`DEPTH_MAX`].
    #[error("the message nests deeper than {DEPTH_MAX} levels; flatten it")]
    TooDeep,
    /// Longer than the limit that the caller set.
    #[error("the message has {len} bytes, at most {max} are allowed; send a reference to large data instead")]
    TooLarge {
        /// Bytes of the message.
        len: usize,
        /// The limit.
        max: usize,
    },
}

impl Message {
    /// Checks bytes that came from outside; at most 4 GiB.
    ///
    /// # Errors
    /// When the bytes are not a JSON object with a non-empty string `type`, or nest too deeply.
    pub fn parse(raw: Bytes) -> Result<Self, MessageError> {
        let raw = trim(raw);
        if depth_exceeds(&raw, DEPTH_MAX) {
            return Err(MessageError::TooDeep);
        }
        // The parser would skip over bad UTF-8 in what it ignores, and take `["x"]` for a struct of one field.
        let text = std::str::from_utf8(&raw).map_err(|_| MessageError::NotUtf8)?;
        if !text.starts_with('{') {
            return Err(MessageError::NotAnObject);
        }
        let head: Head<'_> = serde_json::from_str(text)?;
        if head.kind.is_empty() {
            return Err(MessageError::EmptyType);
        }
        let kind = match head.kind {
            Cow::Borrowed(text) => {
                let start = text.as_ptr() as usize - raw.as_ptr() as usize;
                Kind::Slice(start as u32, (start + text.len()) as u32)
            }
            Cow::Owned(text) => Kind::Owned(text.into()),
        };
        Ok(Self { raw, kind, trace: None })
    }

    /// Like [`Message::parse`], for at most `max` bytes.
    ///
    /// # Errors
    /// As [`Message::parse`], and when there are more than `max` bytes.
    pub fn parse_within(raw: Bytes, max: usize) -> Result<Self, MessageError> {
        if raw.len() > max {
            return Err(MessageError::TooLarge { len: raw.len(), max });
        }
        Self::parse(raw)
    }

    /// The JSON text, as it came in.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The JSON text as a string.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.raw).expect("parse() accepted only UTF-8")
    }

    /// The value of `type`, never empty.
    pub fn kind(&self) -> &str {
        match &self.kind {
            Kind::Slice(start, end) => &self.as_str()[*start as usize..*end as usize],
            Kind::Owned(text) => text,
        }
    }

    /// The same message, as part of a trace.
    #[must_use]
    pub fn with_trace(self, trace: Trace) -> Self {
        Self { trace, ..self }
    }

    /// The trace that it belongs to, with the span that sent it.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Whether a consumer of `kind` means this message: Channels turns dots into underscores, so
    /// `execute.query` and `execute_query` are the same type.
    pub fn is_kind(&self, kind: &str) -> bool {
        same_kind(self.kind(), kind)
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether two types name the same handler: `.` and `_` are one character (Channels, `get_handler_name`).
pub fn same_kind(a: &str, b: &str) -> bool {
    let fold = |byte: u8| if byte == b'.' { b'_' } else { byte };
    a.len() == b.len() && a.bytes().map(fold).eq(b.bytes().map(fold))
}

#[derive(serde::Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

pub(crate) fn trim(raw: Bytes) -> Bytes {
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
    let start = raw.iter().position(|b| !blank(b)).unwrap_or(raw.len());
    let end = raw.iter().rposition(|b| !blank(b)).map_or(start, |at| at + 1);
    raw.slice(start..end)
}

/// Whether brackets outside of strings nest deeper than `max`. A guard before the real parser, which is iterative
/// over what it ignores and so would let any depth pass on to readers that are not.
pub(crate) fn depth_exceeds(raw: &[u8], max: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in raw {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Message, MessageError> {
        Message::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn the_mission_line_passes_untouched() {
        let message = parse(" {\"type\":\"execute_query\",\"queryset_id\":7}\n").expect("valid");
        assert_eq!(message.as_str(), r#"{"type":"execute_query","queryset_id":7}"#);
        assert_eq!(message.kind(), "execute_query");
    }

    #[test]
    fn an_escaped_type_is_read_as_what_it_means() {
        assert_eq!(parse(r#"{"a":[1,{"b":2}],"type":"a\u0062c"}"#).expect("valid").kind(), "abc");
    }

    #[test]
    fn dots_and_underscores_are_one() {
        assert!(parse(r#"{"type":"execute.query"}"#).expect("valid").is_kind("execute_query"));
        assert!(!parse(r#"{"type":"execute.query2"}"#).expect("valid").is_kind("execute_query"));
    }

    #[test]
    fn what_is_not_a_message_is_refused() {
        for text in [
            "{}",
            r#"{"type":7}"#,
            r#"{"type":null}"#,
            r#"{"type":"a","type":"b"}"#,
            r#"{"type":"a"} x"#,
            r#"{"type":"a",}"#,
            r#"{"type":"a"#,
        ] {
            assert!(matches!(parse(text), Err(MessageError::Json(_))), "{text}");
        }
        for text in ["", "null", "[]", "[\"a\"]", "7", "\"type\""] {
            assert!(matches!(parse(text), Err(MessageError::NotAnObject)), "{text}");
        }
        assert!(matches!(parse(r#"{"type":""}"#), Err(MessageError::EmptyType)));
        let latin1 = Bytes::from_static(b"{\"type\":\"a\",\"x\":\"\xff\"}");
        assert!(matches!(Message::parse(latin1), Err(MessageError::NotUtf8)));
    }

    #[test]
    fn depth_is_bounded_and_brackets_in_strings_do_not_count() {
        let nest = |n: usize| format!(r#"{{"type":"a","x":{}{}}}"#, "[".repeat(n), "]".repeat(n));
        assert!(parse(&nest(DEPTH_MAX - 1)).is_ok());
        assert!(matches!(parse(&nest(DEPTH_MAX)), Err(MessageError::TooDeep)));
        assert!(parse(&format!(r#"{{"type":"a","x":"{}\"["}}"#, "[".repeat(500))).is_ok());
    }

    #[test]
    fn size_is_bounded() {
        let raw = Bytes::from_static(br#"{"type":"a"}"#);
        assert!(Message::parse_within(raw.clone(), 12).is_ok());
        assert!(matches!(Message::parse_within(raw, 11), Err(MessageError::TooLarge { len: 12, max: 11 })));
    }
}
