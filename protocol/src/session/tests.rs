//! Inputs in, outputs out, and the time is a variable.

use super::*;
use crate::frame::{Accepted, HistoryEntry, HistoryPage, Recovery, Unrecovered};
use crate::id::Id;
use crate::message::Message;

const SEND: &str = r#"{"type":"group_send","group":"g","message":{"type":"m"}}"#;
const QUERY: &str = r#"{"type":"query","id":"q","name":"worst_routes"}"#;
const MEMBERS: &str = r#"{"type":"members","id":6,"group":"g"}"#;
const SUBSCRIBE: &str = r#"{"type":"subscribe","id":1,"group":"g"}"#;
const UNSUBSCRIBE: &str = r#"{"type":"unsubscribe","id":2,"group":"g"}"#;
const SUBSCRIBED: &str = r#"{"type":"subscribed","id":1,"group":"g"}"#;
const NOBODY: &str = r#"{"type":"members","id":6,"group":"g","members":[],"next":null}"#;

#[test]
fn the_first_frame_is_welcome() {
    let mut session = Session::new(channel("specific.gw1!c12"), None, Limits::default(), Instant::now());
    let welcome = r#"{"type":"welcome","protocol":"groupcast.v1","channel":"specific.gw1!c12","user":null}"#;
    assert_eq!(session.poll(), Some(Output::Send(welcome.into())));
    assert_eq!(session.poll(), None);
}

