//! What the team's own service answers: events shaped as those of ASGI.

#![no_main]

use groupcast_fuzz::no_beginning_is_accepted;
use groupcast_protocol::asgi::{Action, decode};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Ok(actions) = decode(data) else { return };
    actions.iter().for_each(check);
    if data.trim_ascii().is_empty() {
        return assert!(actions.is_empty());
    }
    no_beginning_is_accepted(data.trim_ascii_end(), |part| !part.trim_ascii().is_empty() && decode(part).is_ok());
    let Ok(tree) = serde_json::from_slice::<Value>(data) else { return };
    let told = match &tree {
        Value::Array(events) => events.clone(),
        one => vec![one.clone()],
    };
    let kinds: Vec<Option<&str>> = told.iter().map(|event| event["type"].as_str()).collect();
    assert_eq!(kinds, actions.iter().map(|action| Some(kind(action))).collect::<Vec<_>>());
});

fn check(action: &Action) {
    match action {
        // It goes into a close frame, or an error.
        Action::Close { reason, .. } | Action::Deny { reason } => {
            assert!(reason.len() <= 123 && !reason.chars().any(char::is_control), "{reason:?}");
        }
        Action::Accept(accept) => {
            let user = accept.user.as_deref();
            assert!(user.is_none_or(|user| (1..=255).contains(&user.len()) && !user.chars().any(char::is_control)));
            let is_somebody = user.is_some();
            assert!(
                is_somebody || (accept.rights.is_none() && accept.claims.is_empty() && accept.expires_ms.is_none())
            );
            assert!(accept.groups.iter().all(|group| !group.is_of_live_query()));
        }
        Action::GroupSend { group, .. } | Action::GroupAdd(group) | Action::GroupDiscard(group) => {
            assert!(!group.is_of_live_query(), "only the gateway sends there");
        }
        Action::Allow | Action::Send(_) => {}
    }
}

fn kind(action: &Action) -> &'static str {
    match action {
        Action::Accept(_) => "websocket.accept",
        Action::Close { .. } => "websocket.close",
        Action::Allow => "allow",
        Action::Deny { .. } => "deny",
        Action::GroupSend { .. } => "group_send",
        Action::GroupAdd(_) => "group_add",
        Action::GroupDiscard(_) => "group_discard",
        Action::Send(_) => "websocket.send",
    }
}
