//! The names of subjects and streams.

use groupcast_protocol::{ChannelName, GroupName, NodeId};

/// What the names of one deployment are made of.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
}

/// A stream of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stream {
    /// Where groups without history are: the newest record of each.
    Plain,
    /// Groups with history.
    Kept,
    /// Channels that any node may read.
    Channels,
}

impl Stream {
    pub(super) const ALL: [Self; 3] = [Self::Plain, Self::Kept, Self::Channels];

    /// Of a group that keeps a history, or does not.
    pub(super) fn of(keeps: bool) -> Self {
        if keeps { Self::Kept } else { Self::Plain }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Kept => "kept",
            Self::Channels => "channel",
        }
    }
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub(super) fn stream(&self, stream: Stream) -> String {
        format!("{}_{}", self.prefix, stream.as_str())
    }

    /// All subjects of a stream.
    pub(super) fn subjects(&self, stream: Stream) -> String {
        format!("{}.{}.*", self.prefix, stream.as_str())
    }

    /// Where a stream sends on what it has stored; `$1` is what stood in place of the star.
    pub(super) fn sent_on(&self, stream: Stream) -> String {
        let word = match stream {
            Stream::Plain | Stream::Kept => "group",
            Stream::Channels => "mail",
        };
        format!("{}.{word}.$1", self.prefix)
    }

    /// Where a group's records are stored.
    pub(super) fn stored(&self, stream: Stream, group: &GroupName) -> String {
        format!("{}.{}.{}", self.prefix, stream.as_str(), token(group.as_str()))
    }

    /// Where a group's followers listen.
    pub(super) fn group(&self, group: &GroupName) -> String {
        format!("{}.group.{}", self.prefix, token(group.as_str()))
    }

    pub(super) fn channel(&self, channel: &ChannelName) -> String {
        format!("{}.{}.{}", self.prefix, Stream::Channels.as_str(), token(channel.as_str()))
    }

    pub(super) fn mail(&self, channel: &ChannelName) -> String {
        format!("{}.mail.{}", self.prefix, token(channel.as_str()))
    }

    pub(super) fn node(&self, node: &NodeId) -> String {
        format!("{}.node.{}", self.prefix, token(node.as_str()))
    }

    pub(super) fn notes(&self) -> String {
        format!("{}.notes", self.prefix)
    }

    /// A subject of a stream that nobody writes to.
    pub(super) fn nothing(&self, stream: Stream) -> String {
        format!("{}.{}./", self.prefix, stream.as_str())
    }
}

/// A name as one part of a subject: periods separate parts, and may stand where no separator may.
fn token(name: &str) -> String {
    name.replace('.', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_part_of_a_subject() {
        let names = Names::new("gc");
        let of = |name: &str| names.group(&GroupName::parse(name).expect("a valid name"));
        assert_eq!(of("room"), "gc.group.room");
        assert_eq!(of("room."), "gc.group.room/");
        assert_eq!(of("a..b"), "gc.group.a//b");
        let stored = names.stored(Stream::Kept, &GroupName::parse(".x").expect("a valid name"));
        assert_eq!(stored, "gc.kept./x");
        assert_eq!(names.channel(&ChannelName::parse("a.b!c").expect("a valid name")), "gc.channel.a/b!c");
    }
}
