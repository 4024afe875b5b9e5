//! What others do to a connection: add it to a group, take it out, look at it.

use std::io;
use std::sync::Arc;

use groupcast_protocol::ChannelName;
use groupcast_protocol::frame::ServerFrame;

use super::connection::OUTBOX_FRAMES_CUT;
use super::lane::Start;
use super::{Address, ConnectionInfo, Shard, Signal, Slot};
use crate::group::Group;

impl Shard {
    pub(super) fn attach(&mut self, to: Address, group: Arc<Group>, from_seq: u64, number: u64) {
        let Some(connection) = self.connection_at(to) else {
            // The connection ended between the membership and this event, and did not know of it.
            let channel = format!("specific.{}!c{}", self.registry.config.node, to.number);
            let channel = ChannelName::parse(&channel).expect("made like the connection's own name");
            self.registry.leave(&group.name, &channel, |_, _| ());
            return;
        };
        let name = group.name.clone();
        if connection.ended {
            let channel = connection.channel().clone();
            self.registry.leave(&name, &channel, |_, _| ());
            return;
        }
        // The client may have left by itself meanwhile, and even come back.
        if group.lock().connection_number(connection.channel()) != Some(number) {
            return;
        }
        let keeps_history = group.epoch.is_some();
        if let Some(cursor) = self.cursor_of(to.slot(), |found| *found == name) {
            // With history, the subscription has told where it begins.
            if !keeps_history {
                self.rewind(&group, self.lanes[self.cursors[cursor].lane].format, from_seq);
                self.reach_back(cursor, from_seq);
            }
            return;
        }
        let format = self.connections[to.slot()].next_format();
        // What the shard has seen already is read again: in the history, or by waiting for it anew.
        let replay_from = keeps_history.then_some(from_seq);
        if !keeps_history {
            self.rewind(&group, format, from_seq);
        }
        let position = group.position(from_seq - 1);
        let told = ServerFrame::Subscribed { id: None, group: name.clone(), position, recovery: None };
        self.push(Slot(to.slot()), format.subscribed(&told.encode(), group.at(from_seq - 1)));
        self.add_cursor(to.slot(), group, Start { number, from_seq, replay_from, asked: false });
        self.connections[to.slot()].sink.signal(Signal::Added(name));
        self.cut_if_swamped(to.slot());
    }

    pub(super) fn detach(&mut self, to: Address, group: &Group, number: u64) {
        if self.connection_at(to).is_none() {
            return;
        }
        let cursors = &self.connections[to.slot()].cursors;
        // Of this membership: the client may have left by itself meanwhile, and come back.
        let is_meant = |c: &usize| {
            let cursor = &self.cursors[*c];
            cursor.number == number && self.lanes[cursor.lane].group.id == group.id
        };
        let Some(cursor) = cursors.iter().copied().find(is_meant) else { return };
        self.drop_cursor(cursor);
        self.push_server_frame(to.slot(), &ServerFrame::Unsubscribed { id: None, group: group.name.clone() });
        self.connections[to.slot()].sink.signal(Signal::Removed(group.name.clone()));
        self.cut_if_swamped(to.slot());
    }

    /// What others do to a connection is told whether its socket takes anything or not, so it needs a bound of its own:
    /// beyond it the connection is as good as gone.
    fn cut_if_swamped(&mut self, slot: usize) {
        let connection = &self.connections[slot];
        if connection.outbox.len() >= OUTBOX_FRAMES_CUT {
            let why = "its client reads nothing while others add it to groups and take it out";
            connection.sink.signal(Signal::Failed(io::Error::other(why)));
        }
    }

    pub(super) fn inspect(&mut self, to: Address) -> Option<ConnectionInfo> {
        self.connection_at(to)?;
        let connection = &self.connections[to.slot()];
        let name = |cursor: &usize| self.lanes[self.cursors[*cursor].lane].group.name.clone();
        let mut groups: Vec<_> = connection.cursors.iter().map(name).collect();
        groups.sort();
        Some(ConnectionInfo {
            channel: connection.channel().clone(),
            origin: connection.origin(),
            groups,
            outbox_bytes: connection.outbox_bytes,
            blocked: connection.blocked,
        })
    }
}
