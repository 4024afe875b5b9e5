//! A connection's place in one group.

use groupcast_protocol::frame::GapReason;
use slab::Slab;

use super::Shard;
use super::catch_up::CatchUp;
use super::connection::Connection;

/// A connection's place in one group.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) connection: usize,
    pub(super) lane: usize,
    /// Its place in the lane's list for its state.
    pub(super) index: u32,
    /// Its place in the connection's list.
    pub(super) place: u32,
    pub(super) state: CursorState,
    /// Whether the client asked for it; else it was added from outside.
    pub(super) asked: bool,
    /// The number of its membership.
    pub(super) number: u64,
    /// The number of the first message that is for it.
    pub(super) from_seq: u64,
    /// Where it is in the log while it reads there; always on a frame's border.
    pub(super) position: u64,
    /// There while it catches up.
    pub(super) catch_up: Option<Box<CatchUp>>,
    /// What it has missed and was not told of.
    pub(super) lost: Option<Box<Lost>>,
}

/// `Waiting | CatchingUp => AtEnd <=> Behind => CatchingUp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CursorState {
    /// Its first message has not come by.
    Waiting,
    /// Everything is written.
    AtEnd,
    /// There is something to write in the log, and it is on its connection's list.
    Behind,
    /// It reads from the group's history, and is on its connection's list.
    CatchingUp,
}

/// What a reader has missed.
#[derive(Debug)]
pub(super) struct Lost {
    /// Messages. With none, it may still be that it was not told who came and went.
    pub(super) missed: u64,
    pub(super) reason: GapReason,
}

impl Cursor {
    /// Notes a loss, for [`Shard::tell_gaps`].
    pub(super) fn lose(&mut self, missed: u64, reason: GapReason) {
        match &mut self.lost {
            Some(lost) => lost.missed += missed,
            None => self.lost = Some(Box::new(Lost { missed, reason })),
        }
    }
}

impl Shard {
    /// The newest message that is written or has begun to be, or is told to be lost.
    pub(super) fn seq_of(&self, cursor: usize) -> u64 {
        let cursor = &self.cursors[cursor];
        let lane = &self.lanes[cursor.lane];
        match (cursor.state, &cursor.catch_up) {
            (CursorState::CatchingUp, Some(catch_up)) => catch_up.written,
            (CursorState::Waiting | CursorState::CatchingUp, _) => cursor.from_seq - 1,
            (CursorState::Behind, _) => lane.log.seq_at(cursor.position),
            (CursorState::AtEnd, _) => lane.next_seq - 1,
        }
    }

    /// Moves a cursor to another state, and with it to the lane's list for that state.
    pub(super) fn set_state(&mut self, key: usize, state: CursorState) {
        self.delist(key);
        self.cursors[key].state = state;
        self.enlist(key);
    }

    pub(super) fn enlist(&mut self, key: usize) {
        let cursor = &mut self.cursors[key];
        let lane = &mut self.lanes[cursor.lane];
        lane.behind += usize::from(cursor.state == CursorState::Behind);
        let list = lane.list(cursor.state);
        cursor.index = list.len() as u32;
        list.push(key);
        let connection = &mut self.connections[cursor.connection];
        connection.catching_up += u32::from(cursor.state == CursorState::CatchingUp);
    }

    pub(super) fn delist(&mut self, key: usize) {
        let cursor = &self.cursors[key];
        let (state, index) = (cursor.state, cursor.index as usize);
        let lane = &mut self.lanes[cursor.lane];
        lane.behind -= usize::from(state == CursorState::Behind);
        let list = lane.list(state);
        list.swap_remove(index);
        let moved = list.get(index).copied();
        let connection = &mut self.connections[cursor.connection];
        connection.catching_up -= u32::from(state == CursorState::CatchingUp);
        if let Some(moved) = moved {
            self.cursors[moved].index = index as u32;
        }
    }

    /// Takes the cursors that have nothing to write off the connection's list.
    pub(super) fn forget_clean(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        let mut at = 0;
        while at < connection.dirty {
            let key = connection.cursors[at as usize];
            if matches!(self.cursors[key].state, CursorState::Behind | CursorState::CatchingUp) {
                at += 1;
            } else {
                connection.dirty -= 1;
                change_places(connection, &mut self.cursors, at, connection.dirty);
            }
        }
    }

    /// Takes a cursor off its connection's list.
    pub(super) fn leave_connection(&mut self, key: usize) {
        let Cursor { connection, mut place, .. } = self.cursors[key];
        let connection = &mut self.connections[connection];
        if place < connection.dirty {
            connection.dirty -= 1;
            change_places(connection, &mut self.cursors, place, connection.dirty);
            place = connection.dirty;
        }
        let last = connection.cursors.len() as u32 - 1;
        change_places(connection, &mut self.cursors, place, last);
        connection.cursors.pop();
    }
}

/// Puts a cursor among those of its connection that have something to write.
pub(super) fn mark_dirty(connection: &mut Connection, cursors: &mut Slab<Cursor>, key: usize) {
    let place = cursors[key].place;
    change_places(connection, cursors, place, connection.dirty);
    connection.dirty += 1;
}

fn change_places(connection: &mut Connection, cursors: &mut Slab<Cursor>, one: u32, other: u32) {
    if one != other {
        connection.cursors.swap(one as usize, other as usize);
        cursors[connection.cursors[one as usize]].place = one;
        cursors[connection.cursors[other as usize]].place = other;
    }
}
