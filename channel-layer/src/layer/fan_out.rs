//! `group_send`: numbering a message, keeping it, and handing it to the shards and mailboxes of its group.

use std::sync::Arc;

use bytes::Bytes;
use groupcast_protocol::{GroupName, Message, frame};
use tokio::sync::mpsc::{self, Permit};
use tokio::time::{Instant, timeout_at};

use super::{ChannelLayer, Sent};
use crate::error::LayerError;
use crate::group::{Group, GroupState, Member};
use crate::mailbox::Received;
use crate::shard::{Event, EventKind};

/// Shards whose room is reserved without an allocation.
const INLINE_SHARDS: usize = 8;

impl ChannelLayer {
    /// Sends a message to every member of a group, and keeps it where the group keeps history. Returns when every
    /// member's shard or mailbox has it, before any socket is written; with a broker, when that has it.
    ///
    /// # Errors
    /// [`LayerError::Broker`] when the broker did not take it in time. [`LayerError::Overloaded`] when a shard had no room within the deadline; nobody has got the message then, and it
    /// is not kept.
    ///
    /// # Cancel safety
    /// A dropped call has sent to all or to nobody.
    pub async fn group_send(&self, name: &GroupName, message: &Message) -> Result<Sent, LayerError> {
        self.registry.stats.group_sends.add(1);
        match self.bus_of(name) {
            Some(bus) => bus.publish(self, name, message).await,
            None => self.local_group_send(name, message).await,
        }
    }

    /// Sends a message to the members on this node.
    pub(crate) async fn local_group_send(&self, name: &GroupName, message: &Message) -> Result<Sent, LayerError> {
        let registry = &self.registry;
        while let Some(group) = registry.group_for_message(name) {
            let mut outgoing = Outgoing::new(&group, message);
            let sent = match self.try_hand_over(&mut outgoing) {
                Attempt::NoRoom => self.hand_over_with_room(&mut outgoing).await?,
                Attempt::Sent(sent) => Some(sent),
                Attempt::Dead => None,
            };
            let Some(sent) = sent else {
                registry.bury(&group);
                continue;
            };
            registry.stats.deliveries.add(sent.members.unwrap_or(0));
            if group.epoch.is_some() {
                registry.keep_history_bound();
            }
            return Ok(sent);
        }
        Ok(Sent { members: Some(0), position: None })
    }

    /// The usual case: every shard of the group has room right now.
    fn try_hand_over(&self, outgoing: &mut Outgoing<'_>) -> Attempt {
        let mut state = outgoing.group.lock();
        if state.dead {
            return Attempt::Dead;
        }
        let mut room = Room::default();
        for shard in state.shard_set() {
            match self.registry.shards[shard].try_reserve() {
                Ok(permit) => room.push(permit),
                // A shard that has ended has no connections left to miss anything.
                Err(mpsc::error::TrySendError::Closed(())) => {}
                Err(mpsc::error::TrySendError::Full(())) => return Attempt::NoRoom,
            }
        }
        Attempt::Sent(self.hand_over(outgoing, &mut state, room))
    }

    /// Waits for room in the shards; `None` when the group was forgotten meanwhile.
    async fn hand_over_with_room(&self, outgoing: &mut Outgoing<'_>) -> Result<Option<Sent>, LayerError> {
        let group = outgoing.group;
        let deadline = Instant::now() + self.registry.config.publish_deadline;
        loop {
            let (wanted, room) = self.reserve(group, deadline).await?;
            let mut state = group.lock();
            if state.dead {
                return Ok(None);
            }
            // Somebody may have subscribed on another shard while we waited: then room is needed there, too.
            if state.shard_set().all(|shard| wanted.contains(&shard)) {
                return Ok(Some(self.hand_over(outgoing, &mut state, room)));
            }
        }
    }

