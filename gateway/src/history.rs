//! What is read of a group's history, by the same rules over HTTP and WebSocket.
//!
//! What is kept, and for how long, is the layer's.

use groupcast_channel_layer::ChannelLayer;
use groupcast_protocol::frame::{HistoryEntry, HistoryPage};
use groupcast_protocol::{ErrorCode, GroupName, Refusal};

/// A part of a history that is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    /// Only messages behind this offset; 0 for all.
    pub(crate) after: u64,
    /// The epoch that `after` belongs to, if the caller knows it. It then learns of anything that is missing between
    /// `after` and the first message.
    pub(crate) epoch: Option<&'a str>,
    /// At most so many messages.
    pub(crate) limit: usize,
    /// At most so many bytes of messages, but always one message: a page is built in memory.
    pub(crate) bytes: usize,
}

/// Reads a page.
///
/// # Errors
/// `not_found` for a group that keeps no history; `expired` when the epoch is over, or messages behind `after` are kept
/// no more.
pub(crate) fn read(layer: &ChannelLayer, group: &GroupName, ask: Ask<'_>) -> Result<HistoryPage, Refusal> {
    if layer.config().rule_of(group.as_str()).is_none_or(|rule| rule.history.is_none()) {
        return Err(none(group));
    }
    // Before the page: a message that comes between the two must not look like one that is missing.
    let position = layer.position(group);
    let page = layer.history(group, ask.after, ask.limit);
    let (Some(position), Some(page)) = (position, page) else { return unknown(group, ask) };
    if let Some(epoch) = ask.epoch {
        let first = page.messages.first().map(|(offset, _)| *offset);
        if epoch != &*page.epoch || position.epoch != page.epoch {
            return Err(expired(format!("the history of group `{group}` began anew")));
        }
        if ask.after > position.offset {
            let why = format!("group `{group}` is at offset {}, {} was never reached", position.offset, ask.after);
            return Err(expired(why));
        }
        if ask.after < position.offset && first != Some(ask.after + 1) {
            return Err(expired(format!("group `{group}` no longer keeps the message at offset {}", ask.after + 1)));
        }
    }
    Ok(cut(page, ask.bytes))
}

fn cut(page: groupcast_channel_layer::HistoryPage, bytes_max: usize) -> HistoryPage {
    let mut bytes = 0;
    let total = page.messages.len();
    let fits = |(_, message): &&(u64, groupcast_protocol::Message)| {
        let first = bytes == 0;
        bytes += message.raw().len();
        first || bytes <= bytes_max
    };
    let count = page.messages.iter().take_while(fits).count();
    let entry = |(offset, message)| HistoryEntry { offset, message };
    let messages: Vec<_> = page.messages.into_iter().take(count).map(entry).collect();
    let more = page.more || count < total;
    let next = messages.last().filter(|_| more).map(|last| last.offset);
    HistoryPage { epoch: Some(page.epoch), messages, next }
}

/// A group exists while it has members or a history: of one that had them nothing is known any more.
fn unknown(group: &GroupName, ask: Ask<'_>) -> Result<HistoryPage, Refusal> {
    match ask.epoch {
        Some(_) => Err(expired(format!("nothing of the history of group `{group}` is left"))),
        None => Ok(HistoryPage { epoch: None, messages: Vec::new(), next: None }),
    }
}

fn none(group: &GroupName) -> Refusal {
    let why = format!(
        "group `{group}` keeps no history; a `[[group]]` of the configuration whose `name` matches it and that has \
         `history = {{ messages = 1000, age = \"1h\" }}` switches it on"
    );
    Refusal::new(ErrorCode::NotFound, why)
}

fn expired(why: String) -> Refusal {
    Refusal::new(ErrorCode::Expired, format!("{why}; leave out the epoch to read what is kept"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use groupcast_protocol::Message;

    use super::*;

    fn check(lengths: &[usize], bytes_max: usize, more: bool, expected: (usize, Option<u64>)) {
        let message = |length: &usize| {
            let text = format!("{{\"type\":\"{}\"}}", "x".repeat(length - 11));
            Message::parse(Bytes::from(text)).expect("a message")
        };
        let messages = (1..).zip(lengths.iter().map(message)).collect();
        let page = groupcast_channel_layer::HistoryPage { epoch: "e".into(), messages, more };
        let page = cut(page, bytes_max);
        assert_eq!((page.messages.len(), page.next), expected, "{lengths:?} within {bytes_max}");
    }

    #[test]
    fn a_page_has_a_bound_in_bytes_and_says_where_to_go_on() {
        check(&[20, 20, 20], 60, false, (3, None));
        check(&[20, 20, 20], 60, true, (3, Some(3)));
        check(&[20, 20, 20], 59, false, (2, Some(2)));
        check(&[500, 20], 100, false, (1, Some(1)));
        check(&[20, 500, 20], 100, false, (1, Some(1)));
        check(&[], 100, false, (0, None));
    }
}
