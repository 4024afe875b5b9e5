//! No input panics, and what is written is read as the same.
//!
//! A failure prints the input, shrunk, and the seed; `PROPTEST_RNG_SEED=…` repeats it, `PROPTEST_CASES=…` tries more.

mod frames;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::asgi;
use crate::close::CloseCode;
use crate::envelope::Position;
use crate::error::{ErrorCode, Refusal};
use crate::frame::{
    ClientFrame, Refused, Request, RequestId, ServerFrame, encode_channel_message, encode_group_message,
    frame_group_message,
};
use crate::id::Id;
use crate::message::Message;
use crate::names::{ChannelName, GroupName, NodeId, Pattern};
use crate::raw_object::RawObject;
use crate::session::{Answer, Limits, Output, Session, Ticket};
use crate::trace::{STATE_LEN_MAX, TraceContext};
use crate::websocket;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn client_frames_come_back(frame in frames::client_frame()) {
        prop_assert_eq!(ClientFrame::decode(text(&frame.encode()), usize::MAX), Ok(frame));
    }

    #[test]
    fn server_frames_come_back(frame in frames::server_frame()) {
        let encoded = frame.encode();
        let decoded = ServerFrame::decode(text(&encoded));
        prop_assert_eq!(decoded.map_err(|error| error.to_string()), Ok(frame), "{:?}", encoded);
    }

    #[test]
    fn spliced_frames_are_one_json_object(group in frames::group(), channel in frames::channel(),
                                          offset in any::<Option<u64>>(), message in frames::message()) {
        for encoded in [encode_group_message(&group, offset, &message), encode_channel_message(&channel, &message)] {
            let value: serde_json::Value = serde_json::from_slice(&encoded).expect("JSON");
            let inner: serde_json::Value = serde_json::from_slice(message.raw()).expect("JSON");
            prop_assert_eq!(&value["message"], &inner);
        }
        let framed = frame_group_message(&group, offset, &message);
        prop_assert_eq!(websocket::payload(&framed), &encode_group_message(&group, offset, &message)[..]);
    }

    #[test]
    fn what_a_service_is_asked_has_the_message_in_it(group in frames::group(), message in frames::message()) {
        let event = asgi::Event::Receive { channel: None, user: None, group: &group, message: &message };
        let value: serde_json::Value = serde_json::from_slice(&event.encode()).expect("JSON");
        let inner: serde_json::Value = serde_json::from_slice(message.raw()).expect("JSON");
        prop_assert_eq!(&value["message"], &inner);
        let answer = format!(r#"{{"type":"websocket.send","message":{}}}"#, message.as_str());
        let actions = asgi::decode(answer.as_bytes()).expect("it can be answered");
        prop_assert_eq!(actions, [asgi::Action::Send(message)]);
    }

    #[test]
    fn positions_come_back(position in frames::position()) {
        prop_assert_eq!(position.to_string().parse(), Ok(position));
    }

    #[test]
    fn ids_come_back(unix_ms in 0..1u64 << 48, random in any::<u128>()) {
        let id = Id::new(unix_ms, random);
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        prop_assert_eq!(Id::from_bytes(id.to_bytes()), id);
        prop_assert_eq!(id.unix_ms(), unix_ms);
    }

    #[test]
    fn traces_come_back(context in trace()) {
        let state = context.tracestate().map(str::as_bytes);
        prop_assert_eq!(TraceContext::parse(context.traceparent(), state), Some(context.clone()));
        prop_assert_eq!(TraceContext::from_text(&context.to_string()), Some(context));
    }

    #[test]
    fn what_is_taken_for_a_trace_is_a_header(parent in hostile_parent(), state in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Some(context) = TraceContext::parse(&parent, Some(&state)) {
            prop_assert_eq!(context.traceparent().len(), 55);
            let text = context.to_string();
            prop_assert!(text.len() <= 56 + STATE_LEN_MAX && text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{:?}", text);
            prop_assert!(parent.windows(32).any(|part| text.as_bytes()[3..35] == *part), "{:?}", text);
        }
    }

    #[test]
    fn no_text_panics(text in hostile_text()) {
        let _ = ClientFrame::decode(&text, 100);
        let _ = ServerFrame::decode(&text);
        let _ = GroupName::parse(&text);
        let _ = ChannelName::parse(&text);
        let _ = NodeId::parse(&text);
        let _ = Pattern::parse(&text);
        let _ = text.parse::<Id>();
        let _ = text.parse::<Position>();
        let _ = websocket::is_key(&text);
        let _ = websocket::offer([text.as_str()]);
        let _ = websocket::close(CloseCode::Policy, &text);
        let _ = asgi::decode(text.as_bytes());
        let _ = TraceContext::from_text(&text);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = asgi::decode(&bytes);
        let _ = Message::parse(Bytes::from(bytes.clone()));
        let _ = RawObject::parse(Bytes::from(bytes));
    }

    #[test]
    fn an_accepted_message_is_what_every_reader_takes(text in hostile_text()) {
        if let Ok(message) = Message::parse(Bytes::from(text)) {
            let value: serde_json::Result<serde_json::Value> = serde_json::from_str(message.as_str());
            // The syntax is checked, numbers and lone surrogates beyond what a tree can hold are passed on.
            if let Ok(value) = value {
                prop_assert_eq!(value["type"].as_str(), Some(message.kind()));
            }
        }
    }

    #[test]
    fn a_session_keeps_its_promises(inputs in prop::collection::vec(input(), 0..60)) {
        let mut driver = Driver::new();
        for input in inputs {
            driver.feed(input);
            driver.check();
        }
        driver.finish();
    }
}

/// What can happen to a session.
#[derive(Debug, Clone)]
enum Input {
    Text(String),
    Binary,
    Pong,
    Wait(u16),
    /// Answers one of the running commands, fittingly or not.
    Complete(prop::sample::Index, Option<u8>),
    Added(GroupName),
    Removed(GroupName),
    Drain,
}

fn input() -> impl Strategy<Value = Input> {
    let frame = frames::client_frame().prop_map(|frame| text(&frame.encode()).to_owned());
    prop_oneof![
        8 => frame.prop_map(Input::Text),
        1 => hostile_text().prop_map(Input::Text),
        1 => Just(Input::Pong),
        1 => (0..40u16).prop_map(Input::Wait),
        8 => (any::<prop::sample::Index>(), any::<Option<u8>>()).prop_map(|(at, kind)| Input::Complete(at, kind)),
        1 => frames::few_groups().prop_map(Input::Added),
        1 => frames::few_groups().prop_map(Input::Removed),
        1 => prop_oneof![9 => Just(Input::Pong), 1 => Just(Input::Drain), 1 => Just(Input::Binary)],
    ]
}

fn trace() -> impl Strategy<Value = TraceContext> {
    let id = any::<([u8; 16], [u8; 8], bool)>();
    let member = ("[a-z][a-z0-9@_*/-]{0,6}", "[!-+.-<>-~]([ -+.-<>-~]{0,5}[!-+.-<>-~])?")
        .prop_map(|(key, value)| format!("{key}={value}"));
    (id, prop::collection::vec(member, 0..33)).prop_filter_map(
        "an id is not zero",
        |((trace, parent, sampled), state)| {
            let context = TraceContext::new(trace, parent, sampled)?;
            TraceContext::parse(context.traceparent(), Some(state.join(",").as_bytes()))
        },
    )
}

/// A header with one byte changed, or with something behind it.
fn hostile_parent() -> impl Strategy<Value = Vec<u8>> {
    let whole = || trace().prop_map(|context| context.traceparent().into_bytes());
    let broken = (whole(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut header, at, byte)| {
        let at = at.index(header.len());
        header[at] = byte;
        header
    });
    let later = (whole(), "[0-9a-f]{2}", "(-.{0,20})?").prop_map(|(mut header, version, tail)| {
        header[..2].copy_from_slice(version.as_bytes());
        header.extend(tail.bytes());
        header
    });
    prop_oneof![broken, later]
}

/// Arbitrary text, text made of the pieces of frames, and real frames with one character changed.
fn hostile_text() -> impl Strategy<Value = String> {
    let pieces: Vec<&str> = vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\",
        "\\u",
        "d800",
        "null",
        "true",
        "1",
        "-",
        "1e999",
        ".5",
        " ",
        "\n",
        "\u{feff}",
        "é",
        "\"type\"",
        "\"id\"",
        "\"group\"",
        "\"message\"",
        "\"after\"",
        "\"subscribe\"",
        "\"ping\"",
        "{\"type\":\"",
        "\"epoch\"",
        "\"offset\"",
    ];
    let soup = prop::collection::vec(prop::sample::select(pieces), 0..40).prop_map(|pieces| pieces.concat());
    let whole = prop_oneof![
        frames::client_frame().prop_map(|frame| text(&frame.encode()).to_owned()),
        frames::server_frame().prop_map(|frame| text(&frame.encode()).to_owned()),
    ];
    let broken = (whole, any::<prop::sample::Index>(), any::<char>()).prop_map(|(frame, at, other)| {
        let at = at.index(frame.chars().count());
        frame.chars().enumerate().map(|(n, c)| if n == at { other } else { c }).collect()
    });
    prop_oneof![any::<String>(), soup, broken]
}

