//! One group as this node follows it: where it is, and whether the node can be sure of that.
//!
//! Decides only; nothing here waits or sends. What arrives is believed where it is the next one. Everything else is the
//! broker's to say, because whoever can write to a broker can make a message with any number: a topic of a group with
//! history ([`kept`]) asks for all that it may have missed; one without ([`plain`]) keeps the message until the broker has
//! said how far it has counted.

mod kept;
mod parked;
mod plain;

use groupcast_protocol::{Envelope, Message, Position};

use crate::config::HistoryRule;
use kept::Kept;
pub(super) use parked::Parking;
use plain::Plain;

/// What a node knows of a group that it follows.
#[derive(Debug)]
pub(super) enum Place {
    Kept(Kept),
    Plain(Plain),
}

/// What is to be done with a message that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is the next one.
    Next(Message),
    /// It is for the members, who have to be told of the hole before it.
    Behind(Hole, Message),
    /// It was taken before.
    Old,
    /// Nobody is a member yet.
    Early,
    /// The broker will be asked.
    Later,
    /// As `Later`; that the broker has to be asked for messages is news.
    Ask,
    /// As `Later`; that the broker has to be asked where it is is news.
    Doubt,
}

/// How many messages are missing; `None` when that cannot be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hole(pub(super) Option<u64>);

/// Something for the members, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Hole(Hole),
    Message(Message),
}

/// What came of what the broker said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Checked {
    /// What is certain by it.
    pub(super) steps: Vec<Step>,
    /// Whether something is missing, unless it is still on its way.
    pub(super) is_short: bool,
    /// Whether the broker has to be asked once more: something has come since.
    pub(super) is_doubted: bool,
}

impl Place {
    pub(super) fn new(keep: Option<HistoryRule>) -> Self {
        match keep {
            Some(rule) => Self::Kept(Kept::new(rule)),
            None => Self::Plain(Plain::default()),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Kept(kept) => kept.is_open,
            Self::Plain(plain) => plain.is_open,
        }
    }

    pub(super) fn keep(&self) -> Option<HistoryRule> {
        match self {
            Self::Kept(kept) => Some(kept.rule),
            Self::Plain(_) => None,
        }
    }

    /// The newest message that was taken; none while nothing is known of the group.
    pub(super) fn at(&self) -> Option<&Position> {
        match self {
            Self::Kept(kept) => kept.at.as_ref(),
            Self::Plain(plain) => plain.at.as_ref(),
        }
    }

    /// The link was lost: whatever comes may have holes.
    pub(super) fn close(&mut self) {
        match self {
            Self::Kept(kept) => kept.is_open = false,
            Self::Plain(plain) => plain.close(),
        }
    }

    /// Takes note of a message.
    pub(super) fn arrive(&mut self, envelope: Envelope, parking: &Parking<'_>) -> Arrival {
        match self {
            Self::Kept(kept) => kept.arrive(envelope),
            Self::Plain(plain) => plain.arrive(envelope, parking),
        }
    }

    /// The broker is asked: what has arrived until now it must know.
    pub(super) fn asking(&mut self) {
        match self {
            Self::Kept(kept) => kept.asking(),
            Self::Plain(plain) => plain.asking(),
        }
    }

    /// What the broker has has been taken, up to `head`. Says whether the group is open, or more arrived meanwhile.
    pub(super) fn caught_up(&mut self, head: Position, parking: &Parking<'_>) -> bool {
        match self {
            Self::Kept(kept) => kept.caught_up(head, parking),
            Self::Plain(_) => true,
        }
    }

    /// Moves on to what was taken from the broker's history.
    pub(super) fn took(&mut self, to: Position) {
        if let Self::Kept(kept) = self {
            kept.at = Some(to);
        }
    }

    /// The broker said where a group without history is.
    pub(super) fn check(&mut self, head: &Position, parking: &Parking<'_>) -> Checked {
        match self {
            Self::Kept(_) => Checked::default(),
            Self::Plain(plain) => plain.check(head, parking),
        }
    }

    /// What was missing at a check has not come; `before` is where the group was then. Goes on behind it.
    pub(super) fn give_up(&mut self, before: Option<&Position>, head: &Position) -> Vec<Step> {
        match self {
            Self::Kept(_) => Vec::new(),
            Self::Plain(plain) => plain.give_up(before, head),
        }
    }
}
