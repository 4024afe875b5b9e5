//! The groups of one connection: mostly one or two of them, so a sorted row and no table.

use crate::names::GroupName;

#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    sorted: Vec<GroupName>,
}

impl Subscriptions {
    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    pub(super) fn contains(&self, group: &GroupName) -> bool {
        self.sorted.binary_search(group).is_ok()
    }

    pub(super) fn insert(&mut self, group: GroupName) {
        let Err(at) = self.sorted.binary_search(&group) else { return };
        if self.sorted.is_empty() {
            // Vec's own first step is four.
            self.sorted.reserve_exact(1);
        }
        self.sorted.insert(at, group);
    }

    pub(super) fn remove(&mut self, group: &GroupName) {
        if let Ok(at) = self.sorted.binary_search(group) {
            self.sorted.remove(at);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &GroupName> {
        self.sorted.iter()
    }
}
