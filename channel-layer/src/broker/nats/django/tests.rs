//! What we publish and listen to against what channels_nats does (`vectors/channels_nats.json`, made and checked by
//! `tests/python/nats_vectors.py`).

use bytes::Bytes;
use groupcast_protocol::{ChannelName, GroupName, Message};
use serde_json::Value;

use super::subjects::Subjects;
use super::{CHANNEL, NO_STREAM};
use crate::dialect::{To, msgpack};

const VECTORS: &str = include_str!("../../../../vectors/channels_nats.json");

#[test]
fn messages_go_where_django_sends_them_and_are_the_same_bytes() {
    let subjects = Subjects::new("channels");
    let all = vectors("published");
    assert!(all.len() > 20, "there are enough of them");
    for vector in all {
        let (subject, channel) = match text(&vector["do"]) {
            "group_send" => (subjects.group(&group(text(&vector["to"]))), None),
            _ => (subjects.channel(&channel(text(&vector["to"]))), text(&vector["to"]).contains('!').then_some("to")),
        };
        assert_eq!(subject.as_deref(), vector["subject"].as_str(), "{vector}");
        assert_eq!(vector["headers"][CHANNEL].as_str(), channel.map(|key| text(&vector[key])), "{vector}");
        let message = Message::parse(Bytes::copy_from_slice(text(&vector["json"]).as_bytes())).expect("a message");
        let written = msgpack::encode(&message, &To::Nobody).expect("it can be written");
        let hex: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, text(&vector["payload"]), "{vector}");
    }
}

#[test]
fn what_django_listens_to_is_where_we_send() {
    let subjects = Subjects::new("channels");
    let heard = |subject: Option<String>, queue: &str| {
        let subject = subject.expect("a subject");
        vectors("subscribed").iter().any(|vector| vector["subject"] == *subject && vector["queue"] == queue)
    };
    assert!(heard(subjects.channel(&channel("specific.fee616d42487!any")), ""));
    assert!(heard(subjects.group(&group("room.1")), ""));
    assert!(heard(subjects.group(&group("room.1")), "channels.ch.db-queries"));
    assert!(heard(subjects.channel(&channel("db-queries")), "channels.ch.db-queries"));
}

#[test]
fn names_with_empty_parts_are_no_subjects() {
    let subjects = Subjects::new("shop");
    assert_eq!(subjects.group(&group("room")).as_deref(), Some("shop.grp.room"));
    for name in ["room.", ".room", "a..b", "."] {
        assert_eq!(subjects.group(&group(name)), None, "{name}");
        assert_eq!(subjects.channel(&channel(&format!("{name}x.!c1"))), None, "{name}");
    }
    assert_eq!(subjects.group_of("shop.grp.a.b"), Some(group("a.b")));
    for other in
        ["shop.grp", "shop.pc.a", "other.grp.a", "shop.grp.a*", "shop.grp.ü", &format!("shop.grp.{}", "x".repeat(100))]
    {
        assert_eq!(subjects.group_of(other), None, "{other}");
    }
    assert!(NO_STREAM.contains('.'), "a stream's name has no period");
}

fn vectors(what: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(VECTORS).expect("JSON");
    all[what].as_array().expect("a list").clone()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn group(name: &str) -> GroupName {
    GroupName::parse(name).expect("a valid name")
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("a valid name")
}
