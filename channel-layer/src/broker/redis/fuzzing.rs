//! Doors to what reads the bytes of a server, for `fuzz/`.

use groupcast_protocol::GroupName;

pub use super::foreign::{told, unpark};
use super::names::{Names, Topic};

/// The group of a topic below a prefix, and the topic of that group.
pub fn group(prefix: &str, topic: &[u8]) -> Option<(GroupName, String)> {
    let names = Names::new(prefix);
    match names.read(topic)? {
        Topic::Group(group) => {
            let again = names.topic(&group);
            Some((group, again))
        }
        Topic::Node | Topic::Mail | Topic::Notes => None,
    }
}
