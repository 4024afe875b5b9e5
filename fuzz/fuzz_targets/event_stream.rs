//! Server-Sent Events: whatever is in an event, a page sees that one event and nothing else.

#![no_main]

use groupcast_fuzz::event_stream::{Event, read};
use groupcast_fuzz::{head, text};
use groupcast_protocol::sse::{self, Positions};
use groupcast_protocol::{GroupName, Position};
use libfuzzer_sys::fuzz_target;

const GROUPS_MAX: usize = 5;

fuzz_target!(|data: &[u8]| {
    // The id that a client comes back with, and what a message may be.
    let (id, json) = head(data);
    let (Some(id), Some(json)) = (text(id), text(json)) else { return };
    one_event(json);
    if let Ok(positions) = Positions::parse(id, GROUPS_MAX) {
        several(id, &positions);
    }
    if let Ok(position) = id.parse::<Position>() {
        assert_eq!(position.to_string().parse(), Ok(position.clone()));
        let framed = sse::event(Some("subscribed"), json.as_bytes(), Some(&position));
        let seen = Event { name: "subscribed".into(), data: meant(json), id: position.to_string() };
        assert_eq!(read(as_text(&framed)).0, [seen]);
    }
});

/// Two events behind each other are two, whatever is in the first.
fn one_event(json: &str) {
    let framed = sse::event(None, json.as_bytes(), None);
    let stream = format!("{}{}{}", as_text(&sse::retry(7)), as_text(&framed), as_text(&sse::event(None, b"{}", None)));
    let (events, id, retry) = read(&stream);
    let data: Vec<&str> = events.iter().map(|event| event.data.as_str()).collect();
    assert_eq!(data, [meant(json).as_str(), "{}"]);
    assert_eq!((events[0].name.as_str(), id.as_str(), retry), ("message", "", Some(7)));
}

fn several(id: &str, positions: &Positions) {
    assert!((1..=GROUPS_MAX).contains(&positions.len()));
    let written = positions.to_string();
    assert_eq!(Positions::parse(&written, GROUPS_MAX).as_ref(), Ok(positions));
    for part in id.split(',') {
        let (group, position) = part.split_once('=').expect("a group and its position");
        let group = GroupName::parse(group).expect("it was taken as one");
        assert_eq!(positions.of(&group), position.parse().ok().as_ref());
    }
    let (events, last, _) = read(as_text(&sse::id_only(positions)));
    assert_eq!((events.len(), last), (0, written));
}

/// Line ends of all kinds are line feeds to a page.
fn meant(json: &str) -> String {
    json.replace("\r\n", "\n").replace('\r', "\n")
}

fn as_text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("event streams are text")
}
