//! `Reserved`: the name that a connection's channel will have, before there is a connection.

use groupcast_protocol::ChannelName;

use crate::registry::Registry;

/// A channel's name that nobody has, nor will have but the connection that is made with it.
#[derive(Debug)]
pub struct Reserved {
    pub(crate) number: u64,
    pub(crate) channel: ChannelName,
}

impl Reserved {
    pub(crate) fn new(registry: &Registry) -> Self {
        let number = registry.next_number();
        let name = format!("specific.{}!c{number}", registry.config.node);
        let channel = ChannelName::parse(&name).expect("a checked node name and a number make a channel name");
        Self { number, channel }
    }

    /// The name.
    pub fn channel(&self) -> &ChannelName {
        &self.channel
    }
}
