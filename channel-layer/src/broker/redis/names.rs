//! The names of keys and topics.

use bytes::{BufMut, Bytes, BytesMut};
use groupcast_protocol::{ChannelName, GroupName, NodeId};

/// Makes and reads names under one prefix. What has to be together has the same in braces: a cluster keeps it on one server.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
}

/// What a topic is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Topic {
    Group(GroupName),
    Node,
    Mail,
    Notes,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub(super) fn topic(&self, group: &GroupName) -> String {
        format!("{}:{{{group}}}", self.prefix)
    }

    pub(super) fn head(&self, group: &GroupName) -> String {
        format!("{}:{{{group}}}:h", self.prefix)
    }

    pub(super) fn stream(&self, group: &GroupName) -> String {
        format!("{}:{{{group}}}:s", self.prefix)
    }

    pub(super) fn node(&self, node: &NodeId) -> String {
        format!("{}:node:{{{node}}}", self.prefix)
    }

    pub(super) fn channel(&self, channel: &ChannelName) -> String {
        format!("{}:ch:{{{channel}}}", self.prefix)
    }

    /// Somebody waits for a message of the channel.
    pub(super) fn waiting(&self, channel: &ChannelName) -> String {
        format!("{}:wait:{{{channel}}}", self.prefix)
    }

    pub(super) fn mail(&self) -> String {
        format!("{}:mail", self.prefix)
    }

    /// A frame of another program that was published.
    pub(super) fn seen(&self, id: &[u8]) -> String {
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}:seen:{hex}", self.prefix)
    }

    pub(super) fn notes(&self) -> String {
        format!("{}:notes", self.prefix)
    }

    pub(super) fn read(&self, topic: &[u8]) -> Option<Topic> {
        let rest = topic.strip_prefix(self.prefix.as_bytes())?.strip_prefix(b":")?;
        let rest = std::str::from_utf8(rest).ok()?;
        if let Some(group) = rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            return GroupName::parse(group).ok().map(Topic::Group);
        }
        match rest {
            "mail" => Some(Topic::Mail),
            "notes" => Some(Topic::Notes),
            node if node.starts_with("node:") => Some(Topic::Node),
            _ => None,
        }
    }
}

/// `NAME TEXT`
pub(super) fn with_text(name: &str, text: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(name.len() + 1 + text.len());
    bytes.put_slice(name.as_bytes());
    bytes.put_u8(b' ');
    bytes.put_slice(text);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_read_as_it_was_made() {
        let names = Names::new("groupcast:asgi");
        let group = GroupName::parse("room.1").expect("a valid name");
        assert_eq!(names.topic(&group), "groupcast:asgi:{room.1}");
        assert_eq!(names.read(names.topic(&group).as_bytes()), Some(Topic::Group(group.clone())));
        assert_eq!(names.read(names.node(&NodeId::parse("gw1").expect("valid")).as_bytes()), Some(Topic::Node));
        assert_eq!(names.read(names.notes().as_bytes()), Some(Topic::Notes));
        for other in
            ["", "groupcast:asgi", "other:{a}", "groupcast:asgi:{}", "groupcast:asgi:{a b}", "groupcast:asgi:x"]
        {
            assert_eq!(names.read(other.as_bytes()), None, "{other}");
        }
    }
}
