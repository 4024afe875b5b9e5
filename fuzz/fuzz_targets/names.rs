//! Names, patterns, ids and positions: what stands in paths, query strings, headers, frames, tokens and subjects.

#![no_main]

use groupcast_fuzz::{head, text};
use groupcast_protocol::names::NAME_LEN_MAX;
use groupcast_protocol::{ChannelName, GroupName, Id, NodeId, Pattern, Position};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (first, second) = head(data);
    let (Some(text), Some(other)) = (text(first), text(second)) else { return };
    names(text);
    if let Ok(pattern) = Pattern::parse(text) {
        check_pattern(&pattern, text, other);
    }
    if let Ok(id) = text.parse::<Id>() {
        assert_eq!(id.to_string(), text.to_ascii_uppercase());
        assert_eq!(Id::from_bytes(id.to_bytes()), id);
        if let Ok(later) = other.parse::<Id>() {
            assert_eq!(id.cmp(&later), id.to_string().cmp(&later.to_string()), "ids sort as their texts do");
        }
    }
    if let Ok(position) = text.parse::<Position>() {
        assert_eq!(position.to_string().parse(), Ok(position));
    }
});

/// What one place takes for a name, others do, too.
fn names(text: &str) {
    let group = GroupName::parse(text);
    let channel = ChannelName::parse(text);
    if let Ok(node) = NodeId::parse(text) {
        assert_eq!(group.as_ref().map(GroupName::as_str), Ok(node.as_str()));
    }
    if let Ok(group) = &group {
        assert_eq!(group.as_str(), text);
        assert!(text.len() <= NAME_LEN_MAX && text.is_ascii());
        assert!(channel.is_ok(), "every group's name could be a channel's");
        // It stands in paths, topics, lists and streams as it is.
        assert!(
            !text.contains(['/', ' ', ',', '=', ':', '\r', '\n', '\0', '*', '>', '{', '}', '"', '%', '?', '&', '#'])
        );
    }
    let Ok(channel) = channel else { return };
    assert!(text.starts_with(channel.non_local()));
    assert_eq!(channel.is_process_local(), group.is_err(), "{text}");
    if let Some(node) = channel.node() {
        assert!(channel.non_local().ends_with(&format!(".{node}!")), "{text} is of node {node}");
    }
}

fn check_pattern(pattern: &Pattern, text: &str, name: &str) {
    assert_eq!(Pattern::parse(&pattern.to_string()).as_ref(), Ok(pattern));
    assert_eq!(pattern.to_string(), text);
    let matches = pattern.matches(name);
    match text.strip_suffix('*') {
        Some(stem) => assert_eq!(matches, name.get(..stem.len()) == Some(stem)),
        None => assert_eq!(matches, name == text),
    }
}
