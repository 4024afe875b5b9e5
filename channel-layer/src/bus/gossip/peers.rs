//! What this node has heard of the others. Decides only: what to do about it goes back as [`Act`]s.
//!
//! **Numbers.** Each change of a node has the next number. Who has missed one, or knows nothing of a node, asks for all its
//! members, and takes no changes until he has them.
//!
//! **Leases.** A node's members are let go when this node has heard itself [`LEASE_BEATS`] times and the other one not once. So a
//! node that is cut off itself lets nobody go: it does not hear itself either.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use groupcast_protocol::{ChannelName, GroupName};
use tokio::time::Instant;

use super::note::{Lines, Note, Said, Speaker};
use crate::presence::{Change, Holder};

/// Own beats in a row that come without a word of another node, until its members are let go.
const LEASE_BEATS: u32 = 5;
/// How long an answer is waited for before it is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Nodes that are listened to. The members of more are not known here.
const PEERS_MAX: usize = 1024;
/// Members in a state that is not complete yet; a node that claims to have more is not believed.
const STATE_MAX: usize = 1_000_000;

/// Members by group.
pub(super) type Members = BTreeMap<GroupName, BTreeSet<ChannelName>>;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Members of a node have come and gone.
    Change { by: Holder, group: GroupName, changes: Vec<(ChannelName, Change)> },
    /// These are all members of a node.
    Replace { by: Holder, members: Members },
    /// A node is to be asked for all its members.
    Ask { of: Speaker },
    /// This node has been asked for all its members.
    Answer,
    /// A node is heard of for the first time, and may know nothing of this one.
    Introduce,
}

/// The other nodes.
#[derive(Debug)]
pub(super) struct Peers {
    me: Speaker,
    known: HashMap<Speaker, Peer>,
    last_holder: u32,
}

#[derive(Debug)]
struct Peer {
    holder: Holder,
    /// The last of its changes that was taken; none when something is missing.
    at: Option<u64>,
    /// Own beats since it was heard.
    silent: u32,
    asked: Option<Instant>,
    incoming: Option<Incoming>,
}

/// A state of which parts are still to come.
#[derive(Debug)]
struct Incoming {
    seq: u64,
    next: u64,
    len: usize,
    members: Members,
}

impl Peers {
    pub(super) fn new(me: Speaker) -> Self {
        Self { me, known: HashMap::new(), last_holder: Holder::HERE.0 }
    }

    /// How many other nodes are there.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Takes what a node has told.
    pub(super) fn hear(&mut self, note: Note<'_>, now: Instant) -> Vec<Act> {
        let Note { from, said } = note;
        if from == self.me {
            return match said {
                Said::Beat { .. } => self.let_go(),
                _ => Vec::new(),
            };
        }
        if said == Said::End {
            let gone = self.known.remove(&from);
            return gone.map(|peer| peer.gone()).into_iter().collect();
        }
        let mut acts = Vec::new();
        if matches!(&said, Said::Ask { of } if *of == self.me) {
            acts.push(Act::Answer);
        }
        if !self.known.contains_key(&from) && self.known.len() < PEERS_MAX {
            acts.push(Act::Introduce);
            self.meet(from.clone());
        }
        if let Some(peer) = self.known.get_mut(&from) {
            peer.silent = 0;
            if !peer.take(said, &mut acts) && peer.asks(now) {
                acts.push(Act::Ask { of: from });
            }
        }
        acts
    }

    /// Lets those go that have not been heard for too long.
    fn let_go(&mut self) -> Vec<Act> {
        let mut gone = Vec::new();
        self.known.retain(|speaker, peer| {
            peer.silent += 1;
            let is_there = peer.silent < LEASE_BEATS;
            if !is_there {
                tracing::info!(%speaker, "a node is not heard of any more; its members are let go");
                gone.push(peer.gone());
            }
            is_there
        });
        gone
    }

    fn meet(&mut self, speaker: Speaker) {
        tracing::debug!(%speaker, "a node is heard of for the first time");
        // Never used again within four billion nodes.
        self.last_holder = self.last_holder.wrapping_add(1).max(1);
        let holder = Holder(self.last_holder);
        self.known.insert(speaker, Peer { holder, at: None, silent: 0, asked: None, incoming: None });
    }
}

impl Peer {
    /// Takes what the node has told. Says whether all its members are known, or about to be.
    fn take(&mut self, said: Said<'_>, acts: &mut Vec<Act>) -> bool {
        match said {
            Said::State { seq, part, is_last, lines } => return self.take_state((seq, part, is_last), lines, acts),
            Said::Beat { seq, members: 0 } if self.at != Some(seq) => {
                self.at = Some(seq);
                acts.push(Act::Replace { by: self.holder, members: Members::new() });
            }
            Said::Beat { seq, .. } => self.at = self.at.filter(|at| *at == seq),
            Said::Changes { seq, lines } => match self.at {
                Some(at) if seq <= at => {}
                Some(at) if seq == at + 1 => {
                    self.at = Some(seq);
                    let by = self.holder;
                    acts.extend(lines.read().map(|(group, changes)| Act::Change { by, group, changes }));
                }
                _ => self.at = None,
            },
            Said::Ask { .. } | Said::End => return true,
        }
        // Parts of a state follow each other without anything between them.
        self.incoming = None;
        self.at.is_some()
    }

    fn take_state(&mut self, (seq, part, is_last): (u64, u64, bool), lines: Lines<'_>, acts: &mut Vec<Act>) -> bool {
        if self.at.is_some_and(|at| at >= seq) {
            return true;
        }
        let mut state = match self.incoming.take() {
            _ if part == 0 => Incoming { seq, next: 0, len: 0, members: Members::new() },
            Some(state) if state.seq == seq && state.next == part => state,
            _ => return false,
        };
        for (group, changes) in lines.read() {
            state.len += changes.len();
            state.members.entry(group).or_default().extend(changes.into_iter().map(|(member, _)| member));
        }
        state.next += 1;
        if state.len > STATE_MAX {
            return false;
        }
        if is_last {
            (self.at, self.asked) = (Some(seq), None);
            acts.push(Act::Replace { by: self.holder, members: state.members });
        } else {
            self.incoming = Some(state);
        }
        true
    }

    /// Whether it is time to ask.
    fn asks(&mut self, now: Instant) -> bool {
        let is_time = self.asked.is_none_or(|asked| now.duration_since(asked) >= ASK_AGAIN);
        if is_time {
            self.asked = Some(now);
        }
        is_time
    }

    fn gone(&self) -> Act {
        Act::Replace { by: self.holder, members: Members::new() }
    }
}
