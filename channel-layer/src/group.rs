//! One group of this node: who is in it, what number its next message has, what it keeps and tells.

use std::collections::BTreeMap;
use std::sync::Arc;

use groupcast_protocol::format::At;
use groupcast_protocol::{ChannelName, GroupName, Position};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::history::History;
use crate::mailbox::Mailbox;
use crate::shard::Address;

/// One group of this node. It exists while it has members or a history.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: GroupName,
    /// Unlike the name, never used again: a late event cannot hit a group of the same name.
    pub(crate) id: u64,
    /// Of the offsets of its messages; `None` when it keeps no history, and then nobody is told their numbers.
    pub(crate) epoch: Option<Box<str>>,
    /// Whether members are told who comes and goes.
    pub(crate) has_presence: bool,
    // Held to change members or to number and hand over a message; never over an await.
    state: Mutex<GroupState>,
}

#[derive(Debug)]
pub(crate) struct GroupState {
    /// The number of the next message. Cursors start here.
    pub(crate) next_seq: u64,
    /// How many connections each shard has in the group.
    pub(crate) per_shard: Box<[u32]>,
    pub(crate) members: BTreeMap<ChannelName, Member>,
    /// How many members are mailboxes; mostly none, and then nobody looks for them.
    pub(crate) mailboxes: usize,
    pub(crate) history: Option<Box<History>>,
    /// Nothing is left of it and the map forgets it: whoever finds it has to look again.
    pub(crate) dead: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Member {
    /// A live connection: its shard has a cursor for it. The number tells this membership from earlier ones, of which
    /// the shard may still hear.
    Connection(Address, u64),
    /// A mailbox, and when it was last added.
    Mailbox(Arc<Mailbox>, Instant),
}

impl Group {
    pub(crate) fn new(
        name: GroupName,
        id: u64,
        epoch: Option<Box<str>>,
        has_presence: bool,
        state: GroupState,
    ) -> Self {
        Self { name, id, epoch, has_presence, state: Mutex::new(state) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock()
    }

    /// The place behind message `seq`, for those who keep it to themselves.
    pub(crate) fn at(&self, seq: u64) -> Option<At<'_>> {
        self.epoch.as_deref().map(|epoch| At { epoch, offset: seq })
    }

    /// The place behind message `seq`.
    pub(crate) fn position(&self, seq: u64) -> Option<Position> {
        self.epoch.clone().map(|epoch| Position { epoch, offset: seq })
    }

    pub(crate) fn history_bytes(&self) -> Option<usize> {
        self.lock().history.as_ref().map(|history| history.bytes())
    }
}

impl GroupState {
    pub(crate) fn new(shards: usize, history: Option<History>) -> Self {
        Self {
            next_seq: 1,
            per_shard: vec![0; shards].into(),
            members: BTreeMap::new(),
            mailboxes: 0,
            history: history.map(Box::new),
            dead: false,
        }
    }

    /// The shards that have connections in the group, in ascending order.
    pub(crate) fn shard_set(&self) -> impl Iterator<Item = usize> + '_ {
        self.per_shard.iter().enumerate().filter(|(_, count)| **count > 0).map(|(shard, _)| shard)
    }

    /// The number of a connection's membership.
    pub(crate) fn connection_number(&self, channel: &ChannelName) -> Option<u64> {
        match self.members.get(channel)? {
            Member::Connection(_, number) => Some(*number),
            Member::Mailbox(..) => None,
        }
    }

    /// Takes a member in; says whether it was none before.
    pub(crate) fn add(&mut self, channel: &ChannelName, member: Member) -> bool {
        if let Some(Member::Connection(..)) = self.members.get(channel) {
            return false;
        }
        // A mailbox that is added again is as young as if it were new.
        if self.members.insert(channel.clone(), member.clone()).is_some() {
            return false;
        }
        match member {
            Member::Connection(address, _) => self.per_shard[address.shard()] += 1,
            Member::Mailbox(mailbox, _) => {
                mailbox.joined();
                self.mailboxes += 1;
            }
        }
        if let Some(history) = &mut self.history {
            history.set_idle(false);
        }
        true
    }

    /// Lets a member go. A group whose last one it was is dead, unless it keeps history.
    pub(crate) fn remove(&mut self, channel: &ChannelName) -> Option<Member> {
        let member = self.members.remove(channel)?;
        match &member {
            Member::Connection(address, _) => self.per_shard[address.shard()] -= 1,
            Member::Mailbox(mailbox, _) => {
                mailbox.left();
                self.mailboxes -= 1;
            }
        }
        if self.members.is_empty() {
            match &mut self.history {
                Some(history) => history.set_idle(true),
                None => self.dead = true,
            }
        }
        Some(member)
    }
}
