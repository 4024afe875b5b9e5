//! What is read of a group's history, by the same rules over HTTP and WebSocket.
//!
//! What is kept, and for how long, is the layer's.

use groupcast_channel_layer::ChannelLayer;
use groupcast_protocol::frame::{HistoryEntry, HistoryPage};
use groupcast_protocol::{ErrorCode, GroupName, Refusal};

use crate::dispatch;

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
/// no more; `unavailable` when other nodes share the group and the broker is gone.
pub(crate) async fn read(layer: &ChannelLayer, group: &GroupName, ask: Ask<'_>) -> Result<HistoryPage, Refusal> {
    if layer.config().rule_of(group.as_str()).is_none_or(|rule| rule.history.is_none()) {
        return Err(none(group));
    }
    // With other nodes, this one has a copy of the history while it follows the group.
    let _open = layer.open(group).await.map_err(dispatch::refusal)?;
    // Before the page: a message that comes between the two must not look like one that is missing.
    let position = layer.position(group);
    let page = layer.history(group, ask.after, ask.limit, ask.bytes);
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
    let next = page.messages.last().filter(|_| page.more).map(|(offset, _)| *offset);
    let messages = page.messages.into_iter().map(|(offset, message)| HistoryEntry { offset, message }).collect();
    Ok(HistoryPage { epoch: Some(page.epoch), messages, next })
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
