//! The subjects of channels_nats. Periods of names stand there as they are, and separate a subject's parts.

use groupcast_protocol::{ChannelName, GroupName};

/// The subjects below one prefix.
#[derive(Debug, Clone)]
pub(in crate::broker::nats) struct Subjects {
    prefix: String,
}

impl Subjects {
    pub(in crate::broker::nats) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The subjects of all groups.
    pub(in crate::broker::nats) fn groups(&self) -> String {
        format!("{}.grp.>", self.prefix)
    }

    /// The subject of a group; none for a name that is no subject.
    pub(in crate::broker::nats) fn group(&self, group: &GroupName) -> Option<String> {
        is_subject(group.as_str()).then(|| format!("{}.grp.{group}", self.prefix))
    }

    /// The group of a subject.
    pub(in crate::broker::nats) fn group_of(&self, subject: &str) -> Option<GroupName> {
        let name = subject.strip_prefix(&self.prefix)?.strip_prefix(".grp.")?;
        GroupName::parse(name).ok()
    }

    /// The subject of a channel; none for a name that is no subject.
    pub(super) fn channel(&self, channel: &ChannelName) -> Option<String> {
        match channel.as_str().split_once('!') {
            Some((process, _)) => self.process(process),
            None => is_subject(channel.as_str()).then(|| format!("{}.ch.{channel}", self.prefix)),
        }
    }

    /// The subject of all channels that one process made: what stands before the `!` of their names.
    pub(super) fn process(&self, process: &str) -> Option<String> {
        is_subject(process).then(|| format!("{}.pc.{process}", self.prefix))
    }
}

/// Whether a name can be the end of a subject: a server takes no empty parts.
fn is_subject(name: &str) -> bool {
    name.split('.').all(|part| !part.is_empty())
}
