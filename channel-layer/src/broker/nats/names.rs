//! The names of subjects and streams.

use groupcast_protocol::{ChannelName, GroupName, NodeId};

use super::django::subjects::Subjects;

/// What the names of one deployment are made of.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
    /// There when Django's processes are in the same groups.
    django: Option<Subjects>,
}

/// A stream of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stream {
    /// Where groups without history are: the newest records of each.
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
    pub(super) fn new(prefix: &str, django: Option<&str>) -> Self {
        Self { prefix: prefix.to_owned(), django: django.map(Subjects::new) }
    }

    /// All streams that have to be there.
    pub(super) fn streams(&self) -> Vec<String> {
        let foreign = self.django.as_ref().map(|_| self.foreign());
        Stream::ALL.into_iter().map(|stream| self.stream(stream)).chain(foreign).collect()
    }

    /// The stream of what Django's processes send to groups.
    pub(super) fn foreign(&self) -> String {
        format!("{}_foreign", self.prefix)
    }

    /// The subjects of that stream; none without the dialect.
    pub(super) fn foreign_subjects(&self) -> Option<String> {
        self.django.as_ref().map(Subjects::groups)
    }

    /// The group of one of them.
    pub(super) fn foreign_group(&self, subject: &str) -> Option<GroupName> {
        self.django.as_ref()?.group_of(subject)
    }

    /// Where that stream tells what it has stored.
    pub(super) fn all_came(&self) -> String {
        format!("{}.came.>", self.prefix)
    }

    /// Where it is stored which gateway empties that stream: no group has such a name.
    pub(super) fn registrar(&self) -> String {
        format!("{}.{}.!registrar", self.prefix, Stream::Plain.as_str())
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
        let names = Names::new("gc", None);
        let of = |name: &str| names.group(&GroupName::parse(name).expect("a valid name"));
        assert_eq!(of("room"), "gc.group.room");
        assert_eq!(of("room."), "gc.group.room/");
        assert_eq!(of("a..b"), "gc.group.a//b");
        let stored = names.stored(Stream::Kept, &GroupName::parse(".x").expect("a valid name"));
        assert_eq!(stored, "gc.kept./x");
        assert_eq!(names.channel(&ChannelName::parse("a.b!c").expect("a valid name")), "gc.channel.a/b!c");
    }
}
