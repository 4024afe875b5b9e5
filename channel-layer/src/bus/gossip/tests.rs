//! What a node makes of what it hears.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::note::{Note, Speaker};
use super::peers::{Act, Members, Peers};
use crate::contract::{channel, group};
use crate::presence::{Change, Holder};

const THERE: Holder = Holder(1);

#[tokio::test(start_paused = true)]
async fn changes_are_taken_in_order_and_once() {
    let mut ears = Ears::default();
    assert_eq!(ears.hear("b/1 beat 4 0"), [Act::Introduce, whole(&[])], "who has none is known");
    assert_eq!(ears.hear("b/1 changes 5\nroom +x -y"), [changed(&[("x", Change::Joined), ("y", Change::Left)])]);
    assert_eq!(ears.hear("b/1 changes 5\nroom +x"), [], "again");
    assert_eq!(ears.hear("b/1 beat 5 1"), []);
    assert_eq!(ears.hear("b/1 changes 7\nroom +z"), [ask()], "one is missing");
    assert_eq!(ears.hear("b/1 changes 8\nroom +z"), [], "it was asked just before");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(ears.hear("b/1 beat 8 2"), [ask()]);
    assert_eq!(ears.hear("b/1 state 8 0 last\nroom +x +z"), [whole(&["x", "z"])]);
    assert_eq!(ears.hear("b/1 state 8 0 last\nroom +x"), [], "it was told for somebody else");
    assert_eq!(ears.hear("b/1 changes 9\nroom -x"), [changed(&[("x", Change::Left)])]);
}

#[tokio::test(start_paused = true)]
async fn a_state_is_taken_when_it_is_whole() {
    let mut ears = Ears::default();
    assert_eq!(ears.hear("b/1 beat 3 2"), [Act::Introduce, ask()]);
    assert_eq!(ears.hear("b/1 state 3 1 last\nroom +y"), [], "its beginning is missing");
    assert_eq!(ears.hear("b/1 state 3 0 more\nroom +x"), []);
    assert_eq!(ears.hear("b/1 state 3 1 last\nroom +y"), [whole(&["x", "y"])]);
    let mut ears = Ears::default();
    ears.hear("b/1 state 3 0 more\nroom +x");
    assert_eq!(ears.hear("b/1 changes 4\nroom +z"), [ask()], "the rest was lost");
    assert_eq!(ears.hear("b/1 state 3 1 last\nroom +y"), []);
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_while_this_node_hears_itself_is_let_go() {
    let mut ears = Ears::default();
    ears.hear("b/1 beat 0 0");
    for n in 0..20 {
        assert_eq!(ears.hear("me/1 beat 0 0"), []);
        assert_eq!(ears.hear(if n % 2 == 0 { "b/1 beat 0 0" } else { "b/1 ask c/1" }), []);
    }
    for _ in 0..4 {
        assert_eq!(ears.hear("me/1 beat 0 0"), []);
    }
    assert_eq!(ears.hear("me/1 beat 0 0"), [whole(&[])]);
    assert_eq!(ears.0.len(), 0);
    assert_eq!(ears.hear("b/1 beat 2 2").len(), 2, "it is met and asked anew");
}

#[test]
fn questions_and_ends_are_heard() {
    let mut ears = Ears::default();
    ears.hear("b/1 beat 0 0");
    assert_eq!(ears.hear("b/1 ask me/1"), [Act::Answer]);
    assert_eq!(ears.hear("b/1 ask me/2"), [], "that was another run");
    assert_eq!(ears.hear("b/2 ask me/1"), [Act::Answer, Act::Introduce], "a newcomer may ask, too");
    assert_eq!(ears.hear("b/1 end"), [whole(&[])]);
    assert_eq!(ears.hear("b/1 end"), []);
    assert_eq!(ears.hear("me/1 changes 9\nroom +x"), [], "its own");
}

#[test]
fn there_are_not_too_many() {
    let mut ears = Ears::default();
    for n in 0..3000 {
        ears.hear(&format!("n{n}/1 beat 1 1"));
    }
    assert_eq!(ears.0.len(), 1024);
    let part = format!("\n{}", (0..4000).map(|n| format!("g{n} +a\n")).collect::<String>());
    for at in 0..300 {
        let acts = ears.hear(&format!("n1/1 state 1 {at} more{part}"));
        assert!(!matches!(acts[..], [Act::Replace { .. }]));
    }
}

struct Ears(Peers);

impl Default for Ears {
    fn default() -> Self {
        Self(Peers::new(Speaker::new(&groupcast_protocol::NodeId::parse("me").expect("a valid name"), 1)))
    }
}

impl Ears {
    fn hear(&mut self, text: &str) -> Vec<Act> {
        let note = Bytes::from(format!("presence {text}"));
        self.0.hear(Note::parse(&note).expect("it can be understood"), Instant::now())
    }
}

fn changed(changes: &[(&str, Change)]) -> Act {
    let changes = changes.iter().map(|(name, change)| (channel(name), *change)).collect();
    Act::Change { by: THERE, group: group("room"), changes }
}

fn whole(names: &[&str]) -> Act {
    let mut members = Members::new();
    if !names.is_empty() {
        members.insert(group("room"), names.iter().map(|name| channel(name)).collect());
    }
    Act::Replace { by: THERE, members }
}

fn ask() -> Act {
    let note = Bytes::from_static(b"presence b/1 end");
    Act::Ask { of: Note::parse(&note).expect("it can be understood").from }
}