/// Drives a session as the gateway would, and knows what must hold.
struct Driver {
    session: Session,
    now: Instant,
    running: Vec<(Ticket, Answer)>,
    /// Whether what runs must run alone.
    barrier: bool,
    /// The `id` of each message that is not answered, in order; pings stand apart.
    unanswered: VecDeque<Option<RequestId>>,
    pongs: usize,
    closed: bool,
}

impl Driver {
    fn new() -> Self {
        let now = Instant::now();
        let limits = Limits { subscriptions_max: 3, in_flight_max: 5, ..Limits::default() };
        let channel = ChannelName::parse("specific.gw1!c12").expect("valid");
        let mut session = Session::new(channel, None, limits, now);
        session.poll().expect("welcome");
        Self { session, now, running: Vec::new(), barrier: false, unanswered: VecDeque::new(), pongs: 0, closed: false }
    }

    fn feed(&mut self, input: Input) {
        match input {
            Input::Text(text) if self.session.wants_input() => {
                self.session.on_text(&text, self.now);
                match ClientFrame::decode(&text, Limits::default().message_bytes_max) {
                    Ok(ClientFrame { request: Request::Ping, .. }) => self.pongs += 1,
                    Ok(ClientFrame { id, .. }) | Err(Refused { id, .. }) => self.unanswered.push_back(id),
                }
            }
            Input::Text(_) => {}
            Input::Binary => self.session.on_binary(),
            Input::Pong => self.session.on_control(self.now),
            Input::Wait(seconds) => {
                self.now += Duration::from_secs(u64::from(seconds));
                self.session.handle_timeout(self.now);
            }
            Input::Complete(_, _) if self.running.is_empty() => {}
            Input::Complete(at, fits) => {
                let at = at.index(self.running.len());
                let (ticket, answer) = self.running.remove(at);
                let refusal = Refusal::new(ErrorCode::Unavailable, "no");
                self.session.complete(ticket, if fits.is_some() { Ok(answer) } else { Err(refusal) });
            }
            Input::Added(group) => self.session.added(group),
            Input::Removed(group) => self.session.removed(&group),
            Input::Drain => self.session.drain(1),
        }
    }