#[test]
fn a_subscription_begins_and_ends() {
    let mut it = Open::new();
    it.says(SUBSCRIBE).gives(["execute 0 Subscribe"]);
    it.completes(0, Ok(subscribed())).gives([SUBSCRIBED]);
    it.says(UNSUBSCRIBE).gives(["execute 1 Unsubscribe"]);
    it.completes(1, Ok(Answer::Unsubscribed)).gives([r#"{"type":"unsubscribed","id":2,"group":"g"}"#]);
    assert_eq!(it.session.subscriptions().count(), 0);
}

#[test]
fn a_query_is_subscribed_to_by_name_and_left_by_its_group() {
    let group = group("query.01JD8ZJ4M5E8RAX0V4C9QW2N7K");
    let mut it = Open::new();
    let ask = r#"{"type":"subscribe","id":1,"query":"worst_routes"}"#;
    it.says(ask).says(MEMBERS).gives(["execute 0 SubscribeQuery"]);
    assert!(it.session.check_new(&group).is_ok());
    let told = format!(r#"{{"type":"subscribed","id":1,"query":"worst_routes","group":"{group}"}}"#);
    it.session.complete(it.asked[0].0, Ok(Answer::SubscribedQuery { group: group.clone() }));
    it.session.forward("state".into());
    it.gives([told.as_str(), "execute 1 Members", "forward state"]);
    assert_eq!(it.session.check_new(&group).expect_err("it is in").code, ErrorCode::AlreadySubscribed);
    it.completes(1, Ok(nobody())).gives([NOBODY]);
    it.says(&format!(r#"{{"type":"unsubscribe","id":2,"group":"{group}"}}"#)).gives(["execute 2 Unsubscribe"]);
}

#[test]
fn the_group_of_a_query_is_nobodys_to_name() {
    let mut it = Open::new();
    it.says(r#"{"type":"subscribe","id":1,"group":"query.x"}"#).gives_error("forbidden", "1");
    let send = r#"{"type":"group_send","id":2,"group":"query.x","message":{"type":"m"}}"#;
    it.says(send).gives_error("forbidden", "2");
}

#[test]
fn queries_count_as_subscriptions() {
    let mut it = Open::with(Limits { subscriptions_max: 1, ..Limits::default() });
    it.subscribes();
    it.says(r#"{"type":"subscribe","id":9,"query":"q"}"#).gives_error("limit_exceeded", "9");
}

#[test]
fn position_and_recovery_are_told() {
    let position = Some(Position::new("x7", 40).expect("valid"));
    let cases = [
        (None, ""),
        (Some(Recovery::Recovered), r#","recovered":true"#),
        (Some(Recovery::Unrecovered(Unrecovered::Trimmed)), r#","recovered":false,"reason":"trimmed""#),
    ];
    for (recovery, tail) in cases {
        let mut it = Open::new();
        it.says(SUBSCRIBE).gives(["execute 0 Subscribe"]);
        let told = format!(r#"{{"type":"subscribed","id":1,"group":"g","epoch":"x7","offset":40{tail}}}"#);
        it.completes(0, Ok(Answer::Subscribed { position: position.clone(), recovery })).gives([told.as_str()]);
    }
}

#[test]
fn a_refused_subscription_is_none() {
    let mut it = Open::new();
    it.says(SUBSCRIBE).gives(["execute 0 Subscribe"]);
    let refusal = Refusal::new(ErrorCode::Forbidden, "not you");
    let told = r#"{"type":"error","id":1,"code":"forbidden","message":"not you","retriable":false}"#;
    it.completes(0, Err(refusal)).gives([told]);
    it.says(UNSUBSCRIBE).gives_error("not_subscribed", "2");
    it.says(SUBSCRIBE).gives(["execute 2 Subscribe"]);
}

#[test]
fn who_is_in_cannot_come_in_and_who_is_out_cannot_leave() {
    let mut it = Open::new();
    it.says(UNSUBSCRIBE).gives_error("not_subscribed", "2");
    it.subscribes();
    it.says(SUBSCRIBE).gives_error("already_subscribed", "1");
}

#[test]
fn the_check_is_made_when_the_command_starts() {
    let mut it = Open::new();
    it.says(SUBSCRIBE).says(SUBSCRIBE).gives(["execute 0 Subscribe"]);
    it.completes(0, Ok(subscribed()));
    assert_eq!(it.outputs()[0], SUBSCRIBED);
    it.says(UNSUBSCRIBE).says(SUBSCRIBE).gives(["execute 2 Unsubscribe"]);
    it.completes(2, Ok(Answer::Unsubscribed))
        .gives([r#"{"type":"unsubscribed","id":2,"group":"g"}"#, "execute 3 Subscribe"]);
}

#[test]
fn subscriptions_are_bounded() {
    let mut it = Open::with(Limits { subscriptions_max: 1, ..Limits::default() });
    it.subscribes();
    it.says(r#"{"type":"subscribe","id":9,"group":"other"}"#).gives_error("limit_exceeded", "9");
}

#[test]
fn groups_of_the_address_are_subscribed_without_an_id() {
    let mut it = Open::new();
    let after = Some(Position::new("x7", 40).expect("valid"));
    it.session.subscribe_at_open(group("a"), after);
    it.session.subscribe_at_open(group("b"), None);
    it.gives(["execute 0 Subscribe"]);
    assert!(matches!(&it.asked[0].1, Command::Subscribe { after: Some(_), .. }));
    it.completes(0, Ok(subscribed())).gives([r#"{"type":"subscribed","group":"a"}"#, "execute 1 Subscribe"]);
}

#[test]
fn commands_run_side_by_side_and_are_answered_in_order() {
    let mut it = Open::new();
    it.says(SEND).says(MEMBERS).gives(["execute 0 GroupSend", "execute 1 Members"]);
    it.completes(1, Ok(nobody())).gives([]);
    it.completes(0, Ok(Answer::Accepted(accepted()))).gives([ACCEPTED, NOBODY]);
}

#[test]
fn a_subscribe_waits_for_what_is_before_and_holds_back_what_is_after() {
    let mut it = Open::new();
    it.says(MEMBERS).says(SUBSCRIBE).says(MEMBERS).gives(["execute 0 Members"]);
    it.completes(0, Ok(nobody())).gives([NOBODY, "execute 1 Subscribe"]);
    it.completes(1, Ok(subscribed())).gives([SUBSCRIBED, "execute 2 Members"]);
}

#[test]
fn a_bad_command_is_answered_in_its_place() {
    let mut it = Open::new();
    it.says(MEMBERS).says(r#"{"type":"dance","id":7}"#).says(MEMBERS).gives(["execute 0 Members", "execute 2 Members"]);
    it.completes(2, Ok(nobody())).gives([]);
    it.completes(0, Ok(nobody()));
    let outputs = it.outputs();
    assert_eq!((outputs[0].as_str(), outputs[2].as_str()), (NOBODY, NOBODY));
    assert!(outputs[1].starts_with(r#"{"type":"error","id":7,"code":"unknown_type""#), "{outputs:?}");
}

#[test]
fn a_bad_command_behind_a_running_subscribe_waits_for_it() {
    let mut it = Open::new();
    it.says(SUBSCRIBE).says("nonsense").gives(["execute 0 Subscribe"]);
    it.completes(0, Ok(subscribed()));
    let outputs = it.outputs();
    assert_eq!(outputs[0], SUBSCRIBED);
    assert!(outputs[1].starts_with(r#"{"type":"error","code":"bad_request""#), "{outputs:?}");
}

#[test]
fn ping_overtakes() {
    let mut it = Open::new();
    it.says(SUBSCRIBE)
        .says(r#"{"type":"ping","id":"x"}"#)
        .gives(["execute 0 Subscribe", r#"{"type":"pong","id":"x"}"#]);
}

#[test]
fn every_other_answer_has_its_frame() {
    let job = Id::new(1, 2);
    let entry = HistoryEntry { offset: 41, message: message() };
    let page = HistoryPage { epoch: Some("x7".into()), messages: vec![entry], next: Some(41) };
    let cases = [
        (
            format!(r#"{{"type":"cancel","id":5,"job":"{job}"}}"#),
            Answer::Cancelled,
            format!(r#"{{"type":"cancelled","id":5,"job":"{job}"}}"#),
        ),
        (
            r#"{"type":"history","id":7,"group":"g"}"#.to_owned(),
            Answer::History(page),
            r#"{"type":"history","id":7,"group":"g","epoch":"x7","messages":[{"offset":41,"message":{"type":"m"}}],"next":41}"#
                .to_owned(),
        ),
        (
            r#"{"type":"authenticate","id":8,"token":"t"}"#.to_owned(),
            Answer::Authenticated { user: Some("alice".to_owned()) },
            r#"{"type":"authenticated","id":8,"user":"alice"}"#.to_owned(),
        ),
    ];
    for (said, answer, told) in cases {
        let mut it = Open::new();
        it.says(&said).outputs();
        it.completes(0, Ok(answer)).gives([told.as_str()]);
    }
}

#[test]
fn authentication_changes_who_the_client_is() {
    let mut it = Open::new();
    it.says(r#"{"type":"authenticate","token":"t"}"#).outputs();
    it.completes(0, Ok(Answer::Authenticated { user: Some("alice".to_owned()) }));
    assert_eq!(it.session.user(), Some("alice"));
}

#[test]
fn an_answer_to_another_command_is_internal_and_a_second_answer_is_nothing() {
    let mut it = Open::new();
    it.says(SUBSCRIBE).outputs();
    it.completes(0, Ok(Answer::Cancelled)).gives_error("internal", "1");
    it.completes(0, Ok(subscribed())).gives([]);
    assert_eq!(it.session.subscriptions().count(), 0);
}

#[test]
fn a_command_is_open_until_its_answer_has_its_turn() {
    for (ask, kind) in [(SEND, "GroupSend"), (QUERY, "Query")] {
        let mut it = Open::new();
        it.says(MEMBERS).gives(["execute 0 Members"]);
        assert!(!it.session.is_open(Ticket(1)));
        it.says(ask).gives([format!("execute 1 {kind}").as_str()]);
        assert!(it.session.is_open(Ticket(1)));
        // Answered, but behind an earlier command: the client has not been told.
        it.completes(1, Ok(Answer::Accepted(accepted()))).gives([]);
        assert!(it.session.is_open(Ticket(1)));
        it.completes(0, Ok(nobody()));
        assert!(!it.session.is_open(Ticket(1)));
        assert_eq!(it.outputs().len(), 2);
    }
}

#[test]
fn a_refused_command_is_not_open() {
    let mut it = Open::new();
    it.says(QUERY).outputs();
    it.completes(0, Err(Refusal::new(ErrorCode::UnknownQuery, "none")));
    assert!(!it.session.is_open(Ticket(0)));
}

#[test]
fn each_refusal_is_told_once_with_its_code() {
    let once = Rate { per_second: 1, burst: 4 };
    let mut it = Open::with(Limits { subscriptions_max: 0, commands: once, ..Limits::default() });
    it.says("{").says(SUBSCRIBE).says(MEMBERS).says(QUERY).says(QUERY).outputs();
    it.completes(3, Err(Refusal::new(ErrorCode::UnknownQuery, "none"))).completes(2, Ok(nobody())).outputs();
    let by_session = [ErrorCode::BadRequest, ErrorCode::LimitExceeded, ErrorCode::RateLimited];
    let mut expected = by_session.map(|code| (code, RefusedBy::Session)).to_vec();
    expected.push((ErrorCode::UnknownQuery, RefusedBy::Driver));
    assert_eq!(it.refused, expected);
}

#[test]
fn reading_stops_at_the_bound_and_goes_on_below() {
    let mut it = Open::with(Limits { in_flight_max: 2, ..Limits::default() });
    it.says(MEMBERS);
    assert!(it.session.wants_input());
    it.says(MEMBERS);
    assert!(!it.session.wants_input());
    it.outputs();
    it.completes(1, Ok(nobody()));
    assert!(!it.session.wants_input(), "an answer that waits for its turn takes a place");
    it.completes(0, Ok(nobody()));
    assert!(it.session.wants_input());
}

#[test]
fn reading_past_the_bound_closes() {
    let mut it = Open::with(Limits { in_flight_max: 1, ..Limits::default() });
    it.says(MEMBERS).says(MEMBERS).gives(["execute 0 Members", "close 1013"]);
}

#[test]
fn groups_added_from_outside_count() {
    let mut it = Open::new();
    it.session.added(group("g"));
    it.gives([]);
    it.says(SUBSCRIBE).gives_error("already_subscribed", "1");
    it.session.removed(&group("g"));
    it.gives([]);
    it.says(SUBSCRIBE).gives(["execute 1 Subscribe"]);
}

#[test]
fn a_silent_client_is_pinged_and_then_given_up() {
    let mut it = Open::new();
    it.waits(24).gives([]);
    it.waits(1).gives(["ping"]);
    it.waits(9).gives([]);
    it.waits(1).gives(["close 3008"]);
    assert_eq!(it.session.poll_timeout(), None);
}

#[test]
fn whatever_is_heard_is_a_sign_of_life() {
    let signs: [fn(&mut Open); 3] = [
        |it| it.session.on_control(it.now),
        |it| it.session.on_activity(it.now),
        |it| {
            it.says(r#"{"type":"ping"}"#).gives([r#"{"type":"pong"}"#]);
        },
    ];
    for sign in signs {
        let mut it = Open::new();
        it.waits(25).gives(["ping"]);
        sign(&mut it);
        it.waits(24).gives([]);
        it.waits(1).gives(["ping"]);
    }
}

#[test]
fn who_is_not_read_is_not_given_up() {
    let mut it = Open::with(Limits { in_flight_max: 1, ..Limits::default() });
    it.waits(25).gives(["ping"]);
    it.says(MEMBERS).gives(["execute 0 Members"]);
    assert_eq!(it.session.poll_timeout(), None);
    it.waits(1000).gives([]);
    it.completes(0, Ok(nobody())).gives([NOBODY]);
    // The pong may still lie in the socket: it is asked anew, not blamed.
    it.waits(0).gives(["ping"]);
}

#[test]
fn a_drain_is_told_and_takes_no_new_commands() {
    let mut it = Open::new();
    it.says(MEMBERS).gives(["execute 0 Members"]);
    it.session.drain(1830);
    it.session.drain(1);
    it.gives([r#"{"type":"closing","retry_after_ms":1830}"#]);
    it.says(SUBSCRIBE).gives([]);
    it.completes(0, Ok(nobody()));
    let outputs = it.outputs();
    assert_eq!(outputs[0], NOBODY);
    assert!(outputs[1].starts_with(r#"{"type":"error","id":1,"code":"unavailable""#), "{outputs:?}");
    assert!(outputs[1].ends_with(r#""retriable":true}"#));
    assert!(it.session.is_idle());
}

#[test]
fn binary_closes() {
    let mut it = Open::new();
    it.session.on_binary();
    it.gives(["close 1003"]);
}

#[test]
fn nothing_comes_after_a_close() {
    let mut it = Open::new();
    it.says(QUERY).gives(["execute 0 Query"]);
    it.session.removed(&group("never"));
    it.session.close(CloseCode::Policy, "kicked");
    it.session.close(CloseCode::Normal, "again");
    it.says(SUBSCRIBE).completes(0, Ok(Answer::Accepted(accepted()))).waits(1000);
    it.session.added(group("g"));
    it.session.subscribe_at_open(group("g"), None);
    it.session.drain(1);
    it.session.on_binary();
    it.gives(["close 1008"]);
    assert!(it.session.is_closed() && !it.session.wants_input() && !it.session.is_open(Ticket(0)));
}

/// A session behind its `welcome`, and the time.
struct Open {
    session: Session,
    now: Instant,
    asked: Vec<(Ticket, Command)>,
    refused: Vec<(ErrorCode, RefusedBy)>,
}

impl Open {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let now = Instant::now();
        let mut session = Session::new(channel("specific.gw1!c12"), None, limits, now);
        session.poll().expect("welcome");
        Self { session, now, asked: Vec::new(), refused: Vec::new() }
    }

    fn says(&mut self, text: &str) -> &mut Self {
        self.session.on_text(text, self.now);
        self
    }

    fn waits(&mut self, seconds: u64) -> &mut Self {
        self.now += Duration::from_secs(seconds);
        self.session.handle_timeout(self.now);
        self
    }

    /// Answers the `nth` command of the connection; refused ones count too.
    fn completes(&mut self, nth: u64, answer: Result<Answer, Refusal>) -> &mut Self {
        let asked = self.asked.iter().find(|(ticket, _)| ticket.0 == nth);
        self.session.complete(asked.expect("a command that was started").0, answer);
        self
    }

    fn subscribes(&mut self) {
        self.says(SUBSCRIBE).outputs();
        let (ticket, _) = self.asked.last().expect("the subscribe was started");
        self.session.complete(*ticket, Ok(subscribed()));
        self.gives([SUBSCRIBED]);
    }

    fn outputs(&mut self) -> Vec<String> {
        let mut outputs = Vec::new();
        while let Some(output) = self.session.poll() {
            outputs.push(match output {
                Output::Refused(code, by) => {
                    self.refused.push((code, by));
                    continue;
                }
                Output::Send(text) => String::from_utf8(text.to_vec()).expect("text"),
                Output::Execute(ticket, command) => {
                    let name = format!("{command:?}").split(' ').next().unwrap_or_default().to_owned();
                    self.asked.push((ticket, command));
                    format!("execute {} {name}", ticket.0)
                }
                Output::Ping => "ping".to_owned(),
                Output::Forward(frame) => format!("forward {}", String::from_utf8_lossy(&frame)),
                Output::Close(code, _) => format!("close {}", code.as_u16()),
            });
        }
        outputs
    }

    #[track_caller]
    fn gives<const N: usize>(&mut self, expected: [&str; N]) {
        assert_eq!(self.outputs(), expected);
    }

    #[track_caller]
    fn gives_error(&mut self, code: &str, id: &str) {
        let outputs = self.outputs();
        let start = format!(r#"{{"type":"error","id":{id},"code":"{code}","#);
        assert!(matches!(&outputs[..], [only] if only.starts_with(&start)), "{outputs:?}");
    }
}

const ACCEPTED: &str = concat!(
    r#"{"type":"accepted","message_id":"00000000013W00000000000000","group":"g","members":null,"#,
    r#""existing":false,"jobs":[]}"#
);

fn accepted() -> Accepted {
    Accepted {
        message_id: "00000000013W00000000000000".parse().expect("valid"),
        group: Some(group("g")),
        members: None,
        existing: false,
        jobs: Vec::new(),
        offset: None,
        epoch: None,
    }
}

fn subscribed() -> Answer {
    Answer::Subscribed { position: None, recovery: None }
}

fn nobody() -> Answer {
    Answer::Members { members: Vec::new(), next: None }
}

fn message() -> Message {
    Message::parse(Bytes::from_static(br#"{"type":"m"}"#)).expect("valid")
}

fn group(name: &str) -> GroupName {
    GroupName::parse(name).expect("valid")
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("valid")
}
