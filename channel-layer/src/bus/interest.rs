//! The groups that somebody on this node needs, and the list of what has changed about them.
//!
//! A topic exists while it has members or somebody holds it open, and a while longer: who leaves and comes back at once
//! costs the broker nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use groupcast_protocol::GroupName;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::topic::Place;
use crate::config::HistoryRule;

/// How long a group that nobody needs is followed all the same.
const LINGER: Duration = Duration::from_secs(10);

/// A group that this node follows or is about to.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: GroupName,
    state: Mutex<State>,
    /// Notified when it is open, for all who wait.
    opened: Notify,
}

#[derive(Debug)]
struct State {
    place: Place,
    /// How many hold it open.
    holders: usize,
    /// Is on the list of what is wanted.
    is_queued: bool,
    /// It is being unfollowed: who needs the group makes another topic.
    is_over: bool,
}

/// All topics. Bounded by what clients may subscribe to, and by who may add channels to groups.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    topics: DashMap<GroupName, Arc<Topic>>,
    /// Topics that have to be followed, or asked about.
    wanted: Mutex<Vec<Arc<Topic>>>,
    /// Topics about which the broker has to be asked, though not at once.
    doubted: Mutex<Vec<Arc<Topic>>>,
    /// Groups that nobody needed at that time, the oldest first.
    idle: Mutex<VecDeque<(Instant, GroupName)>>,
    changed: Notify,
    link: AtomicU64,
}

/// Keeps a group's messages coming to this node.
#[derive(Debug)]
pub struct Opened(Option<(Arc<Topic>, Arc<Interest>)>);

impl Opened {
    /// Of a layer or group where nothing is to be kept.
    pub(super) fn nothing() -> Self {
        Self(None)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some((topic, interest)) = self.0.take() {
            let mut state = topic.state.lock();
            state.holders -= 1;
            let last = state.holders == 0;
            drop(state);
            if last {
                interest.emptied(&topic.name);
            }
        }
    }
}

impl Topic {
    /// Looks at or changes what is known of the group.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Place) -> T) -> T {
        act(&mut self.state.lock().place)
    }

    /// Wakes those who wait for the group to be open.
    pub(super) fn tell_open(&self) {
        self.opened.notify_waiters();
    }
}

impl Interest {
    /// Holds a group open; ready when it is.
    pub(super) async fn open(self: &Arc<Self>, group: &GroupName, keep: Option<HistoryRule>) -> Opened {
        let opened = self.hold(group, keep);
        let Some((topic, _)) = &opened.0 else { return opened };
        loop {
            let told = topic.opened.notified();
            tokio::pin!(told);
            // Before looking: what is told between the look and the wait counts.
            told.as_mut().enable();
            if topic.with(|place| place.is_open()) {
                break;
            }
            told.await;
        }
        opened
    }

    /// Holds a group open that is so already.
    pub(super) fn open_now(self: &Arc<Self>, group: &GroupName) -> Option<Opened> {
        let topic = self.topic(group)?;
        let mut state = topic.state.lock();
        if state.is_over || !state.place.is_open() {
            return None;
        }
        state.holders += 1;
        drop(state);
        Some(Opened(Some((topic, self.clone()))))
    }

    pub(super) fn topic(&self, group: &GroupName) -> Option<Arc<Topic>> {
        self.topics.get(group).map(|topic| topic.value().clone())
    }

    pub(super) fn topics(&self) -> Vec<Arc<Topic>> {
        self.topics.iter().map(|topic| topic.value().clone()).collect()
    }

    /// How many groups are followed.
    pub(crate) fn len(&self) -> usize {
        self.topics.len()
    }

    /// Notes that a topic has to be followed or asked about.
    pub(super) fn want(&self, topic: Arc<Topic>) {
        if !std::mem::replace(&mut topic.state.lock().is_queued, true) {
            self.wanted.lock().push(topic);
            self.changed.notify_one();
        }
    }

    /// What is wanted since the last call.
    pub(super) fn take_wanted(&self) -> Vec<Arc<Topic>> {
        let wanted = std::mem::take(&mut *self.wanted.lock());
        wanted.iter().for_each(|topic| topic.state.lock().is_queued = false);
        wanted
    }

    /// Notes that the broker has to be asked where a group is. Whoever can write to it can cause that: so it waits for its turn.
    pub(super) fn doubt(&self, topic: Arc<Topic>) {
        self.doubted.lock().push(topic);
    }

    /// What is in doubt since the last call.
    pub(super) fn take_doubted(&self) -> Vec<Arc<Topic>> {
        std::mem::take(&mut *self.doubted.lock())
    }

    /// How often the link has come or gone: an answer from before says nothing of what is after.
    pub(super) fn link(&self) -> u64 {
        self.link.load(Ordering::Acquire)
    }

    /// The link has come or gone: nothing is open.
    pub(super) fn close_all(&self) -> Vec<Arc<Topic>> {
        self.link.fetch_add(1, Ordering::AcqRel);
        let topics = self.topics();
        topics.iter().for_each(|topic| topic.with(|place| place.close()));
        topics
    }

    /// Waits until something is wanted. Cancel safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Notes that a group has no members, or nobody holds it open any more.
    pub(crate) fn emptied(&self, group: &GroupName) {
        if self.topics.contains_key(group) {
            self.idle.lock().push_back((Instant::now(), group.clone()));
        }
    }

    /// Takes out topics that nobody has needed for a while: they are over, and have to be unfollowed.
    pub(super) fn take_idle(&self, has_members: impl Fn(&GroupName) -> bool) -> Vec<Arc<Topic>> {
        let mut over = Vec::new();
        loop {
            let due = self.idle.lock().pop_front_if(|(since, _)| since.elapsed() >= LINGER);
            let Some((_, group)) = due else { return over };
            let Some(topic) = self.topic(&group) else { continue };
            let mut state = topic.state.lock();
            // Who has become a member since will be noted again when he leaves; who held it, when he lets go.
            if state.holders > 0 || has_members(&group) {
                continue;
            }
            state.is_over = true;
            drop(state);
            self.topics.remove_if(&group, |_, found| Arc::ptr_eq(found, &topic));
            over.push(topic);
        }
    }

    fn hold(self: &Arc<Self>, group: &GroupName, keep: Option<HistoryRule>) -> Opened {
        loop {
            let mut is_new = false;
            let make = || {
                is_new = true;
                let state = State { place: Place::new(keep), holders: 0, is_queued: false, is_over: false };
                Arc::new(Topic { name: group.clone(), state: Mutex::new(state), opened: Notify::new() })
            };
            let topic = self.topics.entry(group.clone()).or_insert_with(make).value().clone();
            let mut state = topic.state.lock();
            if state.is_over {
                drop(state);
                self.topics.remove_if(group, |_, found| Arc::ptr_eq(found, &topic));
                continue;
            }
            state.holders += 1;
            drop(state);
            if is_new {
                self.want(topic.clone());
            }
            return Opened(Some((topic, self.clone())));
        }
    }
}
