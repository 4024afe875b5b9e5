//! What a server sends: answers, which repeat the command's `id`, and pushes, which have none.

mod decode;
mod encode;

pub use decode::FrameError;
pub use encode::{encode_channel_message, encode_group_message, frame_group_message};

use super::accepted::Accepted;
use super::request_id::RequestId;
use crate::envelope::Position;
use crate::error::Refusal;
use crate::id::JobId;
use crate::message::Message;
use crate::names::{ChannelName, GroupName};

/// The protocol's name, as `welcome` tells it.
pub const PROTOCOL: &str = "groupcast.v1";

/// A frame from a server. Above each variant: its form on the wire; `…?` may be absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFrame {
    /// `{"type":"welcome","protocol":"groupcast.v1","channel":"specific.gw1!c12","user":null}`
    Welcome {
        /// The connection's own channel.
        channel: ChannelName,
        /// Who the server takes the client for.
        user: Option<String>,
    },
    /// `{"type":"subscribed","id":1,"group":"g","epoch":"x7"?,"offset":40?,"recovered":true?,"reason":"trimmed"?}`
    Subscribed {
        /// The command's; none when the server added the connection.
        id: Option<RequestId>,
        /// The group.
        group: GroupName,
        /// The group's position, when it keeps history.
        position: Option<Position>,
        /// What became of `after`, when the command had one.
        recovery: Option<Recovery>,
    },
    /// `{"type":"subscribed","id":1,"query":"worst_routes","group":"query.01JD…"}`
    SubscribedQuery {
        /// The command's.
        id: Option<RequestId>,
        /// The name of the query.
        query: Box<str>,
        /// The group that its rows come by.
        group: GroupName,
    },
    /// `{"type":"unsubscribed","id":2,"group":"g"}`
    Unsubscribed {
        /// The command's; none when the server removed the connection.
        id: Option<RequestId>,
        /// The group.
        group: GroupName,
    },
    /// `{"type":"accepted","id":3,"message_id":"01JD…",…}`, see [`Accepted`].
    Accepted {
        /// The command's.
        id: Option<RequestId>,
        /// What was taken.
        accepted: Accepted,
    },
    /// `{"type":"cancelled","id":5,"job":"01JD…"}`: the cancellation was taken; the job's terminal event follows.
    Cancelled {
        /// The command's.
        id: Option<RequestId>,
        /// The job.
        job: JobId,
    },
    /// `{"type":"members","id":6,"group":"g","members":["specific.gw1!c12"],"next":null}`
    Members {
        /// The command's.
        id: Option<RequestId>,
        /// The group.
        group: GroupName,
        /// Channels in the group, by name.
        members: Vec<ChannelName>,
        /// Where the list goes on, if it does.
        next: Option<String>,
    },
    /// `{"type":"history","id":7,"group":"g","epoch":"x7","messages":[{"offset":41,"message":{…}}],"next":null}`
    History {
        /// The command's.
        id: Option<RequestId>,
        /// The group.
        group: GroupName,
        /// Its messages, oldest first.
        page: HistoryPage,
    },
    /// `{"type":"authenticated","id":8,"user":"alice"}`
    Authenticated {
        /// The command's.
        id: Option<RequestId>,
        /// Who the server takes the client for.
        user: Option<String>,
    },
    /// `{"type":"pong","id":9}`
    Pong {
        /// The ping's.
        id: Option<RequestId>,
    },
    /// `{"type":"message","group":"g","offset":41?,"message":{…}}`
    GroupMessage {
        /// The group it was sent to.
        group: GroupName,
        /// Its place in the group's history, when there is one.
        offset: Option<u64>,
        /// The message.
        message: Message,
    },
    /// `{"type":"message","channel":"specific.gw1!c12","message":{…}}`
    ChannelMessage {
        /// The channel it was sent to.
        channel: ChannelName,
        /// The message.
        message: Message,
    },
    /// `{"type":"joined","group":"g","member":"specific.gw1!c12"}`
    Joined {
        /// A group with presence.
        group: GroupName,
        /// Who came.
        member: ChannelName,
    },
    /// `{"type":"left","group":"g","member":"specific.gw1!c12"}`
    Left {
        /// A group with presence.
        group: GroupName,
        /// Who went.
        member: ChannelName,
    },
    /// `{"type":"gap","group":"g","missed":12,"reason":"slow_consumer","epoch":"x7"?,"offset":52?}`
    Gap {
        /// The group of which messages may be lost.
        group: GroupName,
        /// How many; `null` when unknown.
        missed: Option<u64>,
        /// Why.
        reason: GapReason,
        /// The position after the gap, when the group keeps history.
        position: Option<Position>,
    },
    /// `{"type":"closing","retry_after_ms":1830}`
    Closing {
        /// When to come back.
        retry_after_ms: u64,
    },
    /// `{"type":"error","id":3,"code":"rate_limited","message":"…","retriable":true,"retry_after_ms":120?}`
    Error {
        /// The command's, if it could be read.
        id: Option<RequestId>,
        /// Why it was refused.
        refusal: Refusal,
    },
}

/// What became of the `after` of a `subscribe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// `"recovered":true`: every missed message follows, then live ones.
    Recovered,
    /// `"recovered":false` with a reason: nothing is replayed.
    Unrecovered(Unrecovered),
}

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The reason as it is on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    /// Why nothing is replayed.
    Unrecovered {
        /// The sequence began anew; the client's position means nothing in it.
        EpochChanged = "epoch_changed",
        /// The history no longer reaches back that far.
        Trimmed = "trimmed",
        /// The client claims to have seen what was never sent.
        Ahead = "ahead",
    }
}

reasons! {
    /// Why messages may be lost.
    GapReason {
        /// The client read more slowly than the group's log moves on.
        SlowConsumer = "slow_consumer",
        /// The connection to the broker was interrupted.
        BrokerGap = "broker_gap",
        /// The history ended before the client had caught up.
        HistoryExpired = "history_expired",
    }
}

/// A part of a group's history, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// The epoch of all offsets here; none while nothing is known of the group.
    pub epoch: Option<Box<str>>,
    /// The messages.
    pub messages: Vec<HistoryEntry>,
    /// The offset to go on after, if there is more.
    pub next: Option<u64>,
}

/// A message of a group's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Its place.
    pub offset: u64,
    /// The message.
    pub message: Message,
}
