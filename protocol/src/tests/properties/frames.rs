//! Arbitrary frames, valid ones.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use crate::envelope::Position;
use crate::error::{ErrorCode, Refusal};
use crate::frame::{
    Accepted, AcceptedJob, ClientFrame, Command, Durability, GapReason, HistoryEntry, HistoryPage, Recovery, Request,
    RequestId, ServerFrame, Token, Unrecovered,
};
use crate::id::Id;
use crate::message::Message;
use crate::names::{ChannelName, GroupName};
use crate::raw_object::RawObject;
use crate::session::Answer;

pub(super) fn client_frame() -> impl Strategy<Value = ClientFrame> {
    let command = prop_oneof![
        (group(), prop::option::of(position())).prop_map(|(group, after)| Command::Subscribe { group, after }),
        (any::<String>(), params()).prop_map(|(query, params)| Command::SubscribeQuery { query: query.into(), params }),
        group().prop_map(|group| Command::Unsubscribe { group }),
        (group(), message(), prop::option::of("[a-z]{1,9}|\\PC{1,20}")).prop_map(|(group, message, key)| {
            Command::GroupSend { group, message, idempotency_key: key.map(Into::into) }
        }),
        (any::<String>(), params()).prop_map(|(name, params)| Command::Query { name: name.into(), params }),
        id().prop_map(|job| Command::Cancel { job }),
        group().prop_map(|group| Command::Members { group }),
        (group(), prop::option::of(position()), prop::option::of(1..u64::MAX))
            .prop_map(|(group, after, limit)| Command::History { group, after, limit }),
        any::<String>().prop_map(|token| Command::Authenticate { token: Token::new(&token) }),
    ];
    let request = prop_oneof![9 => command.prop_map(Request::Command), 1 => Just(Request::Ping)];
    (request_id(), request).prop_map(|(id, request)| ClientFrame { id, request })
}

pub(super) fn server_frame() -> impl Strategy<Value = ServerFrame> {
    let user = || prop::option::of(any::<String>());
    prop_oneof![
        (channel(), user()).prop_map(|(channel, user)| ServerFrame::Welcome { channel, user }),
        (request_id(), group(), prop::option::of(position()), recovery())
            .prop_map(|(id, group, position, recovery)| ServerFrame::Subscribed { id, group, position, recovery }),
        (request_id(), any::<String>(), group()).prop_map(|(id, query, group)| ServerFrame::SubscribedQuery {
            id,
            query: query.into(),
            group
        }),
        (request_id(), group()).prop_map(|(id, group)| ServerFrame::Unsubscribed { id, group }),
        (request_id(), accepted()).prop_map(|(id, accepted)| ServerFrame::Accepted { id, accepted }),
        (request_id(), id()).prop_map(|(id, job)| ServerFrame::Cancelled { id, job }),
        (request_id(), group(), prop::collection::vec(channel(), 0..3), user())
            .prop_map(|(id, group, members, next)| ServerFrame::Members { id, group, members, next }),
        (request_id(), group(), page()).prop_map(|(id, group, page)| ServerFrame::History { id, group, page }),
        (request_id(), user()).prop_map(|(id, user)| ServerFrame::Authenticated { id, user }),
        request_id().prop_map(|id| ServerFrame::Pong { id }),
        (group(), any::<Option<u64>>(), message()).prop_map(|(group, offset, message)| ServerFrame::GroupMessage {
            group,
            offset,
            message
        }),
        (channel(), message()).prop_map(|(channel, message)| ServerFrame::ChannelMessage { channel, message }),
        (group(), channel()).prop_map(|(group, member)| ServerFrame::Joined { group, member }),
        (group(), channel()).prop_map(|(group, member)| ServerFrame::Left { group, member }),
        (group(), any::<Option<u64>>(), prop::sample::select(GapReason::ALL), prop::option::of(position()))
            .prop_map(|(group, missed, reason, position)| ServerFrame::Gap { group, missed, reason, position }),
        any::<u64>().prop_map(|retry_after_ms| ServerFrame::Closing { retry_after_ms }),
        (request_id(), prop::sample::select(ErrorCode::ALL), any::<String>())
            .prop_map(|(id, code, text)| ServerFrame::Error { id, refusal: Refusal::new(code, text) }),
        (request_id(), any::<String>(), 0..=u64::from(u32::MAX)).prop_map(|(id, text, ms)| {
            let refusal = Refusal::new(ErrorCode::RateLimited, text).again_in(Duration::from_millis(ms));
            ServerFrame::Error { id, refusal }
        }),
    ]
}

pub(super) fn group() -> impl Strategy<Value = GroupName> {
    prop_oneof!["[ab]", "[a-zA-Z0-9._-]{1,99}"].prop_map(|name| GroupName::parse(&name).expect("valid"))
}

/// Groups that only the server side adds.
pub(super) fn few_groups() -> impl Strategy<Value = GroupName> {
    prop::sample::select(vec!["x!", "y!", "z!"])
        .prop_map(|name| GroupName::parse(&name.replace('!', FEW)).expect("valid"))
}

