//! The trace context of W3C: which trace a request belongs to, so that what becomes of it elsewhere can be told as one story.
//!
//! Carried as it is given, from whoever publishes to whoever does the work. Nothing here, nor where it is carried, decides
//! by it; what is wrong with one is ignored, as the standard says, and its sender never hears of it.
//!
//! ```text
//! traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
//!              |  trace id, 16 bytes               parent id, 8      flags
//!              version
//! tracestate: rojo=00f067aa0ba902b7,congo=t61rcWkgMzE
//! ```

use std::fmt;
use std::sync::Arc;

/// The header that names trace and parent.
pub const TRACEPARENT: &str = "traceparent";

/// The header in which the systems on the way keep what is theirs.
pub const TRACESTATE: &str = "tracestate";

/// Characters of a `traceparent` of the version that we write.
const PARENT_LEN: usize = 55;

/// The most bytes of a `tracestate` that are kept: what the standard asks everybody to carry at least. A longer one is dropped.
pub const STATE_LEN_MAX: usize = 512;

/// The most members of a `tracestate`, by the standard.
pub const STATE_MEMBERS_MAX: usize = 32;

/// Flag: who is before us may have recorded the request.
const SAMPLED: u8 = 0b01;

/// Flag of the standard's second level: the trace id's end is random. It stays true while the trace id does.
const RANDOM: u8 = 0b10;

/// What a message carries of its trace: nothing for most, and then a null pointer is all it costs.
pub type Trace = Option<Arc<TraceContext>>;

/// A trace, and the span of it that asked (W3C Trace Context, level 1).
///
/// As text it is the `traceparent`, and behind one space the `tracestate`, if there is one. That is how it is stored:
///
/// ```text
/// 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 rojo=00f067aa0ba902b7
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    flags: u8,
    state: Option<Arc<str>>,
}

impl TraceContext {
    /// Reads the two headers. A `tracestate` that is none is dropped alone; without a valid `traceparent` there is nothing.
    ///
    /// A later version of the standard than ours is read as far as ours goes, and told on as ours (section 4.1, Versioning).
    pub fn parse(traceparent: impl AsRef<[u8]>, tracestate: Option<&[u8]>) -> Option<Self> {
        let mut context = parse_parent(traceparent.as_ref())?;
        context.state = tracestate.and_then(parse_state);
        Some(context)
    }

    /// Reads what [`fmt::Display`] has written, from a store that may hold anything.
    pub fn from_text(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            Some((parent, state)) => Self::parse(parent, Some(state.as_bytes())),
            None => Self::parse(text, None),
        }
    }

    /// A context of a trace that begins here.
    ///
    /// `None` when an id is all zeros, which the standard keeps for "none".
    pub fn new(trace_id: [u8; 16], parent_id: [u8; 8], sampled: bool) -> Option<Self> {
        let flags = if sampled { SAMPLED } else { 0 };
        valid(Self { trace_id, parent_id, flags, state: None })
    }

    /// What a span of this trace hands on: the same trace with the span as parent.
    ///
    /// `None` when the span's id is all zeros.
    pub fn with_parent(&self, span_id: [u8; 8], sampled: bool) -> Option<Self> {
        let flags = self.flags & !SAMPLED | if sampled { SAMPLED } else { 0 };
        valid(Self { parent_id: span_id, flags, ..self.clone() })
    }

    /// The trace's id, not all zeros.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The id of the span that asked, not all zeros.
    pub fn parent_id(&self) -> [u8; 8] {
        self.parent_id
    }

    /// Whether whoever asked may have recorded it.
    pub fn sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The flags that we know: bit 0 is `sampled`, bit 1 is `random` of the standard's second level.
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// The value of the header `traceparent`, 55 characters.
    pub fn traceparent(&self) -> String {
        Parent(self).to_string()
    }

    /// The value of the header `tracestate`: visible ASCII and spaces, at most [`STATE_LEN_MAX`] bytes.
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Parent(self).fmt(f)?;
        match &self.state {
            Some(state) => write!(f, " {state}"),
            None => Ok(()),
        }
    }
}

struct Parent<'a>(&'a TraceContext);

impl fmt::Display for Parent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TraceContext { trace_id, parent_id, flags, .. } = self.0;
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", u128::from_be_bytes(*trace_id), u64::from_be_bytes(*parent_id))
    }
}

fn valid(context: TraceContext) -> Option<TraceContext> {
    (context.trace_id != [0; 16] && context.parent_id != [0; 8]).then_some(context)
}

fn parse_parent(text: &[u8]) -> Option<TraceContext> {
    let (known, rest) = text.split_at_checked(PARENT_LEN)?;
    let [version] = hex(&known[..2])?;
    let known_flags = match (version, rest) {
        (0xff, _) => return None,
        (0, []) => SAMPLED | RANDOM,
        (0, _) => return None,
        (_, [] | [b'-', ..]) => SAMPLED,
        (_, _) => return None,
    };
    if known[2] != b'-' || known[35] != b'-' || known[52] != b'-' {
        return None;
    }
    let [flags] = hex(&known[53..])?;
    valid(TraceContext {
        trace_id: hex(&known[3..35])?,
        parent_id: hex(&known[36..52])?,
        flags: flags & known_flags,
        state: None,
    })
}