    /// Waits for room in the group's shards, in ascending order: the other way round, two publishers could each hold
    /// what the other waits for. Says which shards they were.
    pub(crate) async fn reserve(&self, group: &Group, deadline: Instant) -> Result<(Vec<usize>, Room<'_>), LayerError> {
        let wanted: Vec<usize> = group.lock().shard_set().collect();
        let mut room = Room::default();
        for shard in &wanted {
            match timeout_at(deadline, self.registry.shards[*shard].reserve()).await {
                Ok(Ok(permit)) => room.push(permit),
                Ok(Err(_closed)) => {}
                Err(_elapsed) => return Err(LayerError::Overloaded { group: group.name.clone() }),
            }
        }
        Ok((wanted, room))
    }

    /// Numbers a message, keeps it and hands it over; every shard of the group's is among those with room.
    fn hand_over(&self, outgoing: &mut Outgoing<'_>, state: &mut GroupState, room: Room<'_>) -> Sent {
        let group = outgoing.group;
        let seq = state.next_seq;
        state.next_seq += 1;
        let frame = outgoing.take_frame(seq);
        if let Some(history) = &mut state.history {
            history.push(frame.clone(), outgoing.message.raw().len());
        }
        let payload = (frame, outgoing.message.trace().clone());
        room.send(payload, |(frame, trace)| EventKind::Deliver { group: group.clone(), seq, frame, trace });
        let members = self.deliver_to_mailboxes(group, state, outgoing.message);
        Sent { members: Some(members), position: group.position(seq) }
    }

    fn deliver_to_mailboxes(&self, group: &Group, state: &GroupState, message: &Message) -> u64 {
        let members = state.members.len() as u64;
        if state.mailboxes == 0 {
            return members;
        }
        for member in state.members.values() {
            if let Member::Mailbox(mailbox, _) = member {
                let item = Received { message: message.clone(), group: Some(group.name.clone()) };
                if self.push(mailbox, item).is_err() {
                    self.registry.stats.passed_over.add(1);
                }
            }
        }
        members
    }
}

enum Attempt {
    Sent(Sent),
    /// A shard has none right now. Nothing was sent.
    NoRoom,
    /// The group was forgotten between finding and locking it.
    Dead,
}

/// A message on its way to a group.
struct Outgoing<'a> {
    group: &'a Arc<Group>,
    message: &'a Message,
    /// The frame for every subscriber of every shard; not there yet when the message's number belongs into it.
    frame: Option<Bytes>,
}

impl<'a> Outgoing<'a> {
    fn new(group: &'a Arc<Group>, message: &'a Message) -> Self {
        let encode = || frame::frame_group_message(&group.name, None, message);
        Self { group, message, frame: group.epoch.is_none().then(encode) }
    }

    fn take_frame(&mut self, seq: u64) -> Bytes {
        let encode = || frame::frame_group_message(&self.group.name, Some(seq), self.message);
        self.frame.take().unwrap_or_else(encode)
    }
}

/// Reserved places in the queues of shards.
#[derive(Default)]
pub(crate) struct Room<'a> {
    first: [Option<Permit<'a, Event>>; INLINE_SHARDS],
    len: usize,
    others: Vec<Permit<'a, Event>>,
}

impl<'a> Room<'a> {
    fn push(&mut self, permit: Permit<'a, Event>) {
        match self.first.get_mut(self.len) {
            Some(place) => *place = Some(permit),
            None => self.others.push(permit),
        }
        self.len += 1;
    }

    /// Sends something to each of the shards.
    pub(crate) fn send<T: Clone>(self, payload: T, event: impl Fn(T) -> EventKind) {
        let mut permits = self.first.into_iter().flatten().chain(self.others).peekable();
        let mut payload = Some(payload);
        while let Some(permit) = permits.next() {
            // The last one gets the thing itself: with one shard, nothing is counted.
            let last = permits.peek().is_none();
            let payload = if last { payload.take() } else { payload.clone() };
            permit.send(Event(event(payload.expect("it is taken by the last one only"))));
        }
    }
}