pub(super) fn is_few(group: &GroupName) -> bool {
    group.as_str().ends_with(FEW)
}

const FEW: &str = ".added-by-the-server-side";

pub(super) fn channel() -> impl Strategy<Value = ChannelName> {
    "[a-z]{1,9}(!|\\.)[a-z0-9]{0,9}".prop_map(|name| ChannelName::parse(&name).expect("valid"))
}

pub(super) fn message() -> impl Strategy<Value = Message> {
    ("[ -~é]{1,12}", json(), any::<bool>()).prop_map(|(kind, payload, first)| {
        let kind = serde_json::Value::from(kind);
        let text = match first {
            true => format!(r#"{{"type":{kind},"payload":{payload}}}"#),
            false => format!(r#"{{ "payload" : {payload} , "type" : {kind} }}"#),
        };
        Message::parse(Bytes::from(text)).expect("valid")
    })
}

pub(super) fn position() -> impl Strategy<Value = Position> {
    ("[a-zA-Z0-9._-]{1,64}", any::<u64>()).prop_map(|(epoch, offset)| Position::new(&epoch, offset).expect("valid"))
}

/// Whether the contract lets nothing run beside the command.
pub(super) fn is_barrier(command: &Command) -> bool {
    use Command::{Authenticate, Subscribe, SubscribeQuery, Unsubscribe};
    matches!(command, Subscribe { .. } | SubscribeQuery { .. } | Unsubscribe { .. } | Authenticate { .. })
}

/// Some fitting answer.
pub(super) fn answer_to(command: &Command) -> Answer {
    match command {
        Command::Subscribe { .. } => Answer::Subscribed { position: None, recovery: None },
        Command::SubscribeQuery { query, .. } => Answer::SubscribedQuery { group: group_of(query) },
        Command::Unsubscribe { .. } => Answer::Unsubscribed,
        Command::GroupSend { .. } | Command::Query { .. } => Answer::Accepted(Accepted {
            message_id: Id::new(1, 1),
            group: None,
            members: None,
            existing: false,
            jobs: Vec::new(),
            offset: None,
            epoch: None,
        }),
        Command::Cancel { .. } => Answer::Cancelled,
        Command::Members { .. } => Answer::Members { members: Vec::new(), next: None },
        Command::History { .. } => {
            Answer::History(HistoryPage { epoch: Some("e".into()), messages: Vec::new(), next: None })
        }
        Command::Authenticate { .. } => Answer::Authenticated { user: None },
    }
}

/// Some group for each query.
fn group_of(query: &str) -> GroupName {
    let sum = query.bytes().fold(0u8, u8::wrapping_add);
    GroupName::of_live_query(Id::from_bytes([sum; 16]))
}

fn request_id() -> impl Strategy<Value = Option<RequestId>> {
    let number = any::<u64>().prop_map(RequestId::from);
    let text = "[ -~é\\n]{0,40}".prop_map(|text| RequestId::from(text.as_str()));
    prop::option::of(prop_oneof![number, text])
}

fn id() -> impl Strategy<Value = Id> {
    (any::<u64>(), any::<u128>()).prop_map(|(unix_ms, random)| Id::new(unix_ms, random))
}

fn params() -> impl Strategy<Value = RawObject> {
    prop::collection::btree_map(any::<String>(), json(), 0..3).prop_map(|fields| {
        let text = serde_json::to_vec(&fields).expect("JSON");
        RawObject::parse(Bytes::from(text)).expect("valid")
    })
}

fn recovery() -> impl Strategy<Value = Option<Recovery>> {
    let unrecovered = prop::sample::select(Unrecovered::ALL).prop_map(Recovery::Unrecovered);
    prop::option::of(prop_oneof![Just(Recovery::Recovered), unrecovered])
}

fn accepted() -> impl Strategy<Value = Accepted> {
    let durability = prop::sample::select(vec![Durability::Memory, Durability::Os, Durability::Disk]);
    let job = (id(), any::<String>(), durability, any::<bool>())
        .prop_map(|(id, consumer, durability, existing)| AcceptedJob { id, consumer, durability, existing });
    let place = prop::option::of(position());
    (id(), prop::option::of(group()), any::<Option<u64>>(), any::<bool>(), prop::collection::vec(job, 0..3), place)
        .prop_map(|(message_id, group, members, existing, jobs, place)| {
            let (offset, epoch) = place.map(|place| (place.offset, place.epoch.into_string())).unzip();
            Accepted { message_id, group, members, existing, jobs, offset, epoch }
        })
}

fn page() -> impl Strategy<Value = HistoryPage> {
    let entry = (any::<u64>(), message()).prop_map(|(offset, message)| HistoryEntry { offset, message });
    (prop::option::of(position()), prop::collection::vec(entry, 0..3), any::<Option<u64>>())
        .prop_map(|(position, messages, next)| HistoryPage { epoch: position.map(|p| p.epoch), messages, next })
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    })
}