/// Lower case alone, by the standard.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Members apart by `,`, with the white space around them taken off; an empty one is passed over, as the standard allows.
fn parse_state(text: &[u8]) -> Option<Arc<str>> {
    // Before anything is copied: a header may have many kilobytes.
    if text.len() > STATE_LEN_MAX || !text.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let members: Vec<&str> = text.split(',').map(|member| member.trim_matches([' ', '\t'])).collect();
    let members: Vec<&str> = members.into_iter().filter(|member| !member.is_empty()).collect();
    let is_member = |member: &&str| {
        let parts = member.split_once('=');
        parts.is_some_and(|(key, value)| !key.is_empty() && !key.contains([' ', '\t']) && !value.contains(['=', '\t']))
    };
    if members.is_empty() || members.len() > STATE_MEMBERS_MAX || !members.iter().all(is_member) {
        return None;
    }
    Some(members.join(",").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parse(parent: &str, state: Option<&str>) -> Option<TraceContext> {
        TraceContext::parse(parent, state.map(str::as_bytes))
    }

    #[test]
    fn the_example_of_the_standard() {
        let context = parse(PARENT, Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")).expect("valid");
        assert_eq!(context.trace_id()[..3], [0x0a, 0xf7, 0x65]);
        assert_eq!(context.parent_id(), [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
        assert!(context.sampled());
        assert_eq!(context.traceparent(), PARENT);
        assert_eq!(context.tracestate(), Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"));
        assert_eq!(context.to_string(), format!("{PARENT} rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"));
        assert_eq!(TraceContext::from_text(&context.to_string()), Some(context));
    }

    #[test]
    fn only_flags_that_are_known_go_on() {
        let flags = |flags: &str| parse(&format!("{}{flags}", &PARENT[..53]), None).expect("valid").flags();
        assert_eq!((flags("00"), flags("01"), flags("03"), flags("ff")), (0, 1, 3, 3));
    }

    #[test]
    fn a_later_version_is_read_as_far_as_ours_goes() {
        for later in [
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what the future holds",
        ] {
            assert_eq!(parse(later, None).expect("valid").traceparent(), PARENT, "{later}");
        }
    }

    #[test]
    fn what_is_no_traceparent_is_ignored() {
        let zero_trace = PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32));
        let zero_parent = PARENT.replace("b7ad6b7169203331", &"0".repeat(16));
        for text in [
            "",
            "00",
            "é",
            &PARENT[..54],
            &format!("{PARENT}-"),
            &format!("{PARENT}-00"),
            &format!(" {PARENT}"),
            &PARENT.to_uppercase(),
            &PARENT.replacen("00-", "ff-", 1),
            &PARENT.replacen("00-", "0x-", 1),
            &PARENT.replacen("00-", "01-", 1).replace("-01", "-01.x"),
            &PARENT.replace('-', "_"),
            &PARENT.replace("b7ad", "b7aé"),
            &PARENT.replace("-01", "-0+"),
            &zero_trace,
            &zero_parent,
        ] {
            assert_eq!(parse(text, Some("a=b")), None, "{text:?}");
        }
    }

    #[test]
    fn a_tracestate_that_is_none_is_dropped_alone() {
        let members = |n: usize| (0..n).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let state = |text: &str| parse(PARENT, Some(text)).expect("valid").state;
        assert_eq!(state(" a=1 ,\t,b@c=x y,").as_deref(), Some("a=1,b@c=x y"));
        assert_eq!(state(&members(STATE_MEMBERS_MAX)).as_deref(), Some(&*members(STATE_MEMBERS_MAX)));
        let (fits, long) =
            (format!("a={}", "x".repeat(STATE_LEN_MAX - 2)), format!("a={}", "x".repeat(STATE_LEN_MAX - 1)));
        assert_eq!(state(&fits).as_deref(), Some(&*fits));
        for text in [
            "",
            ",",
            "a",
            "=b",
            "a b=c",
            "a=b=c",
            "a=b\tc",
            "a=\u{7f}",
            "a=b\r\nx: y",
            "a=é",
            &long,
            &members(STATE_MEMBERS_MAX + 1),
        ] {
            assert_eq!(state(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_span_hands_on_its_trace() {
        let context = parse(&PARENT.replace("-01", "-03"), Some("a=b")).expect("valid");
        let child = context.with_parent([7; 8], false).expect("valid");
        assert_eq!(child.traceparent(), "00-0af7651916cd43dd8448eb211c80319c-0707070707070707-02");
        assert_eq!(child.tracestate(), Some("a=b"));
        assert_eq!(context.with_parent([0; 8], true), None);
        assert_eq!(TraceContext::new([0; 16], [1; 8], true), None);
        assert!(TraceContext::new([1; 16], [1; 8], true).expect("valid").sampled());
    }

    #[test]
    fn it_costs_a_pointer_to_carry() {
        assert_eq!(size_of::<Trace>(), size_of::<usize>());
    }
}