    fn check(&mut self) {
        while let Some(output) = self.session.poll() {
            assert!(!self.closed, "{output:?} after the close");
            match output {
                Output::Send(frame) => {
                    self.on_frame(ServerFrame::decode(text(&frame)).expect("a frame of the protocol"));
                }
                Output::Execute(ticket, command) => {
                    let barrier = frames::is_barrier(&command);
                    assert!(self.running.is_empty() || !(barrier || self.barrier), "{command:?} starts alone");
                    self.barrier = barrier;
                    self.running.push((ticket, frames::answer_to(&command)));
                }
                Output::Ping | Output::Forward(_) | Output::Refused(..) => {}
                Output::Close(_, _) => self.closed = true,
            }
        }
        assert!(self.session.subscriptions().count() <= 3 + 3, "three of the client, three of the server side");
        assert!(self.running.len() <= 5);
    }

    fn on_frame(&mut self, frame: ServerFrame) {
        if let ServerFrame::Pong { .. } = frame {
            self.pongs -= 1;
        } else if let Some(id) = answered(frame) {
            assert_eq!(self.unanswered.pop_front(), Some(id), "answers come in the order of the commands");
        }
    }

    /// Everything that was asked is answered once.
    fn finish(mut self) {
        while let Some((ticket, answer)) = self.running.pop() {
            self.session.complete(ticket, Ok(answer));
            self.check();
        }
        if !self.closed {
            assert!(self.session.is_idle() && self.session.wants_input());
            assert_eq!((self.unanswered.len(), self.pongs), (0, 0));
        }
    }
}

/// The `id` of an answer; `None` for a push. (Pushes of subscriptions are told apart by their group: the commands of
/// these tests and the server side use different ones.)
fn answered(frame: ServerFrame) -> Option<Option<RequestId>> {
    match frame {
        ServerFrame::Subscribed { id: None, group, .. } | ServerFrame::Unsubscribed { id: None, group } => {
            (!frames::is_few(&group)).then_some(None)
        }
        ServerFrame::Subscribed { id, .. }
        | ServerFrame::SubscribedQuery { id, .. }
        | ServerFrame::Unsubscribed { id, .. }
        | ServerFrame::Accepted { id, .. }
        | ServerFrame::Cancelled { id, .. }
        | ServerFrame::Members { id, .. }
        | ServerFrame::History { id, .. }
        | ServerFrame::Authenticated { id, .. }
        | ServerFrame::Error { id, .. } => Some(id),
        _ => None,
    }
}

/// The seed is printed, which shows when a test fails, and taken from the environment.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(RandomState::new().hash_one(()));
    }
    eprintln!("PROPTEST_RNG_SEED={}", config.rng_seed);
    config
}

fn text(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).expect("frames are text")
}
