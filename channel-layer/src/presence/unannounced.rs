//! The groups whose members here have something to be told.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use groupcast_protocol::GroupName;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::group::Group;

/// Groups whose members have something to be told, each at most once, and none that is dead.
#[derive(Debug, Default)]
pub(crate) struct Unannounced {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    groups: BTreeMap<GroupName, Arc<Group>>,
    /// Whose turn it was last: the next one by name is next.
    last: Option<GroupName>,
}

impl Unannounced {
    pub(crate) fn list(&self, group: Arc<Group>) {
        self.waiting.lock().groups.insert(group.name.clone(), group);
        self.arrived.notify_one();
    }

    pub(crate) fn unlist(&self, group: &Arc<Group>) {
        let mut waiting = self.waiting.lock();
        if waiting.groups.get(&group.name).is_some_and(|listed| Arc::ptr_eq(listed, group)) {
            waiting.groups.remove(&group.name);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.waiting.lock().groups.len()
    }

    /// The group whose turn it is, which stays on the list. Cancel safe.
    pub(super) async fn next(&self) -> Arc<Group> {
        loop {
            let arrived = self.arrived.notified();
            let next = self.waiting.lock().next();
            match next {
                Some(group) => return group,
                None => arrived.await,
            }
        }
    }
}

impl Waiting {
    fn next(&mut self) -> Option<Arc<Group>> {
        let after = self.last.take().map_or(Unbounded, Excluded);
        let next = self.groups.range((after, Unbounded)).next().or_else(|| self.groups.first_key_value());
        let (name, group) = next?;
        self.last = Some(name.clone());
        Some(group.clone())
    }
}
